"""Plans: which columns, which shards, and what makes a job another one."""

import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import ColumnMissing, ColumnTypeInvalid, DataInvalid, MixedTypes, SettingInvalid, SourceMissing
from service.batch import plan as planning
from service.batch.formats import FORMATS
from service.batch.formats.codec import Survey
from service.batch.job import ALL, File, Job, Plan
from service.batch.plan import check_writable, chosen_columns, features_of, plan_of
from tests.service.batch.tables import ITEM, SCHEMA, USER, toy_table, write
from tests.service.toy_bundle import toy_manifest

MANIFEST = toy_manifest()
SCORES = ["pctr", "pcvr", "pctcvr"]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    for name in ("2", "10"):
        write(toy_table(20, int(name)), tmp_path / f"in/{name}.parquet")
    return Job("bundle", str(tmp_path / "in"), str(tmp_path / "out"))


def _plan(job: Job, digest: str = "digest") -> Plan:
    return plan_of(job, MANIFEST, digest)


# ---------------------------------------------------------------- what the job is


def _touch(job: Job) -> Job:
    os.utime(f"{job.input}/2.parquet", ns=(5, 5))
    return job


def _rewrite(job: Job) -> Job:
    """Other content of the same size and time."""
    path = Path(job.input) / "2.parquet"
    before, content = path.stat(), bytearray(path.read_bytes())
    content[content.rindex(b"parquet-cpp")] ^= 1  # in the footer: who wrote it
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return job


def _add(job: Job) -> Job:
    write(toy_table(1), Path(job.input) / "3.parquet")
    return job


def _remove(job: Job) -> Job:
    (Path(job.input) / "10.parquet").unlink()
    return job


def _rename(job: Job) -> Job:
    (Path(job.input) / "10.parquet").rename(Path(job.input) / "11.parquet")
    return job


CHANGES: dict[str, tuple[Callable[[Job], Job], str]] = {
    "time": (_touch, "files"),
    "content": (_rewrite, "files"),
    "a file more": (_add, "files"),
    "a file less": (_remove, "files"),
    "a name": (_rename, "files"),
    "keep": (lambda job: replace(job, keep=("row_id",)), "options"),
    "format": (lambda job: replace(job, output_format="csv"), "options"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_job_is_another_when_its_input_or_its_options_change(job: Job, change: str) -> None:
    before = _plan(job).identity
    changed, where = CHANGES[change]
    after = _plan(changed(job)).identity
    assert [name for name in before if before[name] != after[name]] == [where]


def test_the_order_of_kept_columns_is_an_option(job: Job) -> None:
    kept = [_plan(replace(job, keep=keep)).identity for keep in (("row_id", "city"), ("city", "row_id"))]
    assert kept[0] != kept[1]


def test_a_job_is_another_with_another_bundle_or_library(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _plan(job).identity
    assert _plan(job, "other").identity == {**before, "bundle": "other"}
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0" if name == "pyarrow" else version(name))
    assert _plan(job).identity == {**before, "versions": {**before["versions"], "pyarrow": "0"}}


SAME: dict[str, Callable[[Job], Job]] = {
    "nothing": lambda job: job,
    "how many rows may be bad": lambda job: replace(job, max_bad=9),
    "where the bundle lies": lambda job: replace(job, bundle="elsewhere"),
    "where the output lies": lambda job: replace(job, output=f"{job.output}2"),
    "a slash": lambda job: replace(job, input=f"{job.input}/"),
    "a glob of the same files": lambda job: replace(job, input=f"{job.input}/*.parquet"),
    "formats that are told anyway": lambda job: replace(job, input_format="parquet", output_format="parquet"),
    "names instead of all": lambda job: replace(job, keep=tuple(SCHEMA.names)),
    "names twice": lambda job: replace(job, keep=(*SCHEMA.names, "city")),
}


@pytest.mark.parametrize("change", SAME)
def test_a_job_stays_the_same_whatever_else_changes(job: Job, change: str) -> None:
    job = replace(job, keep=(ALL,))
    before, after = _plan(job), _plan(SAME[change](job))
    assert after.identity == before.identity
    assert (after.shards, after.schema, after.wanted) == (before.shards, before.schema, before.wanted)


# ---------------------------------------------------------------- shards


@pytest.mark.parametrize(
    ("groups", "shards"),
    [
        ([[4, 4, 4]], [(0, 0, 0, 8), (0, 8, 0, 4)]),
        ([[5, 5]], [(0, 0, 0, 10)]),
        ([[5, 6]], [(0, 0, 0, 5), (0, 5, 0, 6)]),
        ([[19]], [(0, 0, 0, 19)]),
        ([[20]], [(0, 0, 0, 10), (0, 10, 10, 10)]),
        ([[4, 25, 3]], [(0, 0, 0, 4), (0, 4, 0, 10), (0, 14, 10, 10), (0, 24, 20, 5), (0, 29, 0, 3)]),
        ([[25, 25]], [(0, 0, 0, 10), (0, 10, 10, 10), (0, 20, 20, 5), (0, 25, 0, 10), (0, 35, 10, 10), (0, 45, 20, 5)]),
        ([[3], [3]], [(0, 0, 0, 3), (1, 0, 0, 3)]),
        ([[3], [], [0], [2]], [(0, 0, 0, 3), (3, 0, 0, 2)]),
        ([[], [0]], [(0, 0, 0, 0)]),
    ],
    ids=str,
)
def test_blocks_are_put_together_and_large_ones_cut_so_that_each_row_is_in_one_shard(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: list[list[int]], shards: list[tuple[int, ...]]
) -> None:
    monkeypatch.setattr(planning, "BLOCK_ROWS", 10)
    (tmp_path / "groups").mkdir()
    for number, sizes in enumerate(groups):
        with pq.ParquetWriter(tmp_path / f"groups/{number}.parquet", SCHEMA) as writer:
            for rows in sizes:
                writer.write_table(toy_table(rows))
    plan = _plan(replace(job, input=str(tmp_path / "groups")))
    assert [(int(Path(s.file.path).stem), s.first_row, s.skip, s.rows) for s in plan.shards] == shards
    assert [shard.index for shard in plan.shards] == list(range(len(shards)))
    assert plan.rows == sum(map(sum, groups))


# ---------------------------------------------------------------- columns


def test_what_is_read_is_each_column_once_and_none_that_folders_give(job: Job, tmp_path: Path) -> None:
    write(toy_table(5).drop_columns(["city"]), tmp_path / "parts/city=Berlin/day=3/a.parquet")
    plan = _plan(replace(job, input=str(tmp_path / "parts"), keep=("day", "age", "click")))
    names = [name for name in (*USER, *ITEM) if name != "city"]
    assert plan.wanted.columns == (*names, "click", "conversion")
    assert (plan.keep, plan.labels) == (("day", "age", "click"), ("click", "conversion"))


def test_features_are_wanted_with_their_types() -> None:
    wanted = features_of(MANIFEST)
    assert wanted.columns == (*USER, *ITEM)
    assert (wanted.dtypes["city"], wanted.dtypes["age"], wanted.dtypes["tags"]) == ("string", "float32", "int64")
    assert wanted.lists == {"recent_items", "recent_actions", "tags"}


def test_labels_that_are_not_there_are_not_read(job: Job, tmp_path: Path) -> None:
    write(toy_table(5).drop_columns(["click", "conversion"]), tmp_path / "x.parquet")
    plan = _plan(replace(job, input=str(tmp_path / "x.parquet")))
    assert (plan.labels, set(plan.wanted.columns)) == ((), {*USER, *ITEM})


def _survey(*columns: tuple[str, pa.DataType]) -> Survey:
    """A file that has the features and these columns."""
    fields = [pa.field(name, kind) for name, kind in columns]
    return Survey(pa.schema([*(SCHEMA.field(name) for name in (*USER, *ITEM)), *fields]), ())


def _file(name: str, **partitions: str | None) -> File:
    return File(name, 0, "", partitions)


def test_what_is_written_is_what_is_kept_with_plain_types_and_then_the_scores() -> None:
    survey = _survey(("word", pa.dictionary(pa.int8(), pa.large_string())), ("when", pa.date32()))
    chosen = chosen_columns(("when", "city", "word", "when"), MANIFEST, [_file("a")], [survey])
    assert chosen.keep == ("when", "city", "word")
    kept = [("when", pa.date32()), ("city", pa.string()), ("word", pa.large_string())]
    assert chosen.written == pa.schema([*kept, *((name, pa.float32()) for name in SCORES)])


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-20", "0"], pa.int64()),
        (["1", None], pa.int64()),
        (["1", "007"], pa.string()),
        (["-0"], pa.string()),
        (["+1"], pa.string()),
        (["--5"], pa.string()),
        (["\u00b2"], pa.string()),
        (["9" * 18], pa.int64()),
        (["9" * 19], pa.string()),
        (["1", "x"], pa.string()),
        (["1.5"], pa.string()),
        ([""], pa.string()),
        (["-"], pa.string()),
        ([None], pa.string()),
    ],
    ids=str,
)
def test_folders_are_whole_numbers_if_all_of_them_are_and_are_written_as_such(
    values: list[str | None], kind: pa.DataType
) -> None:
    files = [_file(str(number), day=value) for number, value in enumerate(values)]
    chosen = chosen_columns(("day",), MANIFEST, files, [_survey()] * len(files))
    assert chosen.found.field("day").type == chosen.written.field("day").type == kind


@pytest.mark.parametrize(
    ("name", "values", "fact"),
    [
        ("price", ["1", "", "x"], r"^1, column 'price': holds what folders are called \('1', '', 'x'\), not numbers"),
        ("tags", ["1"], r"^1, column 'tags': holds what a folder is called, not lists"),
    ],
)
def test_folders_of_features_must_be_what_the_feature_takes(name: str, values: list[str], fact: str) -> None:
    files = [_file(value, **{name: value}) for value in values]
    survey = Survey(_survey().schema.remove(_survey().schema.get_field_index(name)), ())
    with pytest.raises(ColumnTypeInvalid, match=fact):
        chosen_columns((), MANIFEST, files, [survey] * len(files))


def test_a_column_in_the_file_goes_before_a_folder_of_its_name() -> None:
    chosen = chosen_columns((ALL,), MANIFEST, [_file("a", day="1", city="x")], [_survey(("day", pa.date32()))])
    assert chosen.found.names == [*USER, *ITEM, "day"]
    assert chosen.found.field("day").type == pa.date32()


def test_kept_columns_may_be_dictionaries_in_one_file_and_plain_in_another_and_others_of_any_type() -> None:
    one = _survey(("word", pa.string()), ("other", pa.string()))
    two = _survey(("word", pa.dictionary(pa.int32(), pa.string())), ("other", pa.int64()))
    files = [_file("a"), _file("b")]
    assert chosen_columns(("word",), MANIFEST, files, [one, two]).keep == ("word",)
    with pytest.raises(MixedTypes, match=r"^b, column 'other': holds int64 where a holds string"):
        chosen_columns(("word", "other"), MANIFEST, files, [one, two])


def test_a_kept_column_that_is_a_feature_too_is_of_one_type_in_all_files() -> None:
    whole, surveys = pa.field("price", pa.int64()), [_survey(), _survey()]
    schema = surveys[0].schema
    surveys[1] = replace(surveys[1], schema=schema.set(schema.get_field_index("price"), whole))
    files = [_file("a"), _file("b")]
    assert chosen_columns(("city",), MANIFEST, files, surveys).keep == ("city",)
    with pytest.raises(MixedTypes, match=r"^b, column 'price': holds int64 where a holds double"):
        chosen_columns(("price",), MANIFEST, files, surveys)


BYTES, NANOSECONDS = pa.binary(), pa.timestamp("ns")


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        (pa.string_view(), {"csv"}),
        (pa.month_day_nano_interval(), {"csv", "parquet"}),
        *((kind, {"csv", "ndjson"}) for kind in (BYTES, pa.large_binary(), pa.binary(2), pa.list_(BYTES))),
        *((kind, {"csv", "ndjson"}) for kind in (pa.list_(NANOSECONDS), pa.struct([("a", pa.duration("ns"))]))),
        *((kind, set()) for kind in (NANOSECONDS, pa.time64("ns"), pa.list_(pa.int64()), pa.decimal128(5, 2))),
    ],
    ids=lambda value: "" if isinstance(value, set) else str(value),
)
def test_a_kept_column_must_be_one_that_the_output_can_hold(kind: pa.DataType, refused: set[str]) -> None:
    chosen = chosen_columns(("x",), MANIFEST, [_file("a")], [_survey(("x", kind))])
    found = set()
    for written in FORMATS:
        try:
            check_writable(chosen, written, "a")
        except ColumnTypeInvalid as error:
            assert (error.place, error.remedy[:14]) == ("a, column 'x'", "do not keep it")
            found.add(written.name)
    assert found == refused


MANY = Survey(pa.schema([("row_id", pa.int64())]), ())
REFUSED: list[tuple[tuple[str, ...], Survey, type[DataInvalid], str]] = [
    (("citty",), _survey(), ColumnMissing, r"^b: no column 'citty' to keep \(did you mean 'city'\?\)"),
    (("qqqq",), _survey(), ColumnMissing, r"^b: no column 'qqqq' to keep\."),
    ((), MANY, ColumnMissing, r"^b: no column 'user_id', 'city', 'age', 'recent_items', 'recent_actions'[. ]"),
    ((), _survey(("x", pa.int8()), ("x", pa.int8())), DataInvalid, "^b: two columns are called 'x'"),
]


@pytest.mark.parametrize(("keep", "survey", "error", "fact"), REFUSED, ids=[fact for *_, fact in REFUSED])
def test_columns_that_do_not_fit_are_named(keep: Any, survey: Survey, error: type[Exception], fact: str) -> None:
    with pytest.raises(error, match=fact):
        chosen_columns(keep, MANIFEST, [_file("b")], [survey])


def test_a_column_that_is_called_like_a_score_may_be_there_if_it_is_not_kept() -> None:
    chosen = chosen_columns(("city",), MANIFEST, [_file("a")], [_survey(("pctr", pa.int8()))])
    assert chosen.written.names == ["city", *SCORES]


def test_every_file_is_looked_at(job: Job) -> None:
    write(toy_table(3).drop_columns(["price"]), Path(job.input) / "10.parquet")
    with pytest.raises(ColumnMissing, match=r"10\.parquet: no column 'price'"):
        _plan(job)
    write(toy_table(3).set_column(3, "age", pa.array(["x"] * 3)), Path(job.input) / "10.parquet")
    with pytest.raises(ColumnTypeInvalid, match=r"10\.parquet, column 'age'"):
        _plan(job)
    with pytest.raises(SourceMissing):
        _plan(replace(job, input=f"{job.input}/absent"))


# ---------------------------------------------------------------- input and output


@pytest.mark.parametrize("output", ["in", "in/2.parquet", "."])
def test_an_output_may_not_hold_the_input(job: Job, tmp_path: Path, output: str) -> None:
    with pytest.raises(SettingInvalid, match=r"in/2\.parquet: the output holds a file of the input"):
        _plan(replace(job, output=f"{tmp_path}/{output}"))


@pytest.mark.parametrize("output", ["in/2.parquet.csv", "in/out", "in/day=1/out"])
def test_an_output_inside_the_input_would_be_read_by_the_next_run(job: Job, tmp_path: Path, output: str) -> None:
    with pytest.raises(SettingInvalid, match=rf"{output}: the output would be a part of the input"):
        _plan(replace(job, output=f"{tmp_path}/{output}"))


@pytest.mark.parametrize("output", ["i", "in2", "in/_scores", "in/.scores/out"])
def test_an_output_that_is_not_read_as_input_is_another_place(job: Job, output: str) -> None:
    assert _plan(replace(job, output=f"{Path(job.input).parent}/{output}")).rows == 40
