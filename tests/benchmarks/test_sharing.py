"""The sharing benchmark compares one network with itself: the same request, the same scores, and it says if not."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks import sharing
from contract.features import Numeric
from contract.manifest import ROW_USER
from models.separate_towers import SeparateTowersOptions
from training.encoders import Fitted

OPTIONS = SeparateTowersOptions(tower=(8,))


@pytest.fixture(scope="module")
def fit() -> Fitted:
    return sharing.fitted(sharing.features((2, 2), (1, 1)), ids=50, values=10)


@pytest.fixture(scope="module")
def models(fit: Fitted) -> tuple[bytes, bytes]:
    return sharing.export(OPTIONS, fit)


@pytest.fixture(scope="module")
def graphs(models: tuple[bytes, bytes], fit: Fitted) -> sharing.Graphs:
    return sharing.Graphs.of(*models, fit)


def test_sixty_percent_of_the_input_is_the_users_and_forty_features_are_categorical() -> None:
    chosen = sharing.features()
    user, item, *_ = sharing.network(OPTIONS, sharing.fitted(chosen, ids=50, values=10)).embeddings.widths
    assert user / (user + item) == pytest.approx(0.6)
    assert sum(feature.kind == "categorical" for feature in chosen) == 40


def test_flat_request_repeats_the_user_for_every_candidate(fit: Fitted) -> None:
    feeds = sharing.request(fit, 7)
    repeated = sharing.flat(feeds, fit)
    assert ROW_USER in feeds and ROW_USER not in repeated
    for feature in fit.features:
        assert len(feeds[feature.name]) == (1 if feature.side == "user" else 7)
        assert len(repeated[feature.name]) == 7
        if feature.side == "user":
            assert (repeated[feature.name] == feeds[feature.name][0]).all()


def test_candidates_differ_and_so_do_their_scores(graphs: sharing.Graphs, fit: Fitted) -> None:
    feeds = sharing.request(fit, 50)
    for feature in fit.features:
        if feature.side == "item":
            assert len(np.unique(feeds[feature.name].astype(str))) >= 5
    for scores in graphs.shared.run(sharing.NAMES, feeds):
        assert np.std(scores) > 0.005


def test_all_four_graphs_score_the_same(graphs: sharing.Graphs) -> None:
    for candidates in (1, 2, 50):
        assert graphs.difference(candidates) <= sharing.TOLERANCE


def test_flat_graph_takes_no_row_user_and_the_cores_take_no_strings(graphs: sharing.Graphs, fit: Fitted) -> None:
    assert ROW_USER in graphs.shared.inputs and ROW_USER not in graphs.flat.inputs
    for core in (graphs.shared_core, graphs.flat_core):
        assert {port.dtype for port in core.inputs.values()} == {"int64", "float32"}
        assert len(core.inputs) >= len(fit.features)
    strings = [name for name, port in graphs.shared.inputs.items() if port.dtype == "string"]
    assert len(strings) == sum(not isinstance(feature, Numeric) for feature in fit.features)


def test_every_number_of_candidates_is_a_line_with_a_value_for_every_column(graphs: sharing.Graphs) -> None:
    lines = graphs.rows("towers", (20, 400), repetitions=5)
    assert [line[:2] for line in lines] == [("towers", "20"), ("towers", "400")]
    for line in lines:
        assert len(line) == len(sharing.HEADER)
        assert all(float(line[i].rstrip("x")) > 0 for i in range(2, 9))
    assert float(lines[1][2]) > float(lines[0][2]), "more candidates take longer"


def test_graphs_that_disagree_are_not_timed(models: tuple[bytes, bytes], fit: Fitted) -> None:
    damaged = onnx.load_model_from_string(models[1])
    for weight in damaged.graph.initializer:
        array = numpy_helper.to_array(weight)
        if array.dtype == np.float32:
            weight.CopyFrom(numpy_helper.from_array(array + np.float32(1e-4), weight.name))
    graphs = sharing.Graphs.of(models[0], damaged.SerializeToString(), fit)
    with pytest.raises(SystemExit, match=r"towers: the graphs differ by .*, more than 1e-06"):
        graphs.rows("towers", (20,), repetitions=1)
