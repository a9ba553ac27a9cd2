"""What a worker writes down, through the application."""

import numpy as np

from service.api.metrics.cells import Block
from service.api.metrics.families import COUNTED, REQUESTS
from service.api.metrics.recorder import STATE, Places, Recorder
from service.scoring.scorer import Scorer
from tests.service.conftest import Api


def requests(api: Api) -> dict[tuple[str, ...], float]:
    recorder = api.lifecycle.recorder
    cells = recorder.block.values(0, recorder.places.stop).sum(axis=0)
    return {key: float(cells[at]) for key, at in recorder.places.at[REQUESTS].items() if cells[at]}


def test_no_two_metrics_share_a_cell() -> None:
    places = Places()
    taken = [at for family in COUNTED for at in places.at[family].values()]
    assert len(taken) == len(set(taken)) and min(taken) == len(STATE) and max(taken) < places.stop


def test_routes_are_counted_by_template_and_unknown_paths_together(api: Api) -> None:
    api.get("/v2/models/toy")
    api.get("/v2/models/other")
    for path in ("/a", "/b/c"):
        api.get(path)
    api.call("PUT", "/livez")
    found = requests(api)
    assert found["/v2/models/{name}", "ok"] == 1 and found["/v2/models/{name}", "unknown-model"] == 1
    assert found["other", "not-found"] == 2
    assert sum(count for (_, outcome), count in found.items() if outcome == "method-not-allowed") == 1


def test_a_fault_is_an_internal_error(api: Api) -> None:
    api.lifecycle.scorer.observer = None
    api.lifecycle._scorer = None  # and something that is no scorer
    api.post("/v1/predict", {"candidates": []})
    assert requests(api) == {("/v1/predict", "not-ready"): 1}


def test_with_drift_every_0_nothing_is_looked_at(scorer: Scorer) -> None:
    recorder = Recorder(Block(1), drift_every=0)
    recorder.watch(scorer)
    scorer.score({}, {"item_id": ["i1"]})
    assert recorder.layout is not None and recorder.drift is None
    values = recorder.block.values(recorder.layout.slots, recorder.layout.stop)
    assert not np.any(values)


def test_a_model_whose_features_do_not_fit_is_served_without_being_looked_at(scorer: Scorer) -> None:
    recorder = Recorder(Block(1, cells=Places().stop + 10), drift_every=1)
    recorder.watch(scorer)
    assert recorder.layout is None and recorder.drift is None
    scorer.score({}, {"item_id": ["i1"]})
    recorder.request("/v1/predict", "ok", 0.0)
