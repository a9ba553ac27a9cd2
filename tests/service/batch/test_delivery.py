"""An output that is made here and sent: whatever fails on the way, the manifest is last and nothing is lost."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest

from contract.errors import SettingInvalid, TargetUnwritable
from service.batch.cluster import Cluster
from service.batch.delivery import cache_of
from service.batch.job import Job
from service.batch.run import run_job
from service.batch.shards import ShardScorer
from tests.service.batch.tables import toy_table, write


@pytest.fixture
def job(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number in range(3):
        write(toy_table(100, number), tmp_path / f"in/{number}.parquet")
    return Job(str(toy), str(tmp_path / "in"), f"file://{tmp_path}/there/out")


def files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(root.iterdir())} if root.is_dir() else {}


def test_a_delivery_that_fails_anywhere_goes_on_with_what_was_made(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(Job(job.bundle, job.input, str(tmp_path / "here")))
    wanted = files(tmp_path / "here")
    copy = pyarrow.fs.copy_files
    for failing in range(len(wanted)):
        done: list[str] = []

        def copy_some(source: str, *rest: Any, done: list[str] = done, failing: int = failing) -> None:
            if len(done) == failing:
                raise OSError("the store is gone")
            done.append(source)
            copy(source, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(pyarrow.fs, "copy_files", copy_some)
            with pytest.raises(TargetUnwritable, match="the store is gone"):
                run_job(job)
        assert "_SUCCESS" not in files(tmp_path / "there/out")
        assert len(list(cache_of(job.output).rglob("part-*"))) == 3
        again = run_job(job)
        assert again.was_done and again.sent, "what was scored is scored again"
        assert files(tmp_path / "there/out") == wanted
        assert not cache_of(job.output).exists()
        for path in (tmp_path / "there/out").iterdir():
            path.unlink()


def test_what_was_delivered_is_not_done_again_and_a_lost_cache_loses_nothing(job: Job, tmp_path: Path) -> None:
    result = run_job(job)
    assert result.sent and not result.was_done
    before = files(tmp_path / "there/out")
    assert len(before) == 5
    again = run_job(job)
    assert again.was_done and not again.sent and files(tmp_path / "there/out") == before


def test_what_was_delivered_stays_whole_until_what_takes_its_place_is_finished(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(job)
    before = files(tmp_path / "there/out")

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ShardScorer, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            run_job(job, restart=True)
    assert files(tmp_path / "there/out") == before
    (tmp_path / "there/out/notes.txt").write_bytes(b"mine")
    less = replace(job, input=f"{job.input}/0.parquet")
    run_job(less, restart=True)
    assert set(before) - set(files(tmp_path / "there/out")) == {"part-00001.parquet", "part-00002.parquet"}
    assert files(tmp_path / "there/out")["notes.txt"] == b"mine"
    assert run_job(less).was_done


def test_input_and_output_may_not_hold_each_other_and_a_cluster_writes_to_folders(job: Job) -> None:
    for output in (f"file://{job.input}/out", f"file://{Path(job.input).parent}"):
        with pytest.raises(SettingInvalid, match="hold each other"):
            run_job(Job(job.bundle, f"file://{job.input}", output))
    with pytest.raises(SettingInvalid, match="a cluster writes to a folder"):
        run_job(job, on=Cluster(None, 1))
