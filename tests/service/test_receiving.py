"""Bodies: their type, size and pieces."""

from typing import Any

import orjson
import pytest

from tests.service.conftest import Api, MakeApi
from tests.service.test_routes import ONE, PREDICT, problem_of


def test_a_body_is_no_larger_than_allowed_declared_or_not(api: Api) -> None:
    async def endless() -> Any:
        piece = b" " * 65536
        for sent in range(1000):
            assert sent <= 33, "the service reads on"
            yield piece

    declared = {"content-type": "application/json", "content-length": str(10**15)}
    problem_of(api.call("POST", PREDICT, content=b"{}", headers=declared), 413, "body-too-large")
    headers = {"content-type": "application/json"}
    problem_of(api.call("POST", PREDICT, content=endless(), headers=headers), 413, "body-too-large")
    problem_of(api.post(PREDICT, b" " * (2 * 2**20 + 1)), 413, "body-too-large")
    problem_of(api.post(PREDICT, b" " * (2 * 2**20)), 400, "body-malformed")


def test_a_body_comes_in_no_more_pieces_than_allowed(make_api: MakeApi) -> None:
    async def pieces(count: int) -> Any:
        body = orjson.dumps(ONE)
        for at in range(count - 1):
            yield body[at : at + 1]
        yield body[count - 1 :]

    api = make_api(limits={"max_body_chunks": 10})
    headers = {"content-type": "application/json"}
    assert api.call("POST", PREDICT, content=pieces(10), headers=headers).status_code == 200
    problem_of(api.call("POST", PREDICT, content=pieces(11), headers=headers), 413, "body-too-large")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "application/json"}, 200),
        ({"content-type": "application/json; charset=utf-8"}, 200),
        ({"content-type": "Application/JSON"}, 200),
        ({"content-type": "application/json", "content-encoding": "identity"}, 200),
        ({}, 415),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
        ({"content-type": "application/json; charset=latin-1"}, 415),
        ({"content-type": "application/json", "content-encoding": "gzip"}, 415),
    ],
)
def test_only_plain_json_is_taken(api: Api, headers: dict[str, str], status: int) -> None:
    response = api.call("POST", PREDICT, content=orjson.dumps(ONE), headers=headers)
    if status == 200:
        assert response.status_code == 200
    else:
        problem_of(response, status, "unsupported-media-type")
