"""A whole job in one process: files in, files with scores out."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import (
    ColumnMissing,
    ColumnTypeInvalid,
    DataInvalid,
    FullfunnelError,
    JobChanged,
    MixedTypes,
    RowsRefused,
    SettingInvalid,
    TargetExists,
    TargetUnwritable,
)
from service.batch import plan as planning
from service.batch.formats import parquet
from service.batch.job import ALL, Job
from service.batch.run import Watch, run_job
from service.scoring.scorer import Scorer
from tests.service.batch.tables import assert_scored, toy_table, write


@pytest.fixture
def job(toy: Path, tmp_path: Path) -> Job:
    return Job(str(toy), str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet"))


def _tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_scores_are_in_the_order_of_the_rows(job: Job, scorer: Scorer, tmp_path: Path) -> None:
    table = toy_table(500, 1, users=20)
    write(table, tmp_path / "in.parquet", row_group_size=77)
    result = run_job(job)
    out = pq.read_table(job.output)
    assert (result.rows, result.refused, result.was_done) == (500, 0, False)
    assert out.schema.names == ["pctr", "pcvr", "pctcvr"]
    assert_scored(out, scorer, table)


def test_several_files_become_parts_that_read_as_one_table(job: Job, scorer: Scorer, tmp_path: Path) -> None:
    tables = [toy_table(50, seed) for seed in range(3)]
    for number, table in zip((1, 2, 10), tables, strict=True):
        write(table, tmp_path / "in" / f"{number}.parquet")
    run_job(replace(job, input=str(tmp_path / "in"), output=str(tmp_path / "out"), keep=("row_id",)))
    assert sorted(os.listdir(tmp_path / "out")) == [
        "_SUCCESS",
        "_summary.json",
        *(f"part-0000{n}.parquet" for n in range(3)),
    ]
    assert_scored(pq.read_table(tmp_path / "out"), scorer, pa.concat_tables(tables))


def test_what_is_kept_keeps_its_values_and_types(job: Job, tmp_path: Path) -> None:
    table = toy_table(30, 2)
    extra = {
        "when": pa.array(range(30), pa.timestamp("us", "UTC")),
        "word": pa.array(["a", None, "b"] * 10).dictionary_encode(),
        "cost": pa.array(range(30), pa.decimal128(9, 2)),
        "deep": pa.array([{"x": [n]} for n in range(30)]),
    }
    for name, column in extra.items():
        table = table.append_column(name, column)
    write(table, tmp_path / "in.parquet")
    run_job(replace(job, keep=(ALL,)))
    out = pq.read_table(job.output)
    assert out.schema.names == [*table.schema.names, "pctr", "pcvr", "pctcvr"]
    for name in table.schema.names:
        column = table[name].cast(pa.string()) if name == "word" else table[name]
        assert out[name].type == column.type
        assert str(out[name].to_pylist()) == str(column.to_pylist())


def test_partitions_of_folders_are_features_and_can_be_kept(job: Job, scorer: Scorer, tmp_path: Path) -> None:
    whole = []
    for city in ("Berlin", "Atlantis"):
        for category in (1, 3):
            table = toy_table(20, category)
            write(table.drop_columns(["city", "category"]), tmp_path / f"in/city={city}/category={category}/a.parquet")
            table = table.set_column(2, "city", pa.array([city] * 20))
            whole.append(table.set_column(7, "category", pa.array([category] * 20)))
    run_job(replace(job, input=str(tmp_path / "in"), keep=("city", "category")))
    out = pq.read_table(job.output)
    assert_scored(out, scorer, pa.concat_tables([*whole[2:], *whole[:2]]))
    assert out["category"].to_pylist() == ([1] * 20 + [3] * 20) * 2
    assert out["city"].type == pa.string()


def test_a_large_row_group_is_cut_in_shards_that_any_number_of_workers_writes_alike(
    job: Job, scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "BLOCK_ROWS", 64)
    monkeypatch.setattr(parquet, "CHUNK_ROWS", 16)
    table = toy_table(400, 3, users=30)
    write(table, tmp_path / "in.parquet", row_group_size=300)
    trees = []
    for workers in (1, 3):
        run_job(replace(job, output=str(tmp_path / f"out{workers}")), workers=workers)
        trees.append(_tree(tmp_path / f"out{workers}"))
    assert trees[0] == trees[1]
    assert len(trees[0]) > 6
    assert_scored(pq.read_table(tmp_path / "out3"), scorer, table)


@pytest.mark.parametrize("output", ["out", "out.parquet"])
def test_an_empty_table_is_an_empty_answer_with_the_schema(job: Job, tmp_path: Path, output: str) -> None:
    write(toy_table(0), tmp_path / "in.parquet")
    run_job(replace(job, output=str(tmp_path / output), keep=("row_id",)))
    out = pq.read_table(tmp_path / output)
    assert (out.num_rows, out.schema.names) == (0, ["row_id", "pctr", "pcvr", "pctcvr"])


def test_the_manifest_tells_what_is_there(job: Job, tmp_path: Path, scorer: Scorer) -> None:
    import hashlib

    write(toy_table(40), tmp_path / "in.parquet")
    run_job(replace(job, output=str(tmp_path / "out")))
    manifest = json.loads((tmp_path / "out/_SUCCESS").read_bytes())
    content = (tmp_path / "out/part-00000.parquet").read_bytes()
    assert manifest["parts"] == [
        {
            "name": "part-00000.parquet",
            "rows": 40,
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    ]
    assert manifest["model"] == {"name": "toy", "version": "1", "digest": scorer.digest}
    assert (manifest["rows"], manifest["refused"]) == (40, 0)


def test_progress_is_told_in_rows(job: Job, tmp_path: Path) -> None:
    write(toy_table(100), tmp_path / "in.parquet", row_group_size=30)
    told: list[Any] = []
    run_job(job, watch=Watch(lambda rows, done: told.append((rows, done)), told.append), workers=2)
    assert told[0] == (100, 0)
    assert sum(told[1:]) == 100


# ---------------------------------------------------------------- what is refused


def _bad_table() -> pa.Table:
    rows = toy_table(60, 4).to_pylist()
    for row in (7, 31):
        rows[row]["price"] = float("inf")
    rows[44]["item_id"] = None
    return pa.Table.from_pylist(rows, toy_table(0).schema)


def test_a_row_that_cannot_be_scored_stops_the_job_with_its_place_and_reason(job: Job, tmp_path: Path) -> None:
    write(_bad_table(), tmp_path / "in.parquet", row_group_size=20)
    with pytest.raises(RowsRefused, match=r"in.parquet, row 7: .*allowed: price: must be a finite number") as said:
        run_job(job)
    assert "--max-bad" in said.value.remedy
    assert os.listdir(tmp_path) == ["in.parquet"]


def test_rows_that_cannot_be_scored_are_left_out_and_told(job: Job, scorer: Scorer, tmp_path: Path) -> None:
    table = _bad_table()
    write(table, tmp_path / "in.parquet", row_group_size=20)
    result = run_job(replace(job, max_bad=3))
    assert (result.rows, result.refused) == (60, 3)
    out = pq.read_table(job.output)
    assert_scored(out, scorer, table.filter(pa.array([row not in (7, 31, 44) for row in range(60)])))
    lines = [json.loads(line) for line in (tmp_path / "out.parquet.refused.ndjson").read_text().splitlines()]
    assert [line["row"] for line in lines] == [7, 31, 44]
    assert {line["source"] for line in lines} == {job.input}
    assert "must be a finite number" in lines[0]["reason"]
    assert "item_id" in lines[2]["reason"]


def test_one_row_more_than_allowed_stops_the_job_which_goes_on_when_more_are_allowed(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "BLOCK_ROWS", 20)
    write(_bad_table(), tmp_path / "in.parquet", row_group_size=20)
    with pytest.raises(RowsRefused, match="2 are allowed"):
        run_job(replace(job, max_bad=2, output=str(tmp_path / "out")))
    assert not (tmp_path / "out/_SUCCESS").exists()
    assert run_job(replace(job, max_bad=3, output=str(tmp_path / "out"))).refused == 3
    assert len((tmp_path / "out/_refused.ndjson").read_text().splitlines()) == 3


def _without(table: pa.Table) -> pa.Table:
    return table.drop_columns(["price"])


def _typed(table: pa.Table) -> pa.Table:
    return table.set_column(3, "age", pa.array(["old"] * table.num_rows))


@pytest.mark.parametrize(
    ("change", "error", "fact"),
    [
        (_without, ColumnMissing, r"in.parquet: no column 'price'"),
        (_typed, ColumnTypeInvalid, r"in.parquet, column 'age': holds string, not numbers"),
        (lambda t: t.append_column("pctr", t["age"]), SettingInvalid, "would be called 'pctr' like a score"),
    ],
)
def test_tables_that_do_not_fit_are_refused_before_anything_is_written(
    job: Job, tmp_path: Path, change: Any, error: type[FullfunnelError], fact: str
) -> None:
    write(change(toy_table(20)), tmp_path / "in.parquet")
    with pytest.raises(error, match=fact):
        run_job(replace(job, keep=(ALL,)))
    assert os.listdir(tmp_path) == ["in.parquet"]


def test_kept_columns_of_different_types_are_refused(job: Job, tmp_path: Path) -> None:
    write(toy_table(5), tmp_path / "in/a.parquet")
    table = toy_table(5)
    write(table.set_column(0, "row_id", table["row_id"].cast(pa.string())), tmp_path / "in/b.parquet")
    with pytest.raises(MixedTypes, match=r"b.parquet, column 'row_id': holds string where"):
        run_job(replace(job, input=str(tmp_path / "in"), keep=("row_id",)))


@pytest.mark.parametrize("cut", [0, 3, 100, -5])
def test_a_file_that_is_not_whole_is_named(job: Job, tmp_path: Path, cut: int) -> None:
    content = write(toy_table(50), tmp_path / "in.parquet").read_bytes()
    (tmp_path / "in.parquet").write_bytes(content[:cut])
    with pytest.raises(DataInvalid, match=r"in.parquet: cannot be read .* Remedy: check that the file is whole"):
        run_job(job)
    assert os.listdir(tmp_path) == ["in.parquet"]


def test_pages_that_are_damaged_stop_the_job_without_an_output(job: Job, tmp_path: Path) -> None:
    path = write(toy_table(2000, 1, users=500), tmp_path / "in.parquet")
    content = bytearray(path.read_bytes())
    for place in range(4, len(content) // 2, 7):
        content[place] ^= 0x5A
    path.write_bytes(content)
    with pytest.raises(DataInvalid, match=r"in.parquet: cannot be read"):
        run_job(job, workers=2)
    assert os.listdir(tmp_path) == ["in.parquet"]


def test_an_output_inside_the_input_is_refused(job: Job, tmp_path: Path) -> None:
    write(toy_table(5), tmp_path / "out/in.parquet")
    with pytest.raises(FullfunnelError):
        run_job(replace(job, input=str(tmp_path / "out"), output=str(tmp_path / "out")))
    with pytest.raises(FullfunnelError):
        run_job(replace(job, input=str(tmp_path / "out/in.parquet"), output=str(tmp_path / "out/in.parquet")))
    assert os.listdir(tmp_path / "out") == ["in.parquet"]


def test_what_no_job_wrote_is_never_written_over(job: Job, tmp_path: Path) -> None:
    write(toy_table(5), tmp_path / "in.parquet")
    (tmp_path / "out.parquet").write_text("precious")
    for restart in (False, True):
        with pytest.raises(TargetExists, match="something is there already"):
            run_job(job, restart=restart)
    assert (tmp_path / "out.parquet").read_text() == "precious"


def test_a_place_that_cannot_be_written_is_an_error(job: Job, tmp_path: Path) -> None:
    write(toy_table(5), tmp_path / "in.parquet")
    (tmp_path / "file").write_text("")
    with pytest.raises(TargetUnwritable, match="cannot be written"):
        run_job(replace(job, output=str(tmp_path / "file" / "out.parquet")))


# ---------------------------------------------------------------- again


def test_a_finished_job_is_not_done_again(job: Job, tmp_path: Path) -> None:
    write(toy_table(50), tmp_path / "in.parquet")
    run_job(job)
    before = (tmp_path / "out.parquet").stat().st_mtime_ns
    result = run_job(job)
    assert (result.was_done, result.rows) == (True, 50)
    assert (tmp_path / "out.parquet").stat().st_mtime_ns == before
    assert sorted(os.listdir(tmp_path)) == [
        "in.parquet",
        "out.parquet",
        "out.parquet.success.json",
        "out.parquet.summary.json",
    ]


def test_a_changed_input_is_refused_and_restart_scores_it(job: Job, scorer: Scorer, tmp_path: Path) -> None:
    write(toy_table(50, 1), tmp_path / "in.parquet")
    run_job(job)
    write(toy_table(60, 2), tmp_path / "in.parquet")
    with pytest.raises(JobChanged, match=r"the input changed .*in.parquet differs") as said:
        run_job(job)
    assert "--restart" in said.value.remedy
    run_job(job, restart=True)
    assert_scored(pq.read_table(job.output), scorer, toy_table(60, 2))


def test_other_options_are_refused(job: Job, tmp_path: Path) -> None:
    write(toy_table(50), tmp_path / "in.parquet")
    run_job(job)
    with pytest.raises(JobChanged, match="the options are not those"):
        run_job(replace(job, keep=("row_id",)))
