"""Every format, in and out: the same rows, the same scores, in order."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
import pytest

from contract.errors import DataInvalid, RowsRefused
from service.batch import plan as planning
from service.batch.formats import FORMATS, format_of, lines
from service.batch.job import ALL, Job
from service.batch.run import run_job
from service.scoring.scorer import Scorer
from tests.service.batch.tables import assert_scored, toy_table

ROWS = 400


def _csv(table: pa.Table, path: Path) -> None:
    lists = [field.name for field in table.schema if pa.types.is_list(field.type)]
    for name in lists:
        texts = [None if value is None else json.dumps(value) for value in table[name].to_pylist()]
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(texts, pa.string()))
    pa.csv.write_csv(table, path)


def _ndjson(table: pa.Table, path: Path) -> None:
    rows = [{k: None if v != v else v for k, v in row.items()} for row in table.to_pylist()]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _arrow(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=90)


def _stream(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=90)


def _dictionaries(table: pa.Table, path: Path) -> None:
    for name in ("user_id", "item_id"):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].dictionary_encode())
    _stream(table, path)


WRITE: dict[str, Any] = {
    "in.csv": _csv,
    "in.ndjson": _ndjson,
    "in.arrow": _arrow,
    "in.arrows": _stream,
    "in.ipc": _dictionaries,
    "in.parquet": lambda table, path: pq.write_table(table, path, row_group_size=90),
}


def _read(path: Path) -> pa.Table:
    if path.suffix == ".csv":
        return pa.csv.read_csv(path)
    if path.suffix == ".ndjson":
        return pa.json.read_json(path)
    if path.suffix == ".arrow":
        return pa.ipc.open_file(path).read_all()
    return pq.read_table(path)


@pytest.fixture
def job(toy: Path, tmp_path: Path) -> Job:
    return Job(str(toy), "", str(tmp_path / "out.parquet"), keep=("row_id",))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "PIECE_BYTES", 5000)
    monkeypatch.setattr(planning, "BLOCK_ROWS", 100)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("source", WRITE)
def test_every_format_comes_out_with_the_scores_of_the_scorer(
    job: Job, scorer: Scorer, tmp_path: Path, source: str
) -> None:
    table = toy_table(ROWS, 5, users=40)
    WRITE[source](table, tmp_path / source)
    run_job(replace(job, input=str(tmp_path / source)), workers=2)
    out = pq.read_table(job.output)
    assert_scored(out, scorer, table)
    assert out["row_id"].cast(pa.int64()).to_pylist() == list(range(ROWS))


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".ndjson", ".arrow"])
@pytest.mark.parametrize("folder", [True, False])
def test_every_format_is_written(
    job: Job, scorer: Scorer, tmp_path: Path, ending: str, folder: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "BLOCK_ROWS", 100)
    table = toy_table(ROWS, 6, users=40)
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=90)
    output = "out" if folder else f"out{ending}"
    run_job(
        replace(job, input=str(tmp_path / "in.parquet"), output=str(tmp_path / output), output_format=_name(ending))
    )
    paths = sorted((tmp_path / "out").glob("part-*")) if folder else [tmp_path / output]
    assert {path.suffix for path in paths} == {ending}
    assert len(paths) == (5 if folder else 1)
    out = pa.concat_tables(map(_read, paths))
    assert_scored(out, scorer, table)
    assert out["row_id"].to_pylist() == list(range(ROWS))


def _name(ending: str) -> str:
    found = format_of(f"x{ending}")
    assert found is not None
    return found.name


@pytest.mark.parametrize("ending", [".csv", ".ndjson"])
def test_all_columns_come_through_a_text_format_and_back(job: Job, scorer: Scorer, tmp_path: Path, ending: str) -> None:
    table = toy_table(50, 7)
    pq.write_table(table, tmp_path / "in.parquet")
    middle, out = tmp_path / f"middle{ending}", tmp_path / "end.parquet"
    run_job(replace(job, input=str(tmp_path / "in.parquet"), output=str(middle), keep=(ALL,)))
    run_job(replace(job, input=str(middle), output=str(out), keep=("row_id", "tags", "recent_items")))
    found = pq.read_table(out)
    assert_scored(found, scorer, table)
    assert found["tags"].to_pylist() == table["tags"].to_pylist()
    assert found["recent_items"].to_pylist() == table["recent_items"].to_pylist()


BAD_CSV = """row_id,user_id,city,age,recent_items,recent_actions,item_id,category,price,tags
0,u1,Berlin,30,,,i1,1,9.5,"[1, 2]"
1,u1,Berlin,old,,,i1,1,9.5,
2,u1,Berlin,30,,,i1,1,9.5

3,"u
1",Berlin,30,,,i1,1,9.5,{}
4,u1,Berlin,30,,,i1,one,9.5,
5,u1,"Ber""lin",30,"[""i1""]","[""buy""]",i1,1.5,inf,
6,u1,Berlin,30,,,i1,1,9.5,[]"""


def test_rows_of_csv_that_cannot_be_read_are_refused_by_their_number(job: Job, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(BAD_CSV)
    result = run_job(replace(job, input=str(tmp_path / "in.csv"), max_bad=9))
    lines_of = (tmp_path / "out.parquet.refused.ndjson").read_text().splitlines()
    refused = {line["row"]: line["reason"] for line in map(json.loads, lines_of)}
    assert sorted(refused) == [1, 2, 3, 4, 5]
    assert refused[1] == "age: must be a number"
    assert refused[2] == "9 fields where the header has 10"
    assert refused[3] == "tags: is no JSON list of int64"
    assert refused[4] == "category: must be a whole number"
    assert refused[5].startswith("category: must be a whole number; price: must be a finite number")
    assert result.rows == 7
    assert pq.read_table(job.output)["row_id"].to_pylist() == ["0", "6"]


BAD_NDJSON = """{"row_id": 0, "item_id": "i1", "tags": [1]}
{"row_id": 1, "item_id": 7}
{"row_id": 2, "item_id": "i1"

[1]
{"row_id": 4, "item_id": "i2", "age": "old"}
{"row_id": 5, "item_id": "i2", "age": 3, "user_id": "u", "city": null, "category": 1, "recent_items": ["i1"]}
{"row_id": 6, "item_id": "i2", "recent_actions": ["buy"], "recent_items": ["i1"], "price": 1}
"""


def test_lines_of_ndjson_that_cannot_be_read_are_refused_by_their_number(job: Job, tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text(BAD_NDJSON)
    run_job(replace(job, input=str(tmp_path / "in.ndjson"), max_bad=9))
    lines_of = (tmp_path / "out.parquet.refused.ndjson").read_text().splitlines()
    refused = {line["row"]: line["reason"] for line in map(json.loads, lines_of)}
    assert sorted(refused) == [1, 2, 3, 4, 5]
    assert "has 0 members where" in refused[5]
    assert pq.read_table(job.output)["row_id"].to_pylist() == [0, 6]


def test_a_text_without_any_record_is_an_empty_table(job: Job, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(BAD_CSV.splitlines()[0])
    assert run_job(replace(job, input=str(tmp_path / "in.csv"))).rows == 0
    assert pq.read_table(job.output).schema.names == ["row_id", "pctr", "pcvr", "pctcvr"]


@pytest.mark.parametrize(
    ("name", "content", "fact"),
    [
        ("in.csv", b"", "no header"),
        ("in.csv", b"a,b\n\xff\xfe,2\n", "no column 'row_id' to keep"),
        ("in.csv", b'row_id\n"i1\n', "no column 'user_id'"),
        ("in.arrow", b"ARROW1\x00\x00nothing", "cannot be read"),
        ("in.arrow", b"", "cannot be read"),
        ("in.arrow", b"\x10\x00\x00\x00junk", "cannot be read"),
    ],
)
def test_what_is_no_table_is_an_error(job: Job, tmp_path: Path, name: str, content: bytes, fact: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataInvalid, match=fact):
        run_job(replace(job, input=str(tmp_path / name)))


@pytest.mark.parametrize("source", ["in.arrow", "in.arrows", "in.ipc"])
def test_an_arrow_file_that_was_cut_is_an_error(job: Job, tmp_path: Path, source: str) -> None:
    WRITE[source](toy_table(ROWS), tmp_path / source)
    content = (tmp_path / source).read_bytes()
    (tmp_path / source).write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(DataInvalid, match="cannot be read"):
        run_job(replace(job, input=str(tmp_path / source)))


def test_offsets_that_lead_outside_an_arrow_file_are_an_error(job: Job, tmp_path: Path) -> None:
    table = toy_table(20)
    column = table["item_id"].combine_chunks()
    offsets = column.buffers()[1].to_pybytes()[: 21 * 4]
    _arrow(table, tmp_path / "in.arrow")
    content = (tmp_path / "in.arrow").read_bytes()
    assert content.count(offsets) == 1
    broken = offsets[:4] + bytes([255, 255, 255, 127]) * 19 + offsets[-4:]
    (tmp_path / "in.arrow").write_bytes(content.replace(offsets, broken))
    with pytest.raises(DataInvalid, match="cannot be read"):
        run_job(replace(job, input=str(tmp_path / "in.arrow")))


def test_a_bad_row_of_the_last_shard_is_named_by_its_row_in_the_file(
    job: Job, tmp_path: Path, small_pieces: None
) -> None:
    rows = toy_table(ROWS, 8).to_pylist()
    rows[377]["price"] = float("-inf")
    _csv(pa.Table.from_pylist(rows, toy_table(0).schema), tmp_path / "in.csv")
    with pytest.raises(RowsRefused, match=r"in.csv, row 377: .* price: must be a finite number"):
        run_job(replace(job, input=str(tmp_path / "in.csv")))


def test_endings_are_told_apart() -> None:
    endings = [suffix for each in FORMATS for suffix in each.suffixes]
    assert len(set(endings)) == len(endings)
    for each in FORMATS:
        for suffix in each.suffixes:
            assert format_of(f"A{suffix.upper()}") is each
