"""Errors as problem documents."""

import inspect
import json
from typing import Any

import pytest

from contract import errors
from contract.errors import FullfunnelError, RequestInvalid, SeveralInvalid, ValueInvalid
from service.api.problems import KINDS, MAX_BYTES, document, kind_of_error, kind_of_status, problem

REQUEST_ERRORS = [
    error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, RequestInvalid)
]


def body(kind: Any, error: FullfunnelError | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(document(kind, "id", error))
    return found


@pytest.mark.parametrize("error", REQUEST_ERRORS)
def test_every_error_of_a_client_has_a_row_of_its_own_below_500(error: type[RequestInvalid]) -> None:
    made = SeveralInvalid([]) if error is SeveralInvalid else error("fact")
    kind = kind_of_error(made)
    assert kind.error is error
    assert 400 <= kind.status < 500


def test_only_the_service_itself_is_to_blame_for_a_5xx() -> None:
    assert {kind.slug for kind in KINDS if kind.status >= 500} == {
        "not-ready",
        "overloaded",
        "score-invalid",
        "internal",
    }


def test_types_are_unique() -> None:
    assert len({kind.slug for kind in KINDS}) == len(KINDS)


def test_a_document_says_where_and_what_to_do() -> None:
    error = ValueInvalid("must be a string", place="user.city", remedy="send one")
    assert body(kind_of_error(error), error) == {
        "type": "urn:fullfunnel:problem:value-invalid",
        "title": "A value that cannot be scored",
        "status": 422,
        "request_id": "id",
        "detail": "user.city: must be a string. Remedy: send one.",
        "errors": [
            {
                "type": "urn:fullfunnel:problem:value-invalid",
                "place": "user.city",
                "detail": "must be a string",
                "remedy": "send one",
            }
        ],
    }


def test_at_most_twenty_errors_are_told_and_the_rest_is_counted() -> None:
    error = SeveralInvalid([ValueInvalid("bad", place=f"user.x{n}") for n in range(50)])
    found = body(kind_of_error(error), error)
    assert found["detail"] == "50 things are wrong with the request."
    assert [each["place"] for each in found["errors"]] == [f"user.x{n}" for n in range(20)]


def test_a_document_stays_below_its_limit_whatever_the_error_holds() -> None:
    error = SeveralInvalid([ValueInvalid("€" * 10_000, place="€" * 10_000, remedy="€" * 10_000)] * 50)
    assert len(document(kind_of_error(error), "id", error)) <= MAX_BYTES


def test_a_fault_of_the_service_says_nothing_of_the_inside() -> None:
    for error in (errors.ScoreInvalid("secret"), errors.BundleCorrupt("secret", place="/secret/path")):
        found = body(kind_of_error(error), error)
        assert found["status"] == 500
        assert "secret" not in json.dumps(found)


def test_what_may_be_tried_again_says_when() -> None:
    for error in (errors.NotReady("x"), errors.Overloaded("x")):
        response = problem(kind_of_error(error), "id", error)
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert response.headers["content-type"] == "application/problem+json"


def test_a_status_without_a_row_is_a_fault_of_the_service() -> None:
    assert kind_of_status(418).slug == "internal"
    assert kind_of_status(413).slug == "internal"  # 413 comes from an error, which says more
