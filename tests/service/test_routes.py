"""The API as clients see it, without a socket."""

import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from contract.errors import FullfunnelError
from service.scoring.scorer import Feeds, Scorer, Scores
from tests.service.conftest import Api, MakeApi
from tests.service.test_scorer import no_clip_of_price, one_sided, publish

PREDICT, BATCH = "/v1/predict", "/v1/predict:batch"
ONE: dict[str, Any] = {"candidates": {"item_id": ["i1"]}}
FULL: dict[str, Any] = {
    "user": {"user_id": "u1", "city": "Shanghai", "recent_items": ["i4", "i2"], "recent_actions": ["view", "buy"]},
    "candidates": {"item_id": ["i1", "i2", "i3"], "price": [9.9, 120.0, None]},
}


def problem_of(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert len(response.content) <= 16 * 1024
    found: dict[str, Any] = response.json()
    assert found["type"] == f"urn:fullfunnel:problem:{slug}"
    assert found["status"] == status
    assert found["request_id"] == response.headers["x-request-id"]
    return found


def test_columns_and_objects_get_the_same_answer(api: Api) -> None:
    columns: dict[str, Any] = FULL["candidates"]
    objects = [{"item_id": i, "price": p} for i, p in zip(columns["item_id"], columns["price"], strict=True)]
    first, second = api.post(PREDICT, FULL), api.post(PREDICT, {**FULL, "candidates": objects})
    assert first.status_code == 200
    assert first.headers["content-type"] == "application/json"
    assert first.json() == second.json()


def test_the_scores_are_those_of_the_scorer(api: Api, scorer: Scorer) -> None:
    users = {name: [value] for name, value in FULL["user"].items()}
    expected = scorer.score(users, FULL["candidates"])
    found = api.post(PREDICT, FULL).json()
    for name, values in expected.items():
        np.testing.assert_array_equal(np.array(found[name], dtype=np.float32), values)


def test_top_k_and_order_by(api: Api) -> None:
    plain = api.post(PREDICT, FULL).json()
    best = api.post(PREDICT, {**FULL, "top_k": 1, "order_by": "pctr"}).json()
    assert best["index"] == [int(np.argmax(plain["pctr"]))]
    assert best["pctr"] == [max(plain["pctr"])]


def test_a_batch_is_one_run_of_the_model(make_api: MakeApi, toy: Path) -> None:
    fresh = Scorer.load(toy)
    runs: list[int] = []
    run = fresh.session.run

    def count_and_run(outputs: Any, feeds: Any) -> Any:
        runs.append(len(feeds["row_user"]))
        return run(outputs, feeds)

    fresh.session.run = count_and_run  # type: ignore[method-assign]
    answers = make_api(lambda: fresh).post(BATCH, {"requests": [ONE, FULL, FULL]}).json()["results"]
    assert runs == [7]
    assert [len(answer["pctr"]) for answer in answers] == [1, 3, 3]


def test_a_wrong_request_of_a_batch_is_named_by_its_index(api: Api) -> None:
    bad = {"candidates": {"item_id": ["i1", "i2"], "price": [1, "x"]}}
    found = problem_of(api.post(BATCH, {"requests": [ONE, FULL, bad]}), 422, "value-invalid")
    assert found["errors"][0]["place"] == "requests[2].candidates.price[1]"


def test_an_error_names_feature_and_position(api: Api) -> None:
    bad = {"candidates": {"item_id": ["a", "b", "c", "d"], "price": [1, 2, 3, "4"]}}
    found = problem_of(api.post(PREDICT, bad), 422, "value-invalid")
    assert found["detail"] == "candidates.price[3]: must be a number."
    found = problem_of(
        api.post(PREDICT, {**ONE, "user": {"recent_items": ["a", "b", 3], "recent_actions": ["x"] * 3}}),
        422,
        "value-invalid",
    )
    assert found["errors"][0]["place"] == "user.recent_items[2]"


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        ({"candidates": {"item_id": [None]}}, 422, "feature-missing"),
        ({"candidates": {"price": [1]}}, 422, "feature-missing"),
        ({}, 422, "feature-missing"),
        ({"candidates": {"item_id": ["a"], "city": ["x"]}}, 422, "unknown-feature"),
        ({"candidates": {"item_id": ["a"], "price": [1, 2]}}, 422, "length-mismatch"),
        ({"candidates": {"item_id": ["a"]}, "limit": 3}, 422, "unknown-field"),
        ({"candidates": {"item_id": ["a"] * 1025}}, 422, "too-many-candidates"),
        ({"candidates": {"item_id": ["a" * 1025]}}, 422, "value-invalid"),
        ({"candidates": {"item_id": [1], "price": ["a"]}}, 422, "several-invalid"),
        (b'{"candidates": {"item_id": ["a"], "price": [NaN]}}', 400, "body-malformed"),
        (b'{"candidates": {"item_id": ["a"], "price": [1e999]}}', 400, "body-malformed"),
        (b'{"candidates": {"item_id": ["a"], "price": [-Infinity]}}', 400, "body-malformed"),
        (b'{"candidates": {"item_id": ["a"], "price": [1e39]}}', 422, "value-invalid"),
        (b'{"candidates": {"item_id": ["a"], "category": [' + b"9" * 400 + b"]}}", 400, "body-malformed"),
        (b'{"candidates": {"item_id": ["a"], "category": [9223372036854775808]}}', 422, "value-invalid"),
        (b'{"candidates": {"item_id": ["a"], "category": [18446744073709551616]}}', 422, "value-invalid"),
        (b'{"candidates": {"item_id": ["\\ud800"]}}', 400, "body-malformed"),
        (b"[" * 100_000, 400, "too-deep"),
        (b"\xff\xfe", 400, "body-malformed"),
        (b"", 400, "body-malformed"),
    ],
)
def test_what_cannot_be_scored_is_a_problem_below_500(api: Api, body: Any, status: int, slug: str) -> None:
    problem_of(api.post(PREDICT, body), status, slug)


def test_a_batch_has_limits_too(api: Api) -> None:
    problem_of(api.post(BATCH, {"requests": [ONE] * 65}), 422, "too-many-requests")
    many = {"candidates": {"item_id": ["a"] * 1000}}
    problem_of(api.post(BATCH, {"requests": [many] * 9}), 422, "too-many-candidates")
    assert api.post(BATCH, {"requests": [many] * 8}).status_code == 200


def test_values_are_never_echoed(api: Api) -> None:
    canary = "canary-4711"
    for body in (
        {"candidates": {"item_id": ["a"], "price": [canary]}},
        {"user": {"age": canary, "city": [canary]}, **ONE},
        {"user": canary},
        {"candidates": canary},
        {**ONE, "order_by": canary},
        {"requests": canary},
        f'{{"x": "{canary}"'.encode(),
    ):
        for path in (PREDICT, BATCH):
            response = api.post(path, body)
            assert 400 <= response.status_code < 500
            assert canary not in response.text
    assert canary not in api.get(f"/{canary}").text


def test_hundreds_of_thousands_of_wrong_items_get_a_small_answer(api: Api) -> None:
    """A stock service answers 0.8 MB of them with 27.5 MB."""
    bodies: list[Any] = [
        {"candidates": {"item_id": ["a"] * 1024, "price": ["x" * 700] * 1024}},
        {"candidates": [{f"{n}": n, f"x{n}": []} for n in range(1024)]},
        {"candidates": {f"feature-{n}": [] for n in range(60_000)}},
        {"user": {f"feature-{n}" + "x" * 64: n for n in range(20_000)}, **ONE},
        {"user": {"x" * 800_000: 1}, **ONE},
        {"x" * 800_000: 1},
        {"requests": [{"candidates": [{f"{n}": 1} for n in range(100)]}] * 64},
    ]
    for body in bodies:
        path = BATCH if "requests" in body else PREDICT
        response = api.post(path, body)
        assert response.status_code == 422
        assert len(response.content) <= 16 * 1024


def test_unknown_paths_and_methods_are_problems_too(api: Api) -> None:
    problem_of(api.get("/v3/predict"), 404, "not-found")
    problem_of(api.get("/v1/predict/"), 404, "not-found")
    problem_of(api.get(PREDICT), 405, "method-not-allowed")
    assert api.get(PREDICT).headers["allow"] == "POST"
    problem_of(api.call("DELETE", "/livez"), 405, "method-not-allowed")


def test_facts_of_the_model(api: Api, scorer: Scorer) -> None:
    facts = api.get("/v1/model").json()
    assert (facts["name"], facts["version"], facts["digest"]) == ("toy", "1", scorer.digest)
    assert [task["name"] for task in facts["tasks"]] == ["click", "conversion"]
    assert [output["name"] for output in facts["outputs"]] == ["pctr", "pcvr", "pctcvr"]
    assert facts["default_order"] == "pctcvr"
    price = next(feature for feature in facts["features"] if feature["name"] == "price")
    assert (price["kind"], price["side"], price["missing"], price["default"]) == ("numeric", "item", "default", 10.0)
    assert facts["metrics"][0]["low"] == 0.69
    assert facts["calibration"][0]["task"] == "click"
    assert facts["provenance"]["seed"] == 7


def test_limits_are_told(make_api: MakeApi) -> None:
    found = make_api(limits={"max_candidates": 5}).get("/v1/limits").json()
    assert found["max_candidates"] == 5
    assert found["max_body_bytes"] == 2 * 2**20


def test_without_a_model_it_lives_but_is_not_ready(make_api: MakeApi) -> None:
    def load() -> Scorer:
        raise FullfunnelError("no")

    api = make_api(load)
    assert api.get("/livez").status_code == 200
    for response in (
        api.get("/readyz"),
        api.post(PREDICT, ONE),
        api.post(BATCH, {"requests": []}),
        api.get("/v1/model"),
    ):
        problem_of(response, 503, "not-ready")
        assert response.headers["retry-after"] == "1"
    assert api.get("/openapi.json").status_code == 200


def test_while_draining_it_answers_but_is_not_ready_and_lets_connections_go(api: Api) -> None:
    assert api.get("/readyz").json() == {"status": "ready"}
    api.lifecycle.draining = True
    problem_of(api.get("/readyz"), 503, "not-ready")
    assert api.get("/livez").status_code == 200
    response = api.post(PREDICT, ONE)
    assert response.status_code == 200
    assert response.headers["connection"] == "close"


def test_more_predictions_than_allowed_at_once_are_told_to_come_back(make_api: MakeApi, toy: Path) -> None:
    blocked, release = threading.Semaphore(0), threading.Event()
    slow = Scorer.load(toy)
    score = slow.score

    def wait_and_score(users: Any, candidates: Any, row_user: Any = None) -> Any:
        blocked.release()
        assert release.wait(timeout=30)
        return score(users, candidates, row_user)

    slow.score = wait_and_score  # type: ignore[method-assign]
    api = make_api(lambda: slow, limits={"max_concurrency": 2}, inline_ms=0, threads=3)

    def let_go() -> None:
        for _ in range(2):
            blocked.acquire(timeout=30)
        release.set()

    helper = threading.Thread(target=let_go)
    helper.start()
    responses = api.gather(*[(PREDICT, ONE)] * 6)
    helper.join()
    assert sorted(response.status_code for response in responses) == [200, 200, 503, 503, 503, 503]
    refused = next(response for response in responses if response.status_code == 503)
    problem_of(refused, 503, "overloaded")
    assert refused.headers["retry-after"] == "1"
    assert api.post(PREDICT, ONE).status_code == 200


def test_bodies_held_at_once_are_bounded(make_api: MakeApi) -> None:
    api = make_api(limits={"max_buffered_bytes": 20})
    problem_of(api.post(PREDICT, ONE), 503, "overloaded")
    for _ in range(20):  # what has been answered is held no longer
        problem_of(api.post(PREDICT, b"{}"), 422, "feature-missing")


def test_large_predictions_go_to_a_thread_and_small_ones_do_not(make_api: MakeApi, toy: Path) -> None:
    fresh = Scorer.load(toy)
    names: list[str] = []
    scores = fresh.scores

    def note_and_score(feeds: Feeds) -> Scores:
        names.append(threading.current_thread().name)
        return scores(feeds)

    fresh.scores = note_and_score  # type: ignore[method-assign]
    fresh.row_ms = 1.0
    api = make_api(lambda: fresh, inline_ms=2)
    api.post(PREDICT, {"candidates": {"item_id": ["a"] * 2}})
    api.post(PREDICT, {"candidates": {"item_id": ["a"] * 3}})
    api.post(BATCH, {"requests": [ONE] * 3})
    assert [name.startswith("scoring") for name in names] == [False, True, True]


def test_a_score_that_is_no_probability_is_a_500_and_never_null(make_api: MakeApi, tmp_path: Path) -> None:
    api = make_api(publish(tmp_path, **no_clip_of_price()))
    assert api.post(PREDICT, {"candidates": {"item_id": ["a"], "price": [1]}}).status_code == 200
    found = problem_of(api.post(PREDICT, {"candidates": {"item_id": ["a"], "price": [-2]}}), 500, "score-invalid")
    assert found.keys() == {"type", "title", "status", "request_id"}


def test_a_model_without_item_features_takes_any_number_of_candidates(make_api: MakeApi, tmp_path: Path) -> None:
    api = make_api(publish(tmp_path, **one_sided("user")))
    assert api.post(PREDICT, {"user": {"age": 0}}).json()["p_click"] == [0.5]
    assert api.post(PREDICT, {"user": {"age": 0}, "candidates": [{}, {}]}).json()["p_click"] == [0.5, 0.5]
