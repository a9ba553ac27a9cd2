"""Bytes as requests."""

import json
from typing import Any

import orjson
import pytest

from contract.errors import (
    BodyMalformed,
    BodyTooLarge,
    FeatureMissing,
    LengthMismatch,
    RequestInvalid,
    SeveralInvalid,
    TooDeep,
    TooManyCandidates,
    TooManyRequests,
    UnknownField,
    ValueInvalid,
)
from contract.tasks import CLICK_AND_CONVERSION, Task, outputs
from service.api import wire
from service.api.settings import Limits
from service.api.wire import RankingRequest, Wire, example_request, within
from tests.service.toy_bundle import toy_golden

LIMITS = Limits(max_candidates=4, max_requests=3, max_rows=6, max_body_bytes=10_000)
WIRE = Wire(LIMITS, ("item_id", "price"), outputs(CLICK_AND_CONVERSION))


def read(value: Any) -> RankingRequest:
    return WIRE.read_request(orjson.dumps(value))


def fault(value: Any, batch: bool = False) -> tuple[type, str]:
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    with pytest.raises(RequestInvalid) as caught:
        (WIRE.read_batch if batch else WIRE.read_request)(body)
    return type(caught.value), caught.value.place


def test_columns_are_taken_as_they_are() -> None:
    request = read({"user": {"city": "x"}, "candidates": {"item_id": ["a", "b"], "price": [1, None]}})
    assert request == RankingRequest({"city": "x"}, {"item_id": ["a", "b"], "price": [1, None]}, 2, None, None)


def test_objects_become_the_same_columns() -> None:
    request = read({"candidates": [{"item_id": "a", "price": 1}, {"item_id": "b"}]})
    assert request.candidates == {"item_id": ["a", "b"], "price": [1, None]}
    assert request.count == 2


def test_no_candidates_are_no_fault() -> None:
    assert read({"candidates": []}).count == 0
    assert read({"candidates": {"item_id": []}}).count == 0


def test_candidates_without_any_feature_still_count() -> None:
    assert read({"candidates": [{}, {}]}).count == 2


def test_candidates_must_be_given_where_the_model_has_item_features() -> None:
    for body in (b"{}", b'{"candidates": null}', b'{"candidates": {}}'):
        assert fault(body) == (FeatureMissing, "candidates")
    without = Wire(LIMITS, (), WIRE.outputs)
    assert without.read_request(b"{}").count == 1
    assert without.read_request(b'{"candidates": [{}, {}]}').count == 2


def test_unknown_names_of_objects_are_not_multiplied_by_the_candidates() -> None:
    rows = [{f"x{row}_{n}": 1 for n in range(100)} for row in range(4)]
    assert len(read({"candidates": rows}).candidates) == 20


def test_the_end_of_the_funnel_is_the_default_order() -> None:
    assert read({"candidates": [{}], "top_k": 1}).order_by == "pctcvr"
    assert read({"candidates": [{}], "order_by": "pctr"}).order_by == "pctr"
    assert read({"candidates": [{}], "top_k": None, "order_by": None}).order_by is None
    single = (Task(name="a", label="a"), Task(name="b", label="b"))
    assert Wire(LIMITS, (), outputs(single)).default_order == "p_b"


@pytest.mark.parametrize(
    ("value", "kind", "place"),
    [
        ([], ValueInvalid, ""),
        ({"users": {}}, UnknownField, "users"),
        ({"user": [], "candidates": [{}]}, ValueInvalid, "user"),
        ({"candidates": "x"}, ValueInvalid, "candidates"),
        ({"candidates": [{}, []]}, ValueInvalid, "candidates[1]"),
        ({"candidates": {"item_id": "ab"}}, ValueInvalid, "candidates.item_id"),
        ({"candidates": {"item_id": ["a"], "price": []}}, LengthMismatch, "candidates.price"),
        ({"candidates": [{}] * 5}, TooManyCandidates, "candidates"),
        ({"candidates": {"item_id": ["a"], "price": [1] * 5}}, TooManyCandidates, "candidates"),
        ({"candidates": [{}], "top_k": 0}, ValueInvalid, "top_k"),
        ({"candidates": [{}], "top_k": True}, ValueInvalid, "top_k"),
        ({"candidates": [{}], "top_k": 1.0}, ValueInvalid, "top_k"),
        ({"candidates": [{}], "order_by": "ctr"}, ValueInvalid, "order_by"),
        ({"candidates": [{}], "order_by": ["pctr"]}, ValueInvalid, "order_by"),
        (b"", BodyMalformed, "byte 0"),
        (b'{"candidates": NaN}', BodyMalformed, "byte 15"),
        (b'{"candidates": {"price": [1e999]}}', BodyMalformed, "byte 26"),
        (b'{"candidates": {"price": [Infinity]}}', BodyMalformed, "byte 26"),
        (b'{"user": "\xff"}', BodyMalformed, "byte 0"),
        (b'"' + b"x" * 10_000 + b'"', BodyTooLarge, ""),
    ],
)
def test_what_is_wrong_is_named_with_its_place(value: Any, kind: type, place: str) -> None:
    assert fault(value) == (kind, place)


def test_a_batch_names_the_request_that_is_wrong() -> None:
    good = {"candidates": [{"item_id": "a"}]}
    assert len(WIRE.read_batch(orjson.dumps({"requests": [good, good]}))) == 2
    assert WIRE.read_batch(b'{"requests": []}') == []
    bad = {"candidates": [{}], "top_k": 0}
    assert fault({"requests": [good, bad]}, batch=True) == (ValueInvalid, "requests[1].top_k")
    assert fault({"requests": [good, 3]}, batch=True) == (ValueInvalid, "requests[1]")
    assert fault({"requests": [good] * 4}, batch=True) == (TooManyRequests, "requests")
    assert fault({"requests": [{"candidates": [{}] * 4}] * 2}, batch=True) == (TooManyCandidates, "requests")
    assert fault({"requests": good}, batch=True) == (ValueInvalid, "requests")
    assert fault(good, batch=True) == (UnknownField, "candidates")


@pytest.fixture(params=["compiled", "by Python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "by Python":
        monkeypatch.setattr(wire, "is_deeper", lambda *_: None)


def nested(levels: int) -> bytes:
    return b'{"user": {"x": ' + b"[" * (levels - 2) + b"]" * (levels - 2) + b'}, "candidates": [{}]}'


@pytest.mark.usefixtures("way")
def test_thirty_two_levels_are_allowed_and_no_more() -> None:
    assert WIRE.read_request(nested(32)).count == 1
    assert fault(nested(33)) == (TooDeep, "")
    assert fault(nested(4000)) == (TooDeep, "")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("text", ["[" * 50, '"' + "[" * 50, '\\"' + "{" * 50, "\\" * 7, '[\\\\"{' * 9, "]" * 50])
def test_brackets_and_quotes_within_strings_are_no_nesting(text: str) -> None:
    body = json.dumps({"user": {text: text}, "candidates": [{"item_id": text}]}).encode()
    assert WIRE.read_request(body).user == {text: text}


@pytest.mark.usefixtures("way")
def test_brackets_within_strings_hide_no_nesting() -> None:
    hidden = b'{"user": {"]]]]\\"]]]]": ' + b'["]",' * 40 + b"0" + b"]" * 40 + b'}, "candidates": [{}]}'
    assert fault(hidden) == (TooDeep, "")


def test_an_error_within_a_place_keeps_what_it_says() -> None:
    inner = ValueInvalid("must be a string", place="user.city")
    assert str(within(inner, "requests[2]")) == "requests[2].user.city: must be a string."
    both = within(SeveralInvalid([inner, inner]), "requests[2]")
    assert isinstance(both, SeveralInvalid)
    assert [error.place for error in both.errors] == ["requests[2].user.city"] * 2


def test_the_example_is_a_request() -> None:
    request = read(example_request(toy_golden(), candidates=2))
    assert request.count == 2
    assert request.user["recent_items"] == ["i4", "i2"]
