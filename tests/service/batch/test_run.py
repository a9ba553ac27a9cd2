"""A job from beginning to end: what it tells, what it finds of earlier runs, and what it leaves when it stops."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import JobChanged, RowsRefused, SettingInvalid, SourceMissing, StorageFailed, TargetExists
from service.batch.job import ALL, Job
from service.batch.run import Watch, run_job
from tests.service.batch.tables import SCHEMA, toy_table, write

FILES, ROWS = 4, 30


class Stopped(Exception):
    pass


@pytest.fixture
def job(toy: Path, tmp_path: Path) -> Job:
    """One shard a file; a row of the first cannot be scored, which is allowed."""
    for number in range(FILES):
        rows = toy_table(ROWS, number).to_pylist()
        rows[7]["item_id"] = None if number == 0 else "i1"
        write(pa.Table.from_pylist(rows, SCHEMA), tmp_path / f"in/{number}.parquet")
    return Job(str(toy), str(tmp_path / "in"), str(tmp_path / "there/out"), keep=("row_id",), max_bad=1)


@pytest.fixture
def there(tmp_path: Path) -> Path:
    return tmp_path / "there"


def _files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def _stopped_in(job: Job, shard: int) -> None:
    """A run that is stopped while it scores a shard."""
    told = 0

    def stop(rows: int) -> None:
        nonlocal told
        told += rows
        if told > shard * ROWS:
            raise Stopped

    with pytest.raises(Stopped):
        run_job(job, watch=Watch(rows=stop))


# ---------------------------------------------------------------- what is told


@pytest.mark.parametrize("done", range(FILES))
def test_a_run_that_goes_on_tells_how_much_is_done_and_does_the_rest(job: Job, done: int) -> None:
    _stopped_in(job, done)
    begun: list[tuple[int, int]] = []
    told: list[int] = []
    result = run_job(job, watch=Watch(lambda rows, before: begun.append((rows, before)), told.append))
    assert begun == [(FILES * ROWS, done * ROWS)]
    assert sum(told) == (FILES - done) * ROWS
    assert (result.rows, result.refused, result.was_done, result.sent) == (FILES * ROWS, 1, False, False)


def test_of_a_finished_job_nothing_is_told_and_its_result_is_found(job: Job) -> None:
    first = run_job(job)
    told: list[object] = []
    again = run_job(job, watch=Watch(lambda rows, done: told.append(rows), told.append))
    assert again == replace(first, was_done=True)
    assert told == []


def test_parts_are_of_the_format_of_the_input_if_none_is_given(job: Job, there: Path) -> None:
    run_job(replace(job, keep=(ALL,), output=f"{there}/in.csv"))
    result = run_job(replace(job, input=f"{there}/in.csv", output=f"{there}/text"))
    assert result.output.format == "csv"
    assert sorted(_files(there / "text")) == ["_SUCCESS", "_summary.json", "part-00000.csv"]


# ---------------------------------------------------------------- what is left


def test_a_run_that_is_stopped_before_a_shard_is_done_leaves_nothing(job: Job, tmp_path: Path) -> None:
    _stopped_in(job, 0)
    assert os.listdir(tmp_path / "there") == []


@pytest.mark.parametrize("name", ["out", "out.parquet"])
def test_a_run_that_is_stopped_later_leaves_what_it_did_and_no_manifest(job: Job, there: Path, name: str) -> None:
    work, parts = (".out.parquet.job", ".out.parquet.job") if "." in name else ("out/_job", "out")
    _stopped_in(replace(job, output=str(there / name)), 2)
    wanted = [f"{parts}/part-00000.parquet", f"{parts}/part-00001.parquet"]
    wanted += [f"{work}/{name}" for name in ("journal.ndjson", "lock", "refused-00000.ndjson")]
    assert sorted(_files(there)) == sorted(wanted)


@pytest.mark.parametrize("lost", ["part-00000.parquet", "_job/refused-00000.ndjson"])
def test_a_shard_of_which_something_was_lost_is_done_again(job: Job, there: Path, lost: str) -> None:
    _stopped_in(job, 2)
    (there / "out" / lost).unlink()
    assert run_job(job).refused == 1
    assert len((there / "out/_refused.ndjson").read_bytes().splitlines()) == 1
    assert pq.read_table(there / "out").num_rows == FILES * ROWS - 1


@pytest.mark.parametrize("finished", [False, True])
def test_a_run_that_is_refused_leaves_what_others_did(job: Job, there: Path, finished: bool) -> None:
    _stopped_in(job, 2)
    if finished:
        run_job(job)
    before = _files(there)
    with pytest.raises(JobChanged, match="options"):
        run_job(replace(job, keep=()))
    with pytest.raises(SourceMissing):
        run_job(replace(job, input=f"{job.input}/absent"))
    assert _files(there) == before


def test_when_fewer_bad_rows_are_allowed_than_were_found_nothing_more_is_scored(job: Job, there: Path) -> None:
    _stopped_in(job, 2)
    told: list[int] = []
    with pytest.raises(RowsRefused, match=r"0\.parquet, row 7: .*none is allowed"):
        run_job(replace(job, max_bad=0), watch=Watch(rows=told.append))
    assert told == []
    assert run_job(job).refused == 1


# ---------------------------------------------------------------- what is there already


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("out", "out"),
        ("out", "out/notes.txt"),
        ("out", "out/_SUCCESS.txt"),
        ("out.parquet", "out.parquet/part-00000.parquet"),
    ],
)
def test_what_no_job_wrote_stays(job: Job, there: Path, name: str, made: str) -> None:
    (there / made).parent.mkdir(parents=True)
    (there / made).write_bytes(b"mine")
    with pytest.raises(TargetExists) as said:
        run_job(replace(job, output=str(there / name)), restart=True)
    assert said.value.place == str(there / name)
    assert _files(there) == {made: b"mine"}


def test_a_folder_in_the_place_of_a_file_is_not_written_over_even_by_its_own_job(job: Job, there: Path) -> None:
    single = replace(job, output=f"{there}/out.parquet")
    run_job(single)
    (there / "out.parquet").unlink()
    (there / "out.parquet").mkdir()
    with pytest.raises(TargetExists):
        run_job(single, restart=True)


@pytest.mark.parametrize("made", ["out", "out/_job"])
def test_a_folder_in_which_nothing_is_yet_is_taken(job: Job, there: Path, made: str) -> None:
    (there / made).mkdir(parents=True)
    run_job(job)
    assert pq.read_table(there / "out").num_rows == FILES * ROWS - 1


def test_a_restart_takes_away_what_the_job_before_wrote_and_nothing_of_others(job: Job, there: Path) -> None:
    run_job(job)
    (there / "out/notes.txt").write_bytes(b"mine")
    seen: list[str] = []
    watch = Watch(lambda rows, done: seen.extend(os.listdir(there / "out/_job")))
    run_job(replace(job, input=f"{job.input}/1.parquet"), restart=True, watch=watch)
    assert sorted(seen) == ["journal.ndjson", "lock"]
    assert sorted(_files(there / "out")) == ["_SUCCESS", "_summary.json", "notes.txt", "part-00000.parquet"]


def test_a_restart_takes_nothing_away_before_the_input_is_found_to_be_right(job: Job, there: Path) -> None:
    run_job(job)
    before = _files(there)
    with pytest.raises(SourceMissing):
        run_job(replace(job, input=f"{job.input}/absent"), restart=True)
    with pytest.raises(SettingInvalid, match="holds a file of the input"):
        run_job(replace(job, input=str(there / "out")), restart=True)
    assert _files(there) == before


def test_of_names_like_its_own_a_restart_takes_those_that_a_job_gives(job: Job, there: Path) -> None:
    run_job(job)
    mine = {"part-notes.txt", "part-1.csv", ".notes.tmp", ".part-00000.parquet", "_SUCCESS.tmp"}
    left = {".part-00001.parquet.tmp", ".part-00001.parquet.m1.tmp", "._refused.ndjson.tmp"}
    for name in (*mine, *left, "part-00009.parquet"):
        (there / "out" / name).touch()
    run_job(replace(job, input=f"{job.input}/1.parquet"), restart=True)
    assert set(_files(there / "out")) == {"_SUCCESS", "_summary.json", "part-00000.parquet", *mine}


def test_a_restart_of_a_single_file_takes_away_its_refused_rows(job: Job, there: Path) -> None:
    single = replace(job, output=f"{there}/out.parquet")
    run_job(single)
    assert "out.parquet.refused.ndjson" in _files(there)
    run_job(replace(single, input=f"{job.input}/1.parquet"), restart=True)
    assert sorted(_files(there)) == ["out.parquet", "out.parquet.success.json", "out.parquet.summary.json"]


# ---------------------------------------------------------------- what is damaged


@pytest.mark.parametrize("name", ["_SUCCESS", "_summary.json"])
@pytest.mark.parametrize("content", [b'{"rows": 1', b"\xff", b"[" * 10**5])
def test_a_finished_job_whose_files_are_no_json_is_damaged(job: Job, there: Path, name: str, content: bytes) -> None:
    run_job(job)
    (there / "out" / name).write_bytes(content)
    with pytest.raises(JobChanged, match="damaged") as said:
        run_job(job)
    assert "--restart" in said.value.remedy


@pytest.mark.parametrize("missing", ["job", "rows", "refused"])
def test_a_manifest_that_does_not_tell_all_is_damaged(job: Job, there: Path, missing: str) -> None:
    run_job(job)
    manifest = json.loads((there / "out/_SUCCESS").read_bytes())
    del manifest[missing]
    (there / "out/_SUCCESS").write_text(json.dumps(manifest))
    with pytest.raises(JobChanged, match="damaged"):
        run_job(job)


@pytest.mark.parametrize(("name", "value"), [("job", "x"), ("job", 3), ("rows", "many"), ("refused", None)])
def test_a_manifest_that_tells_something_else_is_damaged(job: Job, there: Path, name: str, value: object) -> None:
    run_job(job)
    manifest = json.loads((there / "out/_SUCCESS").read_bytes())
    (there / "out/_SUCCESS").write_text(json.dumps({**manifest, name: value}))
    with pytest.raises(JobChanged, match="damaged"):
        run_job(job)


def test_a_finished_job_without_its_summary_is_finished(job: Job, there: Path) -> None:
    run_job(job)
    (there / "out/_summary.json").unlink()
    result = run_job(job)
    assert (result.was_done, result.rows, result.refused, result.summary) == (True, FILES * ROWS, 1, {})


def test_what_the_system_refuses_is_told_with_its_place(job: Job, there: Path) -> None:
    (there / "out/_SUCCESS").mkdir(parents=True)
    with pytest.raises(StorageFailed, match="the system could not read or write a file") as said:
        run_job(job)
    assert said.value.place == f"{there}/out/_SUCCESS"


def test_where_the_system_names_no_file_the_output_is_the_place(job: Job) -> None:
    def fail(rows: int, done: int) -> None:
        raise OSError("gone")

    with pytest.raises(StorageFailed, match=r"\(gone\)") as said:
        run_job(job, watch=Watch(begin=fail))
    assert said.value.place == job.output
