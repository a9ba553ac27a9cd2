"""One shard: the rows that are read of it, the part that is written, and the rows that are refused."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import DataInvalid, RowsRefused
from service.batch.formats import parquet
from service.batch.job import Job, Plan, Shard
from service.batch.plan import plan_of
from service.batch.shards import ShardScorer, check_refused, partition_type
from service.batch.tally import Tally
from service.scoring.scorer import Scorer
from tests.service.batch.tables import SCHEMA, assert_scored, toy_table, write

ROWS = 100


@pytest.fixture
def job(toy: Path, tmp_path: Path) -> Job:
    (tmp_path / "out").mkdir()
    return Job(str(toy), str(tmp_path / "in"), str(tmp_path / "out"), keep=("row_id",))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "CHUNK_ROWS", 16)


def _plan(job: Job, scorer: Scorer, table: pa.Table, name: str = "a.parquet") -> Plan:
    write(table, Path(job.input) / name, row_group_size=40)
    return plan_of(job, scorer.manifest, scorer.digest)


def _part(plan: Plan, scorer: Scorer, skip: int, rows: int) -> tuple[ShardScorer, Shard]:
    """The rows of the first file from `skip` on."""
    shard = replace(plan.shards[0], first_row=skip, skip=skip, rows=rows)
    return ShardScorer(scorer, plan), shard


def _bad_table(*bad: int) -> pa.Table:
    rows = toy_table(ROWS, 2).to_pylist()
    for row in bad:
        rows[row]["item_id"] = None
    return pa.Table.from_pylist(rows, SCHEMA)


def _listed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize(
    ("skip", "rows"),
    [(0, ROWS), (0, 1), (0, 16), (15, 2), (16, 16), (16, 17), (39, 2), (40, 40), (41, 59), (ROWS - 1, 1)],
)
def test_the_rows_of_a_shard_are_those_after_the_skipped_ones_and_no_more(
    job: Job, scorer: Scorer, skip: int, rows: int
) -> None:
    plan = _plan(job, scorer, toy_table(ROWS))
    reads, shard = _part(plan, scorer, skip, rows)
    chunks = [chunk.batch.column("row_id").to_pylist() for chunk in reads.chunks(shard)]
    assert [row for chunk in chunks for row in chunk] == list(range(skip, skip + rows))
    assert all(0 < len(chunk) <= 16 for chunk in chunks)


def test_reasons_to_refuse_a_row_stay_with_it_when_a_chunk_is_cut(job: Job, scorer: Scorer) -> None:
    lines = [json.dumps(dict.fromkeys(SCHEMA.names, None)) for _ in range(6)]
    lines[3] = "no object"
    Path(job.input).mkdir()
    (Path(job.input) / "a.ndjson").write_text("\n".join(lines))
    plan = plan_of(replace(job, keep=()), scorer.manifest, scorer.digest)
    reads, shard = _part(plan, scorer, 2, 3)
    (chunk,) = reads.chunks(shard)
    assert (chunk.batch.num_rows, list(chunk.refused)) == (3, [1])


def test_a_file_that_is_gone_is_named(job: Job, scorer: Scorer) -> None:
    plan = _plan(job, scorer, toy_table(5))
    Path(plan.shards[0].file.path).unlink()
    with pytest.raises(DataInvalid) as said:
        ShardScorer(scorer, plan).write(plan.shards[0])
    assert said.value.place == plan.shards[0].file.path
    assert _listed(Path(job.output)) == []


FOLDERS = {"3": (pa.int64(), 3), "x": (pa.string(), "x"), "__HIVE_DEFAULT_PARTITION__": (pa.string(), None)}


@pytest.mark.parametrize("value", FOLDERS)
def test_what_folders_say_is_added_as_it_is_written_if_kept_and_as_text_if_not(
    job: Job, scorer: Scorer, value: str
) -> None:
    name = f"category={value}/day={value}/week={value}/a.parquet"
    plan = _plan(replace(job, keep=("day",)), scorer, toy_table(3).drop_columns(["category"]), name)
    (chunk,) = ShardScorer(scorer, plan).chunks(plan.shards[0])
    kind, said = FOLDERS[value]
    assert chunk.batch.schema.field("day").type == kind
    assert chunk.batch.column("day").to_pylist() == [said] * 3
    assert chunk.batch.schema.field("category").type == pa.string()
    assert chunk.batch.column("category").to_pylist() == [None if said is None else str(said)] * 3
    assert "week" not in chunk.batch.schema.names
    schema = pa.ipc.read_schema(pa.py_buffer(plan.schema))
    assert [partition_type(schema, plan, name) for name in ("day", "category")] == [kind, pa.string()]


@pytest.mark.parametrize("value", ["7", "007", "--5", "\u00b2", "x", "__HIVE_DEFAULT_PARTITION__"])
def test_what_a_folder_says_of_a_feature_is_the_same_whether_it_is_kept_or_not(
    job: Job, scorer: Scorer, value: str
) -> None:
    table, tables = toy_table(3).drop_columns(["user_id"]), []
    for keep in ((), ("user_id",)):
        plan = _plan(replace(job, keep=keep), scorer, table, f"user_id={value}/a.parquet")
        ShardScorer(scorer, plan).write(plan.shards[0])
        tables.append(pq.read_table(Path(job.output) / "part-00000.parquet"))
    assert tables[1].drop_columns(["user_id"]) == tables[0]
    said = None if value.startswith("__") else value
    assert tables[1]["user_id"].cast(pa.string()).to_pylist() == [said] * 3


@pytest.mark.parametrize("keep", [(), ("age",)])
@pytest.mark.parametrize(("value", "age"), [("31", 31.0), ("9.5", 9.5), ("__HIVE_DEFAULT_PARTITION__", None)])
def test_a_feature_of_numbers_may_be_a_folder(
    job: Job, scorer: Scorer, value: str, age: float | None, keep: tuple[str, ...]
) -> None:
    table = toy_table(3)
    plan = _plan(replace(job, keep=keep), scorer, table.drop_columns(["age"]), f"age={value}/a.parquet")
    ShardScorer(scorer, plan).write(plan.shards[0])
    found = pq.read_table(Path(job.output) / "part-00000.parquet")
    assert_scored(found, scorer, table.set_column(3, "age", pa.array([age] * 3, pa.float64())))
    assert found["age"].to_pylist() == [age] * 3 if keep else "age" not in found.schema.names


@pytest.mark.parametrize("keep", [(), ("click",)])
def test_labels_may_be_folders(job: Job, scorer: Scorer, keep: tuple[str, ...]) -> None:
    table = toy_table(3).drop_columns(["click"])
    plan = _plan(replace(job, keep=keep), scorer, table, "click=1/a.parquet")
    done = ShardScorer(scorer, plan).write(plan.shards[0])
    assert sum(done.tally["labels"]["pctr"][1][1]) == 3


# ---------------------------------------------------------------- what is written


def test_what_is_said_of_a_part_is_true(job: Job, scorer: Scorer) -> None:
    table = toy_table(ROWS, 1)
    plan = _plan(job, scorer, table)
    writes, shard = _part(plan, scorer, 30, 50)
    told: list[int] = []
    done = writes.write(replace(shard, index=7), told.append)
    content = (Path(job.output) / "part-00007.parquet").read_bytes()
    assert (done.index, done.rows, done.refused) == (7, 50, 0)
    assert (done.size, done.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (sum(told), len(told)) == (50, 5)
    assert done.tally["rows"] == [50, 50]
    assert_scored(pq.read_table(Path(job.output) / "part-00007.parquet"), scorer, table.slice(30, 50))
    assert _listed(Path(job.output)) == ["part-00007.parquet"]


def test_a_shard_written_again_is_the_same(job: Job, scorer: Scorer) -> None:
    plan = _plan(replace(job, max_bad=1), scorer, _bad_table(5))
    (Path(job.output) / "_job").mkdir()
    one, other = ShardScorer(scorer, plan), ShardScorer(scorer, plan, ".x")
    assert one.write(plan.shards[0]) == other.write(plan.shards[0]) == one.write(plan.shards[0])


def test_a_shard_without_rows_is_a_part_without_rows(job: Job, scorer: Scorer) -> None:
    plan = _plan(job, scorer, toy_table(0))
    done = ShardScorer(scorer, plan).write(plan.shards[0])
    assert (done.rows, done.refused, done.tally) == (0, 0, Tally(scorer.manifest).plain())
    out = pq.read_table(Path(job.output) / "part-00000.parquet")
    assert (out.num_rows, out.schema) == (0, pa.ipc.read_schema(pa.py_buffer(plan.schema)))


def test_unfinished_files_have_the_mark_of_their_attempt(job: Job, scorer: Scorer) -> None:
    plan = _plan(job, scorer, toy_table(3))
    seen: list[str] = []
    ShardScorer(scorer, plan, ".m1").write(plan.shards[0], lambda rows: seen.extend(_listed(Path(job.output))))
    assert seen == [".part-00000.parquet.m1.tmp"]


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("skip", "bad", "found"),
    [(0, (0, 17, 99), [0, 17, 99]), (30, (29, 30, 79, 80), [30, 79]), (0, tuple(range(ROWS)), list(range(ROWS)))],
    ids=["a whole file", "a part of one", "every row"],
)
def test_refused_rows_are_named_by_their_place_in_the_file(
    job: Job, scorer: Scorer, skip: int, bad: tuple[int, ...], found: list[int]
) -> None:
    plan = _plan(replace(job, max_bad=len(bad)), scorer, _bad_table(*bad))
    (Path(job.output) / "_job").mkdir()
    rows = 50 if skip else ROWS
    writes, shard = _part(plan, scorer, skip, rows)
    done = writes.write(shard)
    lines = [json.loads(line) for line in (Path(job.output) / "_job/refused-00000.ndjson").read_bytes().splitlines()]
    assert [line["row"] for line in lines] == found
    assert {(line["source"], line["reason"]) for line in lines} == {(shard.file.path, lines[0]["reason"])}
    assert (done.rows, done.refused, done.tally["rows"]) == (rows, len(found), [rows, rows - len(found)])
    kept = pq.read_table(Path(job.output) / "part-00000.parquet")["row_id"].to_pylist()
    assert kept == [row for row in range(skip, skip + rows) if row not in found]


def test_one_refused_row_too_many_leaves_no_part(job: Job, scorer: Scorer) -> None:
    plan = _plan(replace(job, max_bad=2), scorer, _bad_table(1, 40, 41))
    told: list[int] = []
    with pytest.raises(RowsRefused, match=r"a\.parquet, row 1: cannot be scored, and only 2 are allowed"):
        ShardScorer(scorer, plan).write(plan.shards[0], told.append)
    assert told == [16, 16, 8]
    assert _listed(Path(job.output)) == []


FIRST: list[dict[str, Any]] = [{"source": "in.csv", "row": 7, "reason": "price: is no number."}, {"row": 9}]


@pytest.mark.parametrize(("count", "max_bad"), [(0, 0), (1, 1), (3, 4)])
def test_as_many_as_are_allowed_may_be_refused(count: int, max_bad: int) -> None:
    assert check_refused(count, max_bad, FIRST[:count]) is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("count", "max_bad", "allowed"),
    [(1, 0, "none is allowed"), (2, 1, "only one is allowed"), (5, 4, "only 4 are allowed")],
)
def test_more_are_refused_with_the_first_of_them(count: int, max_bad: int, allowed: str) -> None:
    with pytest.raises(RowsRefused, match=rf"^in\.csv, row 7: cannot be scored, and {allowed}: price: is no number\. "):
        check_refused(count, max_bad, FIRST)
