"""The process of a job ends with the one that started it, also when nobody reads what it says."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from service.batch.jobs.records import Entry, Records, new_id
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


def test_a_job_dies_with_its_runner(toy: Path, scorer: Scorer, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(40):
        write(toy_table(4000, seed=number), root / "in" / f"part-{number}.parquet")
    records = Records(tmp_path / "jobs")
    records.prepare()
    asked: dict[str, object] = {"keep": [], "input_format": None, "format": None, "max_bad": 0}
    entry = Entry(new_id(None), 0.0, str(toy), {"digest": scorer.digest}, f"{root}/in", f"{root}/out", asked)
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


def _runs(pid: int) -> bool:
    """Whether it is there, and more than the memory of it."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False
