"""Arrow in and out: the same scores as by JSON, and nothing that grows in memory."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from contract.errors import BodyMalformed, RequestInvalid, TooManyCandidates, ValueInvalid
from service.api.arrow import answer, read_request
from service.api.codecs import ARROW
from service.api.settings import Limits
from service.scoring.scorer import Scorer
from tests.service.conftest import MakeApi

USER = {"city": "Berlin", "recent_items": ["i1", "i2"], "recent_actions": ["view", "buy"]}
ITEMS = {
    "item_id": pa.array(["i1", "i9", "i3"]),
    "category": pa.array([1, None, 3], pa.int64()),
    "price": pa.array([9.5, None, 3.0], pa.float64()),
    "tags": pa.array([[1, 2], None, []], pa.list_(pa.int64())),
}
JSON = {"user": USER, "candidates": {name: column.to_pylist() for name, column in ITEMS.items()}}


def stream(items: dict[str, Any], asked: Any = None, options: pa.ipc.IpcWriteOptions | None = None) -> bytes:
    table = pa.table(items).replace_schema_metadata({"fullfunnel": orjson.dumps(asked or {"user": USER})})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def answered(scorer: Scorer, body: bytes) -> dict[str, Any]:
    table = pa.ipc.open_stream(answer(scorer, read_request(scorer, Limits(), body))).read_all()
    return {name: table[name].to_numpy() for name in table.column_names}


def test_scores_are_those_by_json_in_either_direction(make_api: MakeApi) -> None:
    api = make_api()
    expected = api.post("/v1/predict", JSON).json()
    for sent, headers in ((stream(ITEMS), {"content-type": ARROW}), (orjson.dumps(JSON), {"accept": ARROW})):
        response = api.call("POST", "/v1/predict", content=sent, headers={"content-type": "application/json"} | headers)
        assert response.status_code == 200 and response.headers["content-type"] == ARROW
        table = pa.ipc.open_stream(response.content).read_all()
        assert orjson.loads(table.schema.metadata[b"model"]) == expected["model"]
        for name in ("pctr", "pcvr", "pctcvr"):
            assert table[name].type == pa.float32()
            assert np.allclose(table[name].to_numpy(), expected[name], rtol=0, atol=1e-7)
    headers = {"content-type": ARROW, "accept": "application/json"}
    assert api.call("POST", "/v1/predict", content=stream(ITEMS), headers=headers).json() == expected


@pytest.mark.parametrize(
    "changed",
    [
        {"item_id": ITEMS["item_id"].dictionary_encode()},
        {"item_id": ITEMS["item_id"].cast(pa.large_string())},
        {"category": ITEMS["category"].cast(pa.int16())},
        {"category": ITEMS["category"].dictionary_encode()},
        {"price": ITEMS["price"].cast(pa.float32())},
        {"tags": ITEMS["tags"].cast(pa.large_list(pa.int64()))},
    ],
)
def test_a_column_may_have_any_type_that_holds_its_values(scorer: Scorer, changed: dict[str, Any]) -> None:
    expected, found = answered(scorer, stream(ITEMS)), answered(scorer, stream(ITEMS | changed))
    for name, values in expected.items():
        assert np.allclose(found[name], values, rtol=0, atol=1e-7)


def test_order_and_top_k_are_asked_for_in_the_metadata(scorer: Scorer) -> None:
    plain = answered(scorer, stream(ITEMS))
    found = answered(scorer, stream(ITEMS, {"user": USER, "order_by": "pcvr", "top_k": 2}))
    assert found["index"].tolist() == np.argsort(-plain["pcvr"], kind="stable")[:2].tolist()
    assert found["pcvr"].tolist() == sorted(plain["pcvr"].tolist(), reverse=True)[:2]


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_buffers_are_refused(scorer: Scorer, codec: str) -> None:
    body = stream({"item_id": ["i1"] * 1000}, options=pa.ipc.IpcWriteOptions(compression=codec))
    with pytest.raises(BodyMalformed, match="compressed"):
        read_request(scorer, Limits(), body)
    coded = pa.array(["i1" * 400] * 1000).dictionary_encode()
    body = stream({"item_id": coded}, options=pa.ipc.IpcWriteOptions(compression=codec))
    with pytest.raises(BodyMalformed, match="compressed"):
        read_request(scorer, Limits(), body)


def test_rows_that_cost_no_bytes_are_counted_before_they_are_made(scorer: Scorer) -> None:
    body = stream({"item_id": pa.nulls(10**9)})
    assert len(body) < 1000
    with pytest.raises(TooManyCandidates):
        read_request(scorer, Limits(), body)
    many = pa.concat_tables([pa.table({"item_id": ["i1"] * 600})] * 2)
    with pytest.raises(TooManyCandidates):
        read_request(scorer, Limits(), stream({"item_id": many["item_id"]}))


@pytest.mark.parametrize(
    ("items", "asked"),
    [
        ({"item_id": pa.array([b"i1"])}, None),
        ({"item_id": pa.array([True])}, None),
        ({"item_id": pa.array(["i1"]), "price": pa.array([{"a": 1}])}, None),
        ({"item_id": pa.array(["i1"])}, {"candidates": {}}),
        ({"item_id": pa.array(["i1"])}, ["user"]),
        ({"item_id": pa.array(["i1"])}, {"user": 1}),
        ({"item_id": pa.array(["i1"]), "colour": pa.array(["red"])}, None),
        ({"item_id": pa.array([1])}, None),
    ],
)
def test_what_cannot_be_scored_is_refused(scorer: Scorer, items: dict[str, Any], asked: Any) -> None:
    with pytest.raises(RequestInvalid):
        answer(scorer, read_request(scorer, Limits(), stream(items, asked)))


def test_two_columns_of_one_name_are_refused(scorer: Scorer) -> None:
    table = pa.Table.from_arrays([pa.array(["i1"]), pa.array(["i2"])], ["item_id", "item_id"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ValueInvalid, match="one name"):
        read_request(scorer, Limits(), sink.getvalue().to_pybytes())


def test_no_damaged_stream_does_more_than_be_refused(scorer: Scorer) -> None:
    rng, whole = random.Random(2), stream(ITEMS | {"item_id": ITEMS["item_id"].dictionary_encode()})
    refused = 0
    for _ in range(400):
        body = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        try:
            answer(scorer, read_request(scorer, Limits(), bytes(body[: rng.randrange(len(body) + 1)])))
        except RequestInvalid:
            refused += 1
    assert refused > 300


def test_the_example_of_the_documentation_is_answered(make_api: MakeApi) -> None:
    page = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text()
    example = page.partition("## Arrow")[2].partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"pa": pa, "json": json}
    exec(example, names)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, names["table"].schema) as writer:
        writer.write_table(names["table"])
    headers = {"content-type": ARROW, "accept": "application/json"}
    found = make_api().call("POST", "/v1/predict", content=sink.getvalue().to_pybytes(), headers=headers).json()
    assert len(found["index"]) == len(found["pctcvr"]) == 1
