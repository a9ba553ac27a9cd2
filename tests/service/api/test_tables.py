"""A table by HTTP: the scores of `fullfunnel score`, in every format, within bounds, and never a 5xx."""

import io
import json
import random
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
import pytest

from service.api.tables import FORMATS
from service.batch.formats import format_named
from service.batch.formats.arrow import StreamWriter
from service.batch.job import Job
from service.batch.run import run_job
from service.scoring.scorer import Scorer
from tests.service.batch.tables import assert_scored, toy_table
from tests.service.conftest import Api, MakeApi
from tests.service.process import ServiceProcess

OUTPUTS = ["pctr", "pcvr", "pctcvr"]
KINDS = {name: kind for kind, name in FORMATS.items()}


def as_bytes(table: pa.Table, name: str) -> bytes:
    sink = io.BytesIO()
    writer = StreamWriter(sink, table.schema) if name == "arrow" else format_named(name).writer(sink, table.schema)
    for batch in table.to_batches(max_chunksize=1000):
        writer.write(batch)
    writer.close()
    return sink.getvalue()


def as_table(content: bytes, name: str) -> pa.Table:
    source = pa.BufferReader(content)
    if name == "arrow":
        table = pa.ipc.open_stream(source).read_all()
    elif name == "parquet":
        table = pq.read_table(source)
    elif name == "csv":
        table = pyarrow.csv.read_csv(source)
    else:
        table = pyarrow.json.read_json(source)
    for column in OUTPUTS:
        at = table.schema.get_field_index(column)
        table = table.set_column(at, column, table[column].cast(pa.float32()))
    return table


def post(api: Api, content: bytes, name: str, query: str = "", **headers: str) -> httpx.Response:
    return api.call("POST", f"/v1/score{query}", content=content, headers={"content-type": KINDS[name], **headers})


def refusal(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()["type"].rpartition(":")[2]


@pytest.mark.parametrize("name", KINDS)
def test_scores_are_those_of_the_scorer_and_of_the_command(
    api: Api, scorer: Scorer, toy: Path, tmp_path: Path, name: str
) -> None:
    table = toy_table(3000)
    body = as_bytes(table, name)
    response = post(api, body, name, "?keep=row_id")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].partition(";")[0] == KINDS[name]
    assert (response.headers["x-rows"], response.headers["x-refused"]) == ("3000", "0")
    assert json.loads(response.headers["x-model"])["digest"] == scorer.digest
    found = as_table(response.content, name)
    assert found.column_names == ["row_id", *OUTPUTS]
    assert found["row_id"].to_pylist() == list(range(3000))
    assert_scored(found, scorer, table)

    source = tmp_path / f"in{format_named(name).suffixes[0]}"
    source.write_bytes(body)
    run_job(Job(str(toy), str(source), str(tmp_path / "out.parquet"), ("row_id",)))
    by_command = pq.read_table(tmp_path / "out.parquet")
    for column in OUTPUTS:
        np.testing.assert_allclose(found[column].to_numpy(), by_command[column].to_numpy(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("sent", KINDS)
@pytest.mark.parametrize("wanted", KINDS)
def test_the_answer_has_the_format_of_accept(api: Api, sent: str, wanted: str) -> None:
    response = post(api, as_bytes(toy_table(50), sent), sent, accept=f"application/x-unknown, {KINDS[wanted]};q=0.5")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].partition(";")[0] == KINDS[wanted]
    assert as_table(response.content, wanted).num_rows == 50


def test_every_column_can_be_kept_in_every_format(api: Api) -> None:
    table = toy_table(200)
    for name in ("parquet", "arrow"):
        found = as_table(post(api, as_bytes(table, name), name, "?keep=all").content, name)
        assert str(found.select(table.column_names).to_pylist()) == str(table.to_pylist())  # NaN is not NaN
    for name in ("csv", "ndjson"):
        response = post(api, as_bytes(table, "parquet"), "parquet", "?keep=all", accept=KINDS[name])
        assert as_table(response.content, name).column_names == [*table.column_names, *OUTPUTS]


def bad_price(table: pa.Table, *rows: int) -> pa.Table:
    at = table.schema.get_field_index("price")
    values = [float("inf") if row in rows else value for row, value in enumerate(table["price"].to_pylist())]
    return table.set_column(at, "price", pa.array(values, pa.float64()))


@pytest.mark.parametrize("name", ["parquet", "arrow"])
def test_bad_rows_stop_the_table_or_are_left_out_and_told(api: Api, scorer: Scorer, name: str) -> None:
    table = toy_table(300)
    body = as_bytes(bad_price(table, 7, 200), name)
    refused = post(api, body, name)
    assert refusal(refused) == (422, "rows-refused")
    assert refused.json()["errors"][0]["place"] == "body, row 7"
    assert refusal(post(api, body, name, "?max_bad=1")) == (422, "rows-refused")
    response = post(api, body, name, "?max_bad=2&keep=row_id")
    assert response.headers["x-refused"] == "2"
    assert [one["row"] for one in json.loads(response.headers["x-refused-rows"])] == [7, 200]
    found = as_table(response.content, name)
    kept = table.filter(pa.array([row not in (7, 200) for row in range(300)]))
    assert found["row_id"].to_pylist() == kept["row_id"].to_pylist()
    assert_scored(found, scorer, kept)


def test_no_rows_are_scored_as_no_rows(api: Api) -> None:
    for name in ("parquet", "arrow", "csv"):
        response = post(api, as_bytes(toy_table(0), name), name, "?keep=row_id")
        assert response.status_code == 200, response.text
        assert as_table(response.content, name).num_rows == 0


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("?keep=nothing", "column-missing"),
        ("?max_bad=-1", "value-invalid"),
        ("?max_bad=x", "value-invalid"),
        ("?kep=row_id", "unknown-field"),
    ],
)
def test_what_is_asked_for_wrongly_is_refused(api: Api, query: str, kind: str) -> None:
    assert refusal(post(api, as_bytes(toy_table(3), "parquet"), "parquet", query)) == (422, kind)


def test_a_column_that_would_be_called_like_a_score_cannot_be_kept(api: Api) -> None:
    table = toy_table(3)
    body = as_bytes(table.append_column("pctr", table["age"]), "arrow")
    assert refusal(post(api, body, "arrow", "?keep=pctr")) == (422, "value-invalid")
    assert post(api, body, "arrow").status_code == 200


def test_missing_and_mistyped_columns_are_named(api: Api) -> None:
    table = toy_table(5)
    response = post(api, as_bytes(table.drop_columns(["city"]), "parquet"), "parquet")
    assert refusal(response) == (422, "column-missing")
    assert "'city'" in response.json()["detail"]
    lists = table.set_column(2, "city", pa.array([["x"]] * 5))
    assert refusal(post(api, as_bytes(lists, "arrow"), "arrow")) == (422, "column-type-invalid")


def test_other_types_and_compressed_bodies_are_refused(api: Api) -> None:
    body = as_bytes(toy_table(3), "parquet")
    for headers in ({"content-type": "application/json"}, {}, {"content-type": "text/csv", "content-encoding": "gzip"}):
        assert api.call("POST", "/v1/score", content=body, headers=headers).status_code == 415


def test_every_bound_is_kept(make_api: MakeApi) -> None:
    table = toy_table(100)
    for limits in (
        {"max_table_rows": 99},
        {"max_table_columns": 11},
        {"max_table_expanded_bytes": 5000},
    ):
        for name in ("parquet", "arrow", "ndjson", "csv"):
            api = make_api(limits=limits)
            assert refusal(post(api, as_bytes(table, name), name)) == (413, "table-too-large"), (limits, name)
    assert refusal(post(make_api(limits={"max_table_bytes": 99}), b"x" * 100, "csv")) == (413, "body-too-large")


def bomb(rows: int) -> bytes:
    """Long strings many times over: small as it is stored, large when it is written out."""
    table = toy_table(1)
    columns = {name: pa.repeat(table[name][0], rows) for name in table.column_names}
    text = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), ["x" * 2**20])
    sink = io.BytesIO()
    pq.write_table(pa.table({**columns, "note": text}), sink, compression="zstd", store_schema=False)
    return sink.getvalue()


def test_a_bomb_of_parquet_is_refused_and_memory_stays_small(toy: Path) -> None:
    with ServiceProcess(toy) as service:

        def send(body: bytes, query: str = "") -> httpx.Response:
            headers = {"content-type": KINDS["parquet"]}
            return service.client.post(f"/v1/score{query}", content=body, headers=headers)

        assert send(bomb(10)).status_code == 200
        before = service.peak_bytes()
        body = bomb(5000)  # 5 GB of strings
        assert len(body) < 2**20
        response = send(body, "?keep=note")
        assert refusal(response) == (413, "table-too-large")
        assert service.peak_bytes() - before < 200 * 2**20
        assert send(body).status_code == 200


@pytest.mark.parametrize("name", KINDS)
def test_damaged_tables_never_give_a_5xx(api: Api, name: str) -> None:
    rng = random.Random(name)
    whole = as_bytes(toy_table(40), name)
    seen = set()
    for _ in range(120):
        body = bytearray(whole)
        for _ in range(rng.choice([1, 1, 3])):
            body[rng.randrange(len(body))] = rng.randrange(256)
        if rng.random() < 0.3:
            del body[rng.randrange(len(body)) :]
        response = post(api, bytes(body), name, rng.choice(["", "?keep=all", "?max_bad=100"]))
        seen.add(response.status_code)
        assert response.status_code in (200, 400, 413, 422), response.text
    assert len(seen) > 1


def test_tables_beyond_the_limit_are_refused_while_others_are_under_way(make_api: MakeApi) -> None:
    api = make_api(limits={"max_tables": 1})
    body = as_bytes(toy_table(20_000), "parquet")

    async def both() -> list[httpx.Response]:
        import asyncio

        headers = {"content-type": KINDS["parquet"]}
        calls = (api._client.post("/v1/score", content=body, headers=headers) for _ in range(2))
        return list(await asyncio.gather(*calls))

    found = api._runner.run(both())
    assert sorted(response.status_code for response in found) == [200, 503]
    assert post(api, body, "parquet").status_code == 200


def test_the_endpoint_is_described(api: Api) -> None:
    described: dict[str, Any] = api.get("/openapi.json").json()["paths"]["/v1/score"]["post"]
    assert described["requestBody"]["content"].keys() == FORMATS.keys()
    assert described["responses"]["200"]["content"].keys() >= FORMATS.keys()
    assert {one["name"] for one in described["parameters"]} == {"keep", "max_bad"}
