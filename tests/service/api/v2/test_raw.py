"""Tensors with raw bytes, read by compiled code: what Python makes of them, or nothing."""

import json
import struct
from copy import copy
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import RequestInvalid
from contract.features import INT64_MISSING
from service.api.settings import Limits
from service.api.v2.codec import REMEMBERED, _beside, read_body
from service.api.v2.inference import Inference, _columns, arrays_of
from service.scoring.scorer import Scorer
from tests.service.api.v2.test_codec import body_of
from tests.service.api.v2.test_tensors import packed
from tests.service.test_request import check_same

Tensor = tuple[str, str, list[Any], bytes]
ITEMS: Tensor = ("item_id", "BYTES", [2], packed(b"i1", b"zz"))
USER: list[Tensor] = [
    ("user_id", "BYTES", [1], packed("\u6771".encode())),
    ("city", "BYTES", [1], packed(b"")),
    ("age", "FP32", [1], struct.pack("<f", 31)),
    ("recent_items", "BYTES", [1, 6], packed(b"i1", b"", b"x", b"i2", b"i3", b"i4")),
    ("recent_actions", "BYTES", [1, 6], packed(b"buy", b"buy", b"", b"view", b"view", b"sell")),
]
FULL: list[Tensor] = [
    *USER,
    ITEMS,
    ("category", "INT64", [2], struct.pack("<2q", 3, INT64_MISSING)),
    ("price", "FP32", [2], struct.pack("<2f", 9.5, float("nan"))),
    ("tags", "INT64", [2, 2], struct.pack("<4q", 1, 2, INT64_MISSING, 3)),
]


def sent(*tensors: Tensor, **fields: Any) -> tuple[bytes, int]:
    inputs = [
        {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data)}}
        for name, datatype, shape, data in tensors
    ]
    return body_of({"inputs": inputs, **fields}, b"".join(tensor[-1] for tensor in tensors))


def read(scorer: Scorer, body: bytes, length: int) -> Inference:
    return read_body(scorer, Limits(), body, header_length=str(length))


def is_plain(scorer: Scorer, body: bytes, length: int) -> bool:
    """Whether it is read by compiled code, and then to what Python makes of it."""
    try:
        asked = read(scorer, body, length)
    except RequestInvalid:
        return False
    if asked.plain is None or asked.again is None:
        return False
    other = asked.again()
    assert other.plain is None and (other.id, other.count, other.users) == (asked.id, asked.count, asked.users)
    assert (other.outputs, other.binary) == (asked.outputs, asked.binary)
    check_same(arrays_of(scorer, [asked]), arrays_of(scorer, [other]))
    return True


def changed(name: str, *tensor: Any) -> list[Tensor]:
    """All tensors, with datatype, shape and data of one changed."""
    return [(name, *tensor) if each[0] == name else each for each in FULL]


@pytest.mark.parametrize(
    "tensors",
    [
        FULL,
        FULL[::-1],
        [ITEMS],
        [ITEMS, ("tags", "INT64", [2, 0], b"")],
        [("item_id", "BYTES", [1], packed(b"\x01\x00\n"))],
        changed("category", "INT64", [2], struct.pack("<2q", 2**63 - 1, -1)),
        changed("price", "FP32", [2], struct.pack("<2f", 3.4e38, -0.0)),
    ],
)
def test_ordinary_tensors_are_read_to_the_same_arrays(scorer: Scorer, tensors: list[Tensor]) -> None:
    assert is_plain(scorer, *sent(*tensors))


def test_what_else_is_asked_stays_as_it_is(scorer: Scorer) -> None:
    outputs = [{"name": "pcvr", "parameters": {"binary_data": True}}, {"name": "pctr"}]
    asked = read(scorer, *sent(ITEMS, id="seven", outputs=outputs))
    assert asked.plain is not None
    assert (asked.id, asked.outputs, asked.binary) == ("seven", ("pcvr", "pctr"), frozenset({"pcvr"}))
    with pytest.raises(RequestInvalid, match="is longer than 1024 characters"):
        read(scorer, *sent(ITEMS, id="x" * 1025))
    with pytest.raises(RequestInvalid, match="no such output"):
        read(scorer, *sent(ITEMS, outputs=[{"name": "x"}]))


def test_what_is_asked_is_remembered_for_a_model_and_its_limits_only(scorer: Scorer) -> None:
    body, length = sent(ITEMS, id="seven", outputs=[{"name": "pcvr"}])
    first, again = read(scorer, body, length), read(scorer, body, length)
    assert (again.id, again.outputs) == (first.id, first.outputs) == ("seven", ("pcvr",))
    with pytest.raises(RequestInvalid, match="is longer than 4 characters"):
        read_body(scorer, Limits(max_string_bytes=4), body, header_length=str(length))
    other = copy(scorer)
    other.outputs = ("pctr",)
    with pytest.raises(RequestInvalid, match="no such output"):
        read(other, body, length)


def test_of_what_is_long_nothing_is_remembered(scorer: Scorer) -> None:
    held = _beside.cache_info().currsize
    assert read(scorer, *sent(ITEMS, id="x" * 1024)).id == "x" * 1024
    assert _beside.cache_info().currsize == held
    read(scorer, *sent(ITEMS, id="not remembered yet"))
    assert _beside.cache_info().currsize == min(held + 1, REMEMBERED)


@pytest.mark.parametrize(
    "tensors",
    [
        [],
        USER,
        [ITEMS, ITEMS],
        [ITEMS, ("row_user", "INT64", [2], struct.pack("<2q", 0, 0))],
        [ITEMS, ("stranger", "FP32", [2], struct.pack("<2f", 0, 0))],
        [ITEMS, ("age", "FP32", [2], struct.pack("<2f", 0, 0)), ("row_user", "INT64", [2], struct.pack("<2q", 0, 1))],
        [("price", "FP32", [2], struct.pack("<2f", 0, 0))],
        [("item_id", "BYTES", [0], b"")],
        [("item_id", "BYTES", [-1], b"")],
        [("item_id", "BYTES", [0], b""), ("price", "FP32", [2], struct.pack("<2f", 0, 0))],
        [("item_id", "BYTES", [True], packed(b"i1"))],
        [("item_id", "BYTES", [2.0], ITEMS[-1])],
        [("item_id", "BYTES", [1025], packed(*[b"i1"] * 1025))],
        [("item_id", "BYTES", [2**64], packed(b"i1"))],
        [("item_id", "BYTES", [2, 1], ITEMS[-1])],
        [("item_id", "BYTES", [1], packed(b""))],
        [("item_id", "BYTES", [1], packed("\u00e4".encode()))],
        [("item_id", "BYTES", [1], packed(b"x" * 1025))],
        [("item_id", "BYTES", [1], packed(b"\xff"))],
        [("item_id", "BYTES", [2], ITEMS[-1] + b"\0")],
        [("item_id", "BYTES", [2], ITEMS[-1][:-1])],
        [("item_id", "BYTES", [2], packed(b"i1") + b"\xff\xff\xff\xff")],
        [("item_id", "BYTES", [2], packed(b"i1") + b"\0\0\0")],
        changed("category", "INT32", [2], struct.pack("<2i", 1, 2)),
        changed("category", "INT64", [2], struct.pack("<1q", 1)),
        changed("category", "INT64", [2], struct.pack("<3q", 1, 2, 3)),
        changed("category", "INT64", [3], struct.pack("<3q", 1, 2, 3)),
        changed("price", "FP32", [2], struct.pack("<2f", float("inf"), 1)),
        changed("price", "FP32", [2], struct.pack("<2f", 1, 2) + b"\0"),
        changed("price", "FP64", [2], struct.pack("<2d", 1, 2)),
        changed("tags", "INT64", [2, 2**62], struct.pack("<4q", 1, 2, 3, 4)),
        changed("tags", "INT64", [2, 1], struct.pack("<4q", 1, 2, 3, 4)),
        changed("tags", "INT64", [2], struct.pack("<2q", 1, 2)),
        changed("recent_actions", "BYTES", [1, 5], packed(*[b"buy"] * 5)),
    ],
)
def test_what_is_out_of_the_ordinary_is_left_to_python(scorer: Scorer, tensors: list[Tensor]) -> None:
    assert is_plain(scorer, *sent(*FULL))
    assert not is_plain(scorer, *sent(*tensors))


@pytest.mark.parametrize("tail", [b"\0", b"i1"])
def test_bytes_that_belong_to_no_tensor_are_left_to_python(scorer: Scorer, tail: bytes) -> None:
    body, length = sent(*FULL)
    assert not is_plain(scorer, body + tail, length) and not is_plain(scorer, body[:-1], length)


@pytest.mark.parametrize(
    "change",
    [
        {"name": None},
        {"name": 3},
        {"datatype": None},
        {"datatype": 3},
        {"shape": 2},
        {"shape": ["2"]},
        {"parameters": None},
        {"parameters": {}},
        {"parameters": {"binary_data_size": "12"}},
        {"parameters": {"binary_data_size": -1}},
        {"parameters": {"binary_data_size": 2**64}},
        {"parameters": {"binary_data_size": 12, "classification": 1}},
        {"parameters": {"size": 12}},
        {"data": ["i1", "i2"]},
    ],
)
def test_what_is_described_otherwise_is_left_to_python(scorer: Scorer, change: dict[str, Any]) -> None:
    entry = {"name": "item_id", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 12}}
    assert is_plain(scorer, *body_of({"inputs": [entry]}, ITEMS[-1]))
    assert not is_plain(scorer, *body_of({"inputs": [{**entry, **change}]}, ITEMS[-1]))
    assert not is_plain(scorer, *body_of({"inputs": [3]}, ITEMS[-1]))


ENTRY = b'{"name":"item_id","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":12}}'


@pytest.mark.parametrize(
    "described",
    [
        b'{"inputs":[%b]}',
        b'\n{ "inputs" : [ %b ] } ',
        b'{"id":"\\"]}\\\\","inputs":[%b],"parameters":{"a":[1,{"b":"}"}],"binary_data_output":true}}',
        b'{"parameters":{"inputs":[]},"inputs":[%b],"outputs":[{"name":"pctr"}]}',
        '{"id":"\u6771","inputs":[%b]}'.encode(),
        b'{"id":"","outputs":null,"x":-1.5e3,"y":false,"inputs":[%b]}',
    ],
)
def test_whatever_stands_beside_the_inputs_is_read_by_python(scorer: Scorer, described: bytes) -> None:
    described = described.replace(b"%b", ENTRY)
    assert is_plain(scorer, described + ITEMS[-1], len(described))


@pytest.mark.parametrize("first", [b"x" * ord(" "), b"x" * ord("}"), b"x" * ord(",")])
def test_data_that_look_like_json_are_no_part_of_it(scorer: Scorer, first: bytes) -> None:
    assert is_plain(scorer, *sent(("item_id", "BYTES", [2], packed(first, b"i1"))))
    described = b'{"inputs":[%b]' % ENTRY.replace(b"12", b"129")  # without the brace that the data begin with
    assert not is_plain(scorer, described + packed(first), len(described))


def described_as(*tensors: Tensor) -> list[dict[str, Any]]:
    return list(orjson.loads(sent(*tensors)[0][: sent(*tensors)[1]])["inputs"])


def test_a_list_of_inputs_that_ends_in_the_data_is_none(scorer: Scorer) -> None:
    tensors: list[Tensor] = [("price", "FP32", [1], b"]}\0\0"), ("item_id", "BYTES", [1], packed(b"i1"))]
    body, length = sent(*tensors)
    assert is_plain(scorer, body, length)
    assert not is_plain(scorer, body[: length - 2] + body[length:], length - 2)


def test_of_two_lists_of_inputs_python_takes_the_last(scorer: Scorer) -> None:
    item, user = (json.dumps(described_as((name, "BYTES", [1], b"????i1"))) for name in ("item_id", "user_id"))
    described = f'{{"inputs":{item},"inputs":{user}}}'.encode()
    assert not is_plain(scorer, described + packed(b"i1"), len(described))


@pytest.mark.parametrize("field", ["name", "datatype", "shape", "parameters"])
def test_what_is_not_said_of_a_tensor_is_not_what_was_said_of_the_one_before(scorer: Scorer, field: str) -> None:
    tensors: list[Tensor] = [(name, "BYTES", [1], packed(b"u1")) for name in ("item_id", "user_id", "city")]
    entries = described_as(*tensors)
    assert is_plain(scorer, *body_of({"inputs": entries}, packed(b"u1") * 3))
    del entries[2][field]
    assert not is_plain(scorer, *body_of({"inputs": entries}, packed(b"u1") * 3))


@pytest.mark.parametrize(
    "described",
    [
        b'{"inputs":[%b],"inputs":[%b]}',
        b'{"inputs":[%b],"inp\\u0075ts":[]}',
        b'{"inp\\u0075ts":[%b]}',
        b'{"inputs":[%b,]}',
        b'{"inputs":[%b]]}',
        b'{"inputs":[%b]}}',
        b'{"inputs":[%b],}',
        b'{"inputs":[%b],"id":}',
        b'{"inputs":[%b],"id":7}',
        b'{"inputs":[%b],"id":"\xff"}',
        b'{"inputs":[%b],"id":[1}}',
        b'[{"inputs":[%b]}]',
        b'{"x":{"inputs":[%b]}}',
        b'{"inputs":{"x":[%b]}}',
        b'{"inputs":[[%b]]}',
        b'{"inputs":[]}',
        b'{"inputs":null}',
        b'{"inputs":[%b]',
        b'{"inputs":[%b',
        b"",
    ],
)
def test_json_that_is_out_of_the_ordinary_is_left_to_python(scorer: Scorer, described: bytes) -> None:
    described = described.replace(b"%b", ENTRY)
    assert not is_plain(scorer, described + ITEMS[-1], len(described))


def test_json_at_fault_behind_the_inputs_is_told_where_it_is_in_the_body(scorer: Scorer) -> None:
    described = b'{"inputs":[%b],"id":}' % ENTRY
    with pytest.raises(RequestInvalid) as raised:
        read(scorer, described + ITEMS[-1], len(described))
    assert raised.value.place == f"byte {len(described) - 1}"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"shape":[2],', b""),
        (b'"shape":[2],', b'"shape":[2],"shape":[2],'),
        (b'"shape":[2],', b'"shape":[],'),
        (b'"shape":[2],', b'"shape":[02],'),
        (b'"shape":[2],', b'"shape":[2,1,1],'),
        (b'"shape":[2],', b'"shape":[2e0],'),
        (b'"item_id"', b'"item\\u005fid"'),
        (b'{"binary_data_size":12}', b'{"binary_data_size":12,"binary_data_size":12}'),
        (b'{"binary_data_size":12}', b"{}"),
        (b"}}", b'},"x":1}'),
        (b"}}", b"}"),
    ],
)
def test_a_description_that_is_out_of_the_ordinary_is_left_to_python(scorer: Scorer, old: bytes, new: bytes) -> None:
    described = b'{"inputs":[%b]}' % ENTRY.replace(old, new)
    assert not is_plain(scorer, described + ITEMS[-1], len(described))


@settings(max_examples=1000)
@given(
    damage=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=3),
    cut=st.sampled_from([None, None, -1, -7]),
)
def test_damaged_tensors_are_read_as_python_reads_them_or_not_at_all(
    scorer: Scorer, damage: list[tuple[int, int]], cut: int | None
) -> None:
    body, length = sent(*FULL)
    broken = bytearray(body)
    for at, value in damage:
        broken[at % len(body)] = value
    is_plain(scorer, bytes(broken)[:cut], length)


def test_several_follow_each_other_and_are_looked_at_as_columns(scorer: Scorer) -> None:
    several = [read(scorer, *sent(*FULL)), read(scorer, *sent(ITEMS)), read(scorer, *sent(*FULL[::-1]))]
    assert all(asked.plain for asked in several)
    slowly = [asked.again() for asked in several if asked.again is not None]
    check_same(arrays_of(scorer, several), arrays_of(scorer, slowly))
    check_same(arrays_of(scorer, [several[0], *slowly[1:]]), arrays_of(scorer, slowly))
    users, candidates = _columns(scorer, several)
    feeds = scorer.read(users, candidates, np.repeat([0, 1, 2], 2))
    check_same(feeds, arrays_of(scorer, several))
