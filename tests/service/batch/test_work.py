"""The process of a job ends with the one that started it, and when it is told to, unless it has finished."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.batch import confined, run
from service.batch.job import Job
from service.batch.jobs import work
from service.batch.jobs.records import Entry, Records, new_id
from service.batch.run import Result
from service.batch.shards import ShardScorer
from service.scoring.scorer import Scorer
from tests.service.batch.tables import toy_table, write
from tests.service.process import until

STARTER = """
import json, os, subprocess, sys
order = json.loads(sys.argv[1]) | {"parent": os.getpid()}
command = [sys.executable, "-m", "service.batch.jobs.work", json.dumps(order)]
child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
child.wait()
"""


def entry_of(toy: Path, scorer: Scorer, root: Path) -> Entry:
    asked: dict[str, object] = {"keep": [], "input_format": None, "format": None, "max_bad": 0}
    return Entry(new_id(None), 0.0, str(toy), {"digest": scorer.digest}, f"{root}/in", f"{root}/out", asked)


def test_a_job_dies_with_its_runner(toy: Path, scorer: Scorer, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(40):
        write(toy_table(4000, seed=number), root / "in" / f"part-{number}.parquet")
    records = Records(tmp_path / "jobs")
    records.prepare()
    entry = entry_of(toy, scorer, root)
    records.add(entry)
    order = {"folder": str(records.folder), "id": entry.id, "roots": [str(root)], "memory_bytes": 0, "workers": 1}
    command = [sys.executable, "-c", STARTER, json.dumps(order)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        child = int(runner.stdout.readline())
        until(lambda: len(list((root / "out").glob("part-*"))) > 1)
        os.kill(runner.pid, signal.SIGKILL)
    until(lambda: not _runs(child))
    assert not (root / "out" / "_SUCCESS").exists()


def test_told_to_end_it_does_unless_it_has_finished(
    toy: Path, scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    write(toy_table(100, seed=0), root / "in" / "part-0.parquet")
    monkeypatch.setattr(confined, "confine", lambda roots: None)  # which could not be taken back
    monkeypatch.chdir(tmp_path)
    before, run_job, writes = signal.getsignal(signal.SIGTERM), run.run_job, ShardScorer.write

    def told_too_late(job: Job, **options: Any) -> Result:
        result = run_job(job, **options)
        if not result.was_done:
            raise SystemExit(work.TERMINATED)
        return result

    def told(*_: Any) -> None:
        raise SystemExit(work.TERMINATED)

    entry = entry_of(toy, scorer, root)
    try:
        monkeypatch.setattr(ShardScorer, "write", told)
        with pytest.raises(SystemExit):
            work._run(entry, [str(root)], 1)
        assert '{"done"' not in capsys.readouterr().out
        monkeypatch.setattr(ShardScorer, "write", writes)
        monkeypatch.setattr(run, "run_job", told_too_late)
        work._run(entry, [str(root)], 1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"done": {"rows": 100, "refused": 0}}


def _runs(pid: int) -> bool:
    """Whether it is there, and more than the memory of it."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False
