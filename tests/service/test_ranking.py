"""Requests as answers."""

from typing import Any

import numpy as np
import orjson
import pytest

from contract.errors import RequestInvalid, SeveralInvalid
from service.api.ranking import (
    answer,
    answer_batch,
    answer_each,
    answer_each_batch,
    arrays_of,
    arrays_of_batches,
    wire_of,
)
from service.api.settings import Limits
from service.scoring.scorer import Scorer

ITEMS = {"item_id": ["i1", "i2", "i3", "i4", "i5", "i6"], "price": [5, 4, 3, 2, 1, 0]}
PERSON = {"user_id": "u1", "city": "Berlin", "recent_items": ["i1"], "recent_actions": ["buy"]}


@pytest.fixture
def one(scorer: Scorer) -> Any:
    wire = wire_of(scorer, Limits())
    return lambda **request: orjson.loads(answer(scorer, wire.read_request(orjson.dumps(request))))


@pytest.fixture
def several(scorer: Scorer) -> Any:
    wire = wire_of(scorer, Limits())
    return lambda *requests: orjson.loads(
        answer_batch(scorer, wire.read_batch(orjson.dumps({"requests": list(requests)})))
    )


def test_the_answer_names_the_model_and_has_a_score_for_every_candidate(one: Any, scorer: Scorer) -> None:
    found = one(user=PERSON, candidates=ITEMS)
    assert list(found) == ["model", "pctr", "pcvr", "pctcvr"]
    assert found["model"] == {"name": "toy", "version": "1", "digest": scorer.digest}
    assert [len(found[name]) for name in ("pctr", "pcvr", "pctcvr")] == [6, 6, 6]


def test_sorted_answers_hold_the_best_first_and_where_they_stood(one: Any) -> None:
    plain, ranked = one(user=PERSON, candidates=ITEMS), one(user=PERSON, candidates=ITEMS, order_by="pcvr")
    assert ranked["index"] == np.argsort(-np.array(plain["pcvr"])).tolist()
    for name in ("pctr", "pcvr", "pctcvr"):
        assert ranked[name] == [plain[name][at] for at in ranked["index"]]


def test_top_k_cuts_the_sorted_answer(one: Any) -> None:
    ranked = one(user=PERSON, candidates=ITEMS, order_by="pctcvr")
    for top_k in (1, 3, 6, 1000):
        cut = one(user=PERSON, candidates=ITEMS, top_k=top_k)
        assert cut["index"] == ranked["index"][:top_k]
        assert cut["pctr"] == ranked["pctr"][:top_k]


def test_equal_scores_keep_the_order_they_came_in(one: Any) -> None:
    same = {"item_id": ["i1", "i2"] * 100}
    index = one(user=PERSON, candidates=same, order_by="pctr")["index"]
    assert index in ([*range(0, 200, 2), *range(1, 200, 2)], [*range(1, 200, 2), *range(0, 200, 2)])


def test_a_batch_answers_each_request_as_if_it_were_alone(one: Any, several: Any) -> None:
    requests: list[dict[str, Any]] = [
        {"user": PERSON, "candidates": ITEMS},
        {"candidates": [{"item_id": "i3", "tags": [1, 2, 9]}, {"item_id": "i1", "category": 2}]},
        {"user": {"age": 50}, "candidates": {"item_id": []}},
        {"user": {"city": "Shanghai"}, "candidates": ITEMS, "top_k": 2},
        {"user": {"city": "Shanghai"}, "candidates": ITEMS, "order_by": "pctr"},
    ]
    found = several(*requests)
    assert list(found) == ["model", "results"]
    for request, result in zip(requests, found["results"], strict=True):
        alone = one(**request)
        assert alone.pop("model") == found["model"]
        assert result.keys() == alone.keys()
        assert result.get("index") == alone.get("index")
        for name in ("pctr", "pcvr", "pctcvr"):
            np.testing.assert_allclose(result[name], alone[name], atol=1e-6)


def test_requests_that_share_a_run_are_answered_each_as_if_alone(one: Any, scorer: Scorer) -> None:
    requests: list[dict[str, Any]] = [
        {"user": PERSON, "candidates": ITEMS},
        {"user": {"city": "Shanghai"}, "candidates": {"item_id": ["i3"], "category": [2]}, "top_k": 1},
        {"candidates": {"item_id": []}},
    ]
    wire = wire_of(scorer, Limits())
    read = [wire.read_request(orjson.dumps(request)) for request in requests]
    found = answer_each(scorer, read, scorer.run(arrays_of(scorer, read)))
    for request, content in zip(requests, map(orjson.loads, found), strict=True):
        alone = one(**request)
        assert content.keys() == alone.keys() and content["model"] == alone["model"]
        for name in content.keys() - {"model"}:
            np.testing.assert_allclose(content[name], alone[name], atol=1e-6)


def test_batches_that_share_a_run_are_answered_each_as_if_alone(scorer: Scorer) -> None:
    wire = wire_of(scorer, Limits())
    bodies = [[{"user": PERSON, "candidates": ITEMS}, {"candidates": {"item_id": ["i3"]}}], [], [{"candidates": ITEMS}]]
    batches = [wire.read_batch(orjson.dumps({"requests": requests})) for requests in bodies]
    found = answer_each_batch(scorer, batches, scorer.run(arrays_of_batches(scorer, batches)))
    for batch, content in zip(batches, map(orjson.loads, found), strict=True):
        alone = orjson.loads(answer_batch(scorer, batch))
        assert content["model"] == alone["model"] and len(content["results"]) == len(batch)
        for result, expected in zip(content["results"], alone["results"], strict=True):
            np.testing.assert_allclose(result["pctcvr"], expected["pctcvr"], atol=1e-6)


def test_an_empty_batch_has_no_results(several: Any) -> None:
    assert several()["results"] == []


def test_a_batch_names_every_request_that_is_wrong(several: Any) -> None:
    good = {"candidates": {"item_id": ["i1", "i2"]}}
    with pytest.raises(RequestInvalid) as single:
        several(good, {"candidates": {"item_id": ["i1", 2]}}, good)
    assert single.value.place == "requests[1].candidates.item_id[1]"
    with pytest.raises(SeveralInvalid) as both:
        several({"user": {"age": "x"}, **good}, good, {"user": {"age": "x", "city": 1}, **good})
    assert [error.place for error in both.value.errors] == [
        "requests[0].user.age",
        "requests[2].user.city",
        "requests[2].user.age",
    ]
