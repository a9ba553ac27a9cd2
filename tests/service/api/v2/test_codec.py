"""Bodies of HTTP, well formed, wrong and hostile."""

import json
import re
import struct
import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.v2.codec import HEADER_LENGTH
from tests.service.api.v2.test_tensors import packed
from tests.service.conftest import Api, MakeApi
from tests.service.test_fuzz import EXAMPLES

PATH = "/v2/models/toy/infer"
JSON_ITEM = {"name": "item_id", "datatype": "BYTES", "shape": [2], "data": ["i1", "i2"]}
RAW_ITEM = {"name": "item_id", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 12}}
RAW_PRICE = {"name": "price", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
ITEMS, PRICES = packed(b"i1", b"i2"), struct.pack("<2f", 9.5, 120)


def body_of(header: Any, tail: bytes = b"") -> tuple[bytes, int]:
    text = json.dumps(header).encode()
    return text + tail, len(text)


def send(api: Api, body: bytes, length: Any = None) -> Any:
    headers = {} if length is None else {HEADER_LENGTH.encode(): str(length).encode("latin-1")}
    return api.call("POST", PATH, content=body, headers=headers)


def read_raw(response: Any) -> dict[str, Any]:
    """An answer whose outputs are raw, by the rules of the extension."""
    end = int(response.headers[HEADER_LENGTH])
    document, tail = orjson.loads(response.content[:end]), response.content[end:]
    found = {}
    for output in document["outputs"]:
        size = output["parameters"]["binary_data_size"]
        assert output["datatype"] == "FP32"
        assert output["shape"] == [size // 4]
        found[output["name"]] = list(struct.unpack(f"<{size // 4}f", tail[:size]))
        tail = tail[size:]
    assert tail == b""
    return found


def test_raw_and_json_tensors_may_be_mixed_and_raw_ones_are_taken_in_order(api: Api) -> None:
    category = {"name": "category", "datatype": "INT64", "shape": [2], "data": [1, 2]}
    sent = {"inputs": [RAW_PRICE, category, RAW_ITEM], "id": "7"}
    mixed = send(api, *body_of(sent, PRICES + ITEMS))
    plain = api.post(
        "/v1/predict", {"candidates": {"item_id": ["i1", "i2"], "price": [9.5, 120], "category": [1, 2]}}
    ).json()
    assert mixed.status_code == 200, mixed.text
    assert mixed.headers["content-type"] == "application/json"
    assert HEADER_LENGTH not in mixed.headers
    assert mixed.json() == {
        "model_name": "toy",
        "model_version": "1",
        "id": "7",
        "outputs": [
            {"name": name, "datatype": "FP32", "shape": [2], "data": plain[name]} for name in ("pctr", "pcvr", "pctcvr")
        ],
    }


def test_raw_outputs_hold_what_json_outputs_show(api: Api) -> None:
    shown = send(api, *body_of({"inputs": [JSON_ITEM]})).json()
    for sent in (
        {"inputs": [JSON_ITEM], "parameters": {"binary_data_output": True}},
        {
            "inputs": [JSON_ITEM],
            "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in ("pctr", "pcvr", "pctcvr")],
        },
    ):
        response = send(api, *body_of(sent))
        assert response.headers["content-type"] == "application/octet-stream"
        found = read_raw(response)
        for output in shown["outputs"]:
            assert found.pop(output["name"]) == pytest.approx(output["data"], abs=1e-7)
        assert found == {}


def test_an_output_may_be_kept_out_of_the_raw_ones(api: Api) -> None:
    sent = {
        "inputs": [JSON_ITEM],
        "parameters": {"binary_data_output": True},
        "outputs": [{"name": "pctr"}, {"name": "pcvr", "parameters": {"binary_data": False}}],
    }
    response = send(api, *body_of(sent))
    document = orjson.loads(response.content[: int(response.headers[HEADER_LENGTH])])
    assert [set(output) & {"data", "parameters"} for output in document["outputs"]] == [{"parameters"}, {"data"}]


def test_an_answer_without_an_id_has_none(api: Api) -> None:
    assert "id" not in send(api, *body_of({"inputs": [JSON_ITEM]})).json()


def test_null_in_json_is_a_missing_value(api: Api) -> None:
    price = {"name": "price", "datatype": "FP32", "shape": [2], "data": [None, 120]}
    response = send(api, *body_of({"inputs": [JSON_ITEM, price], "outputs": [{"name": "pctr"}]}))
    expected = api.post("/v1/predict", {"candidates": {"item_id": ["i1", "i2"], "price": [None, 120]}}).json()
    assert response.json()["outputs"][0]["data"] == expected["pctr"]


def changed(entry: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"inputs": [{**entry, **changes}]}


def sized(size: Any) -> dict[str, Any]:
    return changed(RAW_ITEM, parameters={"binary_data_size": size})


GOOD = {"inputs": [RAW_ITEM]}
HOSTILE: list[tuple[str, Any, bytes, Any, int, str]] = [
    ("a header length beyond the body", GOOD, ITEMS, 10**6, 400, HEADER_LENGTH),
    ("a header length beyond all bodies", GOOD, ITEMS, "9" * 400, 400, HEADER_LENGTH),
    ("a negative header length", GOOD, ITEMS, -1, 400, HEADER_LENGTH),
    ("a header length that is no number", GOOD, ITEMS, "ten", 400, HEADER_LENGTH),
    ("a header length with digits of another script", GOOD, ITEMS, "\u00b2", 400, HEADER_LENGTH),
    ("a header length of nothing", GOOD, ITEMS, "", 400, HEADER_LENGTH),
    ("a header length of 0", GOOD, ITEMS, 0, 400, "not JSON"),
    ("a header length with a sign", GOOD, ITEMS, "+5", 400, HEADER_LENGTH),
    ("a size over the body", sized(13), ITEMS, None, 422, "more bytes than the 12"),
    ("a size far over the body", sized(2**70), ITEMS, None, 422, "must be a whole number|more bytes than"),
    ("a size under the tensor", sized(11), ITEMS, None, 422, "1 bytes that belong to no input|holds 11 bytes"),
    ("a negative size", sized(-1), ITEMS, None, 422, "must be a whole number"),
    ("a size that is true", sized(True), ITEMS, None, 422, "must be a whole number"),
    ("a size that is a text", sized("12"), ITEMS, None, 422, "must be a whole number"),
    ("bytes left over", GOOD, ITEMS + b"\0", None, 422, "1 bytes that belong to no input"),
    ("two tensors of the same bytes", {"inputs": [RAW_ITEM, RAW_PRICE]}, ITEMS, None, 422, "more bytes than the 0"),
    ("a huge shape", changed(RAW_ITEM, shape=[2**63 - 1]), ITEMS, None, 422, "more than 8192"),
    ("a shape whose product is 0 in 64 bits", changed(RAW_ITEM, shape=[2**32, 2**32]), ITEMS, None, 422, "2 axes"),
    (
        "a sequence whose product is 0 in 64 bits",
        {
            "inputs": [
                RAW_ITEM,
                {"name": "tags", "datatype": "INT64", "shape": [2, 2**63], "parameters": {"binary_data_size": 0}},
            ]
        },
        ITEMS,
        None,
        422,
        "inputs.tags: holds 0 bytes",
    ),
    ("a negative shape", changed(RAW_ITEM, shape=[-2]), ITEMS, None, 422, "inputs.item_id.shape"),
    ("a shape that is a text", changed(RAW_ITEM, shape="2"), ITEMS, None, 422, r"inputs\[0\].shape: must be a list"),
    ("no shape", {"inputs": [{"name": "item_id", "datatype": "BYTES", "data": []}]}, b"", None, 422, "shape"),
    ("no datatype", changed(RAW_ITEM, datatype=None), ITEMS, None, 422, "datatype"),
    ("no name", changed(RAW_ITEM, name=None), ITEMS, None, 422, r"inputs\[0\].name"),
    ("data twice", changed(RAW_ITEM, data=["i1", "i2"]), ITEMS, None, 422, "either data or a binary_data_size"),
    ("no data", changed(RAW_ITEM, parameters={}), b"", None, 422, "either data or a binary_data_size"),
    ("data that are no list", changed(JSON_ITEM, data="i1"), b"", None, 422, r"inputs\[0\].data: must be a list"),
    ("shared memory", changed(JSON_ITEM, parameters={"shared_memory_region": "x"}), b"", None, 422, "extension"),
    ("an input twice", {"inputs": [JSON_ITEM, JSON_ITEM]}, b"", None, 422, "is sent twice"),
    ("an input without end", {"inputs": [JSON_ITEM] * 5000}, b"", None, 422, "is sent twice"),
    ("an unknown input", changed(JSON_ITEM, name="itemid"), b"", None, 422, "did you mean 'item_id'"),
    ("inputs that are no objects", {"inputs": [1]}, b"", None, 422, r"inputs\[0\]: must be an object"),
    ("inputs that are no list", {"inputs": {}}, b"", None, 422, "inputs: must be a list"),
    ("no inputs", {}, b"", None, 422, "inputs: must be a list"),
    ("no object", [], b"", None, 422, "request: must be an object"),
    ("parameters that are no object", {**GOOD, "parameters": [1]}, ITEMS, None, 422, "parameters: must be"),
    ("an id that is a number", {**GOOD, "id": 1}, ITEMS, None, 422, "id: must be a string"),
    ("a flag that is a number", {**GOOD, "parameters": {"binary_data_output": 1}}, ITEMS, None, 422, "true or false"),
    ("an unknown output", {**GOOD, "outputs": [{"name": "x"}]}, ITEMS, None, 422, "outputs.x"),
    ("an output twice", {**GOOD, "outputs": [{"name": "pctr"}] * 2}, ITEMS, None, 422, "asked for twice"),
    (
        "an output classified",
        {**GOOD, "outputs": [{"name": "pctr", "parameters": {"classification": 2}}]},
        ITEMS,
        None,
        422,
        "extension",
    ),
]


@pytest.mark.parametrize(
    ("header", "tail", "length", "status", "text"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE]
)
def test_it_is_refused_with_one_sentence_and_costs_nothing(
    api: Api, header: Any, tail: bytes, length: Any, status: int, text: str
) -> None:
    body, honest = body_of(header, tail)
    api.get("/v2/health/live")  # what is made once for all requests is made now
    tracemalloc.start()
    try:
        response = send(api, body, honest if length is None else length)
        assert tracemalloc.get_traced_memory()[1] < 2**20 + 20 * len(body)
    finally:
        tracemalloc.stop()
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    response_text = response.json()["error"]
    assert re.search(text, response_text), response_text


def test_the_request_the_hostile_ones_are_made_of_is_answered(api: Api) -> None:
    assert send(api, *body_of(GOOD, ITEMS)).status_code == 200


def test_a_header_length_off_by_one_is_refused(api: Api) -> None:
    body, length = body_of({"inputs": [RAW_ITEM]}, ITEMS)
    for wrong in (length - 1, length + 1):
        assert send(api, body, wrong).status_code == 400


def test_json_too_deep_or_too_large_is_refused(make_api: MakeApi) -> None:
    api = make_api(limits={"max_body_bytes": 300, "max_depth": 8})
    assert send(api, b'{"inputs":' + b"[" * 50 + b"]" * 50 + b"}").status_code == 400
    assert send(api, *body_of(GOOD, ITEMS + b"\0" * 300)).status_code == 413


VALID, VALID_LENGTH = body_of(
    {"inputs": [RAW_ITEM, RAW_PRICE], "outputs": [{"name": "pctr"}], "id": "x"}, ITEMS + PRICES
)


@EXAMPLES
@given(
    damage=st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=4),
    length=st.one_of(st.just(VALID_LENGTH), st.integers(-2, len(VALID) + 2)),
    cut=st.integers(0, len(VALID)),
)
def test_damaged_bodies_never_break_it(api: Api, damage: list[tuple[int, int]], length: int, cut: int) -> None:
    body = bytearray(VALID)
    for at, byte in damage:
        body[at] = byte
    for sent in (bytes(body), bytes(body[:cut])):
        response = send(api, sent, length)
        assert response.status_code < 500, (sent, length)
        assert response.status_code == 200 or list(response.json()) == ["error"]


def test_the_undamaged_body_is_answered(api: Api) -> None:
    assert send(api, VALID, VALID_LENGTH).status_code == 200
