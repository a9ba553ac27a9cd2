"""The paths of the protocol: statuses, health, and errors as {"error": "..."}."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from contract.errors import ScoreInvalid
from service.scoring.scorer import Scorer
from tests.service.api.v2.test_codec import GOOD, ITEMS, JSON_ITEM, PATH, body_of, send
from tests.service.conftest import Api, MakeApi


def error_of(response: Any, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    assert response.headers["x-request-id"]
    text: str = response.json()["error"]
    return text


@pytest.mark.parametrize("path", ["/v2/models/toy", "/v2/models/toy/versions/1"])
def test_every_path_of_the_model_is_there_with_and_without_a_version(api: Api, path: str) -> None:
    assert api.get(path).json()["versions"] == ["1"]
    assert api.get(f"{path}/ready").json() == {"name": "toy", "ready": True}
    assert api.get(f"{path}/config").json()["max_batch_size"] == 0
    assert api.post(f"{path}/infer", {"inputs": [JSON_ITEM]}).status_code == 200


def test_the_server_tells_its_extensions(api: Api) -> None:
    told = api.get("/v2").json()
    assert told["name"] == "fullfunnel"
    assert "binary_tensor_data" in told["extensions"]


@pytest.mark.parametrize("part", ["", "/ready", "/config"])
@pytest.mark.parametrize("model", ["other", "toy/versions/2", "other/versions/1"])
def test_another_model_or_version_is_not_found(api: Api, model: str, part: str) -> None:
    assert "is not served" in error_of(api.get(f"/v2/models/{model}{part}"), 404) or "no such model" in (
        error_of(api.get(f"/v2/models/{model}{part}"), 404)
    )
    error_of(api.post(f"/v2/models/{model}/infer", {"inputs": [JSON_ITEM]}), 404)


def test_errors_of_http_itself_have_the_form_too(api: Api) -> None:
    error_of(api.get("/v2/nothing"), 404)
    response = api.get(PATH)
    assert error_of(response, 405) == "This path does not take this method."
    assert response.headers["allow"] == "POST"


def test_v1_keeps_its_problem_documents(api: Api) -> None:
    for path in ("/v1/nothing", "/v20", "/v2x/health"):
        assert api.get(path).headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"content-type": "application/json"}, 200),
        ({"content-type": "application/octet-stream"}, 200),
        ({"content-type": "text/plain"}, 415),
        ({"content-encoding": "gzip"}, 415),
    ],
)
def test_types_that_clients_send_are_taken_and_no_others(api: Api, headers: dict[str, str], status: int) -> None:
    body, length = body_of(GOOD, ITEMS)
    response = api.call("POST", PATH, content=body, headers={"inference-header-content-length": str(length), **headers})
    assert response.status_code == status
    assert status == 200 or error_of(response, status)


def test_v1_takes_json_only_as_before(api: Api) -> None:
    assert api.call("POST", "/v1/predict", content=b"{}").status_code == 415


def test_ready_follows_the_model_and_the_drain_and_live_does_not(make_api: MakeApi) -> None:
    def absent() -> Scorer:
        raise ValueError("no bundle")

    loading = make_api(absent)
    assert loading.get("/v2/health/live").json() == {"live": True}
    for path in ("/v2/health/ready", "/v2/models/toy", "/v2/models/toy/ready", "/v2/models/toy/config"):
        response = loading.get(path)
        error_of(response, 503)
        assert response.headers["retry-after"] == "1"
    error_of(loading.post(PATH, {"inputs": [JSON_ITEM]}), 503)

    ready = make_api()
    assert ready.get("/v2/health/ready").json() == {"ready": True}
    ready.lifecycle.draining = True
    error_of(ready.get("/v2/health/ready"), 503)
    error_of(ready.get("/v2/models/toy/ready"), 503)
    assert ready.get("/v2/health/live").status_code == 200
    assert ready.post(PATH, {"inputs": [JSON_ITEM]}).status_code == 200  # requests are answered while draining


def test_the_places_for_predictions_are_shared_with_v1(api: Api) -> None:
    places = [api.lifecycle.prediction() for _ in range(64)]
    for place in places:
        place.__enter__()
    response = api.post(PATH, {"inputs": [JSON_ITEM]})
    assert "too many predictions" in error_of(response, 503)
    assert response.headers["retry-after"] == "1"
    places.pop().__exit__(None, None, None)
    assert api.post(PATH, {"inputs": [JSON_ITEM]}).status_code == 200


@pytest.mark.parametrize("fault", [ScoreInvalid("secret"), ZeroDivisionError("secret")])
def test_a_fault_of_the_service_is_a_500_that_says_nothing_of_the_inside(
    make_api: MakeApi, scorer: Scorer, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def broken(*arguments: object) -> None:
        raise fault

    api = make_api()
    monkeypatch.setattr(scorer, "scores", broken)
    assert "secret" not in error_of(api.post(PATH, {"inputs": [JSON_ITEM]}), 500)


def test_large_inferences_go_to_a_thread_and_answer_the_same(make_api: MakeApi) -> None:
    sent = body_of(GOOD, ITEMS)
    inline, threaded = make_api(), make_api(inline_ms=0)
    assert send(inline, *sent).content == send(threaded, *sent).content


@pytest.mark.parametrize(("version", "status"), [("/versions/1", 404), ("", 200)])
def test_a_version_that_is_asked_for_is_never_answered_by_another(
    api: Api, scorer: Scorer, version: str, status: int
) -> None:
    newer = scorer.unwatched()
    newer.manifest = scorer.manifest.model_copy(update={"version": "2"})
    content = json.dumps({"inputs": [JSON_ITEM]}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        yield content[:9]
        api.lifecycle.adopt(newer)  # while the rest is on its way
        yield content[9:]

    path = f"/v2/models/toy{version}/infer"
    response = api.call("POST", path, content=pieces(), headers={"content-type": "application/json"})
    assert response.status_code == status
    assert status == 404 or response.json()["model_version"] == "2"
