"""Request ids, and what nobody foresaw."""

import re

from fastapi import APIRouter

from tests.service.conftest import Api


def test_every_answer_has_an_id(api: Api) -> None:
    ids = {api.get(path).headers["x-request-id"] for path in ("/livez", "/readyz", "/nowhere", "/docs")}
    assert len(ids) == 4
    assert all(re.fullmatch("[0-9a-f]{16}", each) for each in ids)


def test_an_id_that_is_short_and_plain_is_kept(api: Api) -> None:
    assert api.get("/livez", headers={"x-request-id": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
    for strange in ("", "x" * 65, "a b", "<script>", "a\tb"):
        assert re.fullmatch(
            "[0-9a-f]{16}", api.get("/livez", headers={"x-request-id": strange}).headers["x-request-id"]
        )


def test_a_bug_is_a_500_that_says_nothing_and_is_logged_with_its_id(api: Api, caplog: object) -> None:
    routes = APIRouter()

    @routes.get("/bug")
    async def bug() -> None:
        raise RuntimeError("secret")

    api.app.include_router(routes)
    response = api.get("/bug", headers={"x-request-id": "mine"})
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == "urn:fullfunnel:problem:internal"
    assert "secret" not in response.text
    assert response.headers["x-request-id"] == "mine"
    assert "request mine failed" in caplog.text  # type: ignore[attr-defined]
    assert "RuntimeError: secret" in caplog.text  # type: ignore[attr-defined]
