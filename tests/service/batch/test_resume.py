"""A job that is stopped goes on, and ends as if nothing had happened, to the byte."""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from contract.errors import JobChanged, JobRunning
from service.batch import plan as planning
from service.batch.job import Job
from service.batch.run import run_job
from tests.service.batch.tables import toy_table, write

KILLS = 100  # of each kind of output


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of several row groups, one of them of refused rows too."""
    folder = tmp_path_factory.mktemp("input")
    for number in range(12):
        write(toy_table(900, number, users=300), folder / f"{number}.parquet", row_group_size=300)
    return folder


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "BLOCK_ROWS", 300)


def _tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def _in_child(work: Callable[[], object]) -> int:
    """Do something in a process of its own; its number."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def _job(toy: Path, source: Path, root: Path, name: str) -> Job:
    root.mkdir(exist_ok=True)
    return Job(str(toy), str(source), str(root / name), keep=("row_id",))


@pytest.mark.parametrize("name", ["out", "out.parquet"])
def test_however_often_it_is_killed_it_ends_byte_for_byte_as_if_undisturbed(
    toy: Path, source: Path, tmp_path: Path, name: str
) -> None:
    started = time.monotonic()
    assert os.waitpid(_in_child(lambda: run_job(_job(toy, source, tmp_path / "calm", name), workers=2)), 0)[1] == 0
    takes_s = time.monotonic() - started
    rng = random.Random(name)
    rough = tmp_path / "rough"
    for kill in range(KILLS):
        child = _in_child(partial(run_job, _job(toy, source, rough, name), workers=2))
        time.sleep(rng.uniform(0, takes_s / 2))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        finished = any(path.name == "_SUCCESS" or path.name.endswith("success.json") for path in rough.glob("**/*"))
        assert finished or not (rough / "out.parquet").exists() or name == "out.parquet"
        if finished or kill == KILLS // 2:
            run_job(_job(toy, source, rough, name), workers=2)
            assert _tree(rough) == _tree(tmp_path / "calm")
            rough = tmp_path / f"rough{kill}"
    run_job(_job(toy, source, rough, name), workers=2)
    assert _tree(rough) == _tree(tmp_path / "calm")


def test_what_is_done_is_not_done_again(
    toy: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = _job(toy, source, tmp_path, "out")
    _stopped_after(job, 10, monkeypatch)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    assert len(kept) >= 10
    journal = (tmp_path / "out/_job/journal.ndjson").read_bytes().splitlines()
    assert len(journal) == 11
    run_job(job)
    done = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    assert len(done) == 36
    assert sum(done[name] == time_ns for name, time_ns in kept.items()) >= 10


def _stopped_after(job: Job, shards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from service.batch.journal import Journal
    from service.batch.shards import Done

    class Stopped(Exception):
        pass

    add = Journal.add

    def stop(self: Journal, done: Done) -> None:
        add(self, done)
        if len(self.done) == shards:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", stop)
        with pytest.raises(Stopped):
            run_job(job)


def test_a_part_that_was_lost_or_cut_is_written_again(
    toy: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(_job(toy, source, tmp_path / "calm", "out"))
    job = _job(toy, source, tmp_path / "rough", "out")
    _stopped_after(job, 8, monkeypatch)
    (tmp_path / "rough/out/part-00002.parquet").unlink()
    os.truncate(tmp_path / "rough/out/part-00003.parquet", 5)
    run_job(job)
    assert _tree(tmp_path / "rough") == _tree(tmp_path / "calm")


def test_of_two_runs_on_one_output_one_is_refused_and_the_other_finishes(
    toy: Path, source: Path, tmp_path: Path
) -> None:
    run_job(_job(toy, source, tmp_path / "calm", "out"))
    job = _job(toy, source, tmp_path / "both", "out")
    child = _in_child(lambda: run_job(job, workers=2))
    while not (tmp_path / "both/out/_job/journal.ndjson").exists():
        time.sleep(0.001)
    refused = 0
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        try:
            run_job(job)
        except JobRunning:
            refused += 1
    run_job(job)
    assert refused > 0
    assert _tree(tmp_path / "both") == _tree(tmp_path / "calm")


def test_restart_discards_what_another_job_left(
    toy: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(_job(toy, source, tmp_path / "calm", "out"))
    job = _job(toy, source, tmp_path / "rough", "out")
    _stopped_after(replace(job, keep=()), 5, monkeypatch)
    run_job(job, restart=True)
    assert _tree(tmp_path / "rough") == _tree(tmp_path / "calm")


def test_a_damaged_manifest_is_told_and_replaced_on_restart(toy: Path, source: Path, tmp_path: Path) -> None:
    job = _job(toy, source, tmp_path / "once", "out")
    run_job(job)
    before = _tree(tmp_path / "once")
    for damage in (b"", b"[]", b'{"rows": 1}'):
        (tmp_path / "once/out/_SUCCESS").write_bytes(damage)
        with pytest.raises(JobChanged, match="damaged"):
            run_job(job)
    run_job(job, restart=True)
    assert _tree(tmp_path / "once") == before
