"""One job in a process of its own: `python -m service.batch.jobs.work`, started by the runner and dying with it.

It says how far it is as lines of JSON. Its memory is bounded by the kernel, it gives way to others, and it reads and
writes below the allowed folders only. Knows processes and jobs. Does not know who has asked.
"""

import ctypes
import hashlib
import json
import os
import re
import resource
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from contract.errors import FullfunnelError, JobChanged, PlaceForbidden, WorkerLost
from service.batch import confined
from service.batch.jobs.records import Entry, Records

PR_SET_PDEATHSIG = 1
NICENESS = 10
REPORT_S = 0.2
TERMINATED = 143
ALL_COLUMNS = "all"


def main() -> int:
    """Do what the arguments say: the exit status."""
    order = json.loads(sys.argv[1])
    _die_with(order["parent"])
    os.nice(NICENESS)
    if order["memory_bytes"]:
        resource.setrlimit(resource.RLIMIT_AS, (order["memory_bytes"],) * 2)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        _run(Records(Path(order["folder"])).entry(order["id"]), order["roots"], order["workers"])
        return 0
    except FullfunnelError as error:
        _say(error=_told(error))
    except Exception as error:
        if not _is_of_memory(error):
            raise
        _say(error=_told(out_of_memory()))
    return 1


def out_of_memory() -> WorkerLost:
    """The error of a job that needs more than it may have."""
    return WorkerLost(
        "the job needs more memory than jobs may have",
        remedy="let job_memory_bytes be raised, or use smaller row groups",
    )


def _run(entry: Entry, roots: list[str], workers: int) -> None:
    from service.batch.job import ALL, Job
    from service.batch.output import Output
    from service.batch.run import Watch, run_job

    _check_bundle(entry)
    confined.confine(roots)
    if "://" not in entry.source:
        _check_source(roots, entry.source)
    folder, _, name = entry.target.rpartition("/")
    os.fchdir(confined.beneath(roots, folder, confined.FOLDER, make=True))  # whatever becomes of its name
    asked = entry.asked
    keep = (ALL,) if asked["keep"] == ALL_COLUMNS else tuple(asked["keep"])
    job = Job(entry.bundle, entry.source, name, keep, asked["input_format"], asked["format"], asked["max_bad"])
    output = Output.of(job, "parquet")
    for path in (output.target, output.work, output.journal, output.lock, output.success):
        if confined.is_link(str(path)):
            raise PlaceForbidden("is a link", place=str(path), remedy="choose another output")
    progress = _Progress()
    run = partial(run_job, job, workers=workers, watch=Watch(progress.begin, progress.rows))
    try:
        result = run()
    except SystemExit:
        if not output.success.exists():
            raise
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it came too late
        result = run()  # finds that it is finished
    _say(done={"rows": result.rows, "refused": result.refused})


class _Progress:
    """Says now and then how far it is."""

    def __init__(self) -> None:
        self._rows, self._due = 0, 0.0

    def begin(self, rows: int, done: int) -> None:
        _say(begin={"rows": rows, "done": done})

    def rows(self, count: int) -> None:
        self._rows += count
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + REPORT_S
            _say(rows=self._rows)
            self._rows = 0


def _check_bundle(entry: Entry) -> None:
    """Raises: JobChanged."""
    try:
        found = hashlib.sha256((Path(entry.bundle) / "manifest.json").read_bytes()).hexdigest()
    except OSError:
        found = ""
    if found != entry.model["digest"]:
        raise JobChanged(
            "the bundle that the job was asked of is no longer where it was", place="bundle", remedy="start a new job"
        )


def _check_source(roots: list[str], source: str) -> None:
    """What stands before any `*` leads through no link; what is missing is told later. Raises: PlaceForbidden."""
    fixed = re.split(r"[*?\[]", source)[0]
    fixed = source if fixed == source else fixed.rpartition("/")[0]
    try:
        os.close(confined.beneath(roots, fixed, os.O_RDONLY | os.O_NONBLOCK))
    except OSError:
        return


def _told(error: FullfunnelError) -> dict[str, str]:
    """An error as plain data, named for the fact."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(error).__name__).lower()
    return {"type": name, "place": error.place[:400], "detail": error.fact[:1000], "remedy": error.remedy[:400]}


def _is_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "bad_alloc" in str(error) or "llocat" in str(error)


def _say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _die_with(parent: int) -> None:
    """Have the kernel end this process when the one that started it ends, however it does."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def _terminated(*_: Any) -> None:
    raise SystemExit(TERMINATED)


if __name__ == "__main__":
    sys.exit(main())
