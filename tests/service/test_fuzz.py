"""No bytes a client can send give a 5xx."""

import json
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service.conftest import Api

EXAMPLES = settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
NAMES = ["user_id", "city", "age", "recent_items", "recent_actions", "item_id", "category", "price", "tags", "x", ""]
FIELDS = ["user", "candidates", "top_k", "order_by", "requests", "y"]
VALID = orjson.dumps(
    {
        "user": {"city": "Shanghai", "age": 31, "recent_items": ["i4", None], "recent_actions": ["view", "buy"]},
        "candidates": {"item_id": ["i1", "i2"], "category": [1, None], "price": [9.9, 1e38], "tags": [[1, 2], None]},
        "top_k": 1,
    }
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, -(2**63), 2**64, 10**400, 3.4028235e38, 3.5e38, -0.0, 1e-320]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["i1", "Berlin", "view", "pctr", "\x00", "\ud800"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
tables = st.dictionaries(st.sampled_from(NAMES), st.one_of(st.lists(values, max_size=4), values), max_size=6)
requests = st.fixed_dictionaries(
    {},
    optional={
        "user": st.one_of(st.dictionaries(st.sampled_from(NAMES), values), values),
        "candidates": st.one_of(tables, st.lists(tables, max_size=4), values),
        "top_k": scalars,
        "order_by": scalars,
    },
)
aligned = st.integers(0, 4).flatmap(
    lambda count: st.fixed_dictionaries(
        {"item_id": st.lists(st.sampled_from(["i1", "z"]), min_size=count, max_size=count)},
        optional={
            "category": st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=count, max_size=count),
            "price": st.lists(st.none() | st.floats(width=32, allow_nan=False), min_size=count, max_size=count),
            "tags": st.lists(st.none() | st.lists(st.none() | st.integers(0, 9)), min_size=count, max_size=count),
        },
    )
)


def check(api: Api, body: bytes, path: str = "/v1/predict") -> int:
    response = api.post(path, body)
    assert response.status_code < 500, (body, response.text)
    if response.status_code == 200:
        assert b"null" not in response.content
    else:
        assert len(response.content) <= 16 * 1024
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["status"] == response.status_code
    return response.status_code


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()  # writes NaN, Infinity, lone surrogates and huge integers, as clients do


@EXAMPLES
@given(body=st.binary(max_size=200))
def test_any_bytes(api: Api, body: bytes) -> None:
    check(api, body)
    check(api, body, "/v1/predict:batch")


@EXAMPLES
@given(request=requests)
def test_anything_shaped_like_a_request(api: Api, request: Any) -> None:
    check(api, dumps(request))


@EXAMPLES
@given(batch=st.lists(st.one_of(requests, values), max_size=3))
def test_anything_shaped_like_a_batch(api: Api, batch: Any) -> None:
    check(api, dumps({"requests": batch}), "/v1/predict:batch")


@EXAMPLES
@given(table=aligned)
def test_every_well_formed_value_is_scored_or_refused_but_never_breaks(api: Api, table: Any) -> None:
    status = check(api, dumps({"candidates": table}))
    assert status == 200 or "Infinity" in json.dumps(table)


@EXAMPLES
@given(damage=st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_requests(api: Api, damage: list[tuple[int, int]]) -> None:
    body = bytearray(VALID)
    for at, byte in damage:
        body[at] = byte
    check(api, bytes(body))


def test_the_undamaged_request_is_answered(api: Api) -> None:
    """The control: otherwise all of the above could be refusals for one silly reason."""
    assert api.post("/v1/predict", VALID).status_code == 200


@EXAMPLES
@given(field=st.sampled_from(FIELDS), value=values)
def test_any_value_in_any_field(api: Api, field: str, value: Any) -> None:
    check(api, dumps({"candidates": {"item_id": ["i1"]}, field: value}))
