"""Whatever system call fails or is the last one: what is visible is whole, and the job resumes to the same bytes."""

import os
import re
import shutil
import signal
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from contract.errors import FullfunnelError
from deploy.debian import NotAvailable, command
from service.batch import finish as finishing
from service.batch import shards
from service.batch.durable import Hashed
from service.batch.job import Job
from service.batch.run import run_job
from tests.service.batch.tables import toy_table, write

CHANGING = ["openat", "write", "pwrite64", "fsync", "rename", "unlinkat", "unlink", "rmdir", "mkdir", "ftruncate"]
FAULTS = {
    "signal=SIGKILL": [*CHANGING, "flock"],
    "error=EIO": [*CHANGING, "flock", "read", "pread64", "getdents64", "close", "newfstatat"],
    "error=ENOSPC": ["openat", "write", "pwrite64", "fsync", "rename", "mkdir", "ftruncate"],
}
DONE, REFUSED, UNCLEAR = 0, 1, 99
Tree = dict[str, bytes]


@pytest.fixture(scope="module")
def strace(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    try:
        found = [*command("strace"), "--quiet=attach,exit", "--follow-forks"]
    except NotAvailable as reason:
        pytest.skip(str(reason))
    log = tmp_path_factory.mktemp("strace") / "log"
    with subprocess.Popen(["sleep", "60"]) as child:
        tracer = subprocess.Popen([*found, "-o", log, "-p", str(child.pid)], stderr=subprocess.PIPE, text=True)
        may = _is_attached(tracer, child.pid)
        child.kill()
    said = tracer.communicate()[1].strip()
    if not may:
        pytest.skip(f"no process may be traced here: {said}")
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("input")
    for number in range(2):
        write(toy_table(200, number, users=50), folder / f"{number}.parquet")
    return folder


class Sweep:
    """One small job, run again and again in `root`, each time with another fault."""

    def __init__(self, strace: list[str], job: Job, root: Path) -> None:
        self._strace, self._root = strace, root
        self._name = job.output
        self._job = job
        self._log = root / "log"
        (root / "calm").mkdir()
        run_job(self._at("calm"))
        self._wanted = _tree(root / "calm")

    def wrongs(self, call: str, fault: str) -> tuple[int, list[str]]:
        """Every N-th such call failed once: how many there were, and what was wrong after which."""
        _, log = self._run("counted", call)
        shutil.rmtree(self._root / "counted")
        found = Counter(match[1] for match in re.finditer(rf"^(\d+) +{call}\(", log, re.MULTILINE))  # by thread
        wrongs = []
        for number in range(1, max(found.values(), default=0) + 1):
            wrongs += [f"{call} {number}: {wrong}" for wrong in self._wrong(call, f"{fault}:when={number}")]
            shutil.rmtree(self._root / "rough")
        return max(found.values(), default=0), wrongs

    def _wrong(self, call: str, fault: str) -> Iterator[str]:
        status, log = self._run("rough", call, "-e", f"inject={call}:{fault}")
        if "(INJECTED)" not in log and "killed by SIGKILL" not in log:
            yield "no fault was injected"
        if status not in (-signal.SIGKILL, DONE, REFUSED):
            yield f"not told clearly (status {status})"
        seen = {name: content for name, content in _tree(self._root / "rough").items() if not _is_work(name)}
        if any(self._wanted.get(name) != content for name, content in seen.items()):
            yield "something that is visible is not whole"
        if any(_is_manifest(name) for name in seen) and seen != self._wanted:
            yield "the manifest is there before the rest"
        if status == DONE and seen != self._wanted:
            yield "said to be done, and is not"
        try:
            run_job(self._at("rough"))
        except FullfunnelError as error:
            yield f"cannot be resumed: {error}"
        if (resumed := _tree(self._root / "rough")) != self._wanted:
            yield f"resumed, it differs in {sorted(set(resumed.items()) ^ set(self._wanted.items()))[:3]}"

    def _at(self, folder: str) -> Job:
        return Job(self._job.bundle, self._job.input, str(self._root / folder / self._name), keep=("row_id",))

    def _run(self, folder: str, call: str, *inject: str) -> tuple[int, str]:
        """The job in a process of its own, traced from its first step on: its status, and what strace wrote."""
        (self._root / folder).mkdir()
        child = os.fork()
        if child == 0:
            _live(self._at(folder))
        os.waitpid(child, os.WUNTRACED)
        arguments = ["-o", str(self._log), "-e", f"trace={call}", *inject, "-p", str(child)]
        with subprocess.Popen([*self._strace, *arguments], stderr=subprocess.DEVNULL) as tracer:
            assert _is_attached(tracer, child), "strace cannot attach"
            os.kill(child, signal.SIGCONT)
            _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status), self._log.read_text()


def _is_attached(tracer: "subprocess.Popen[Any]", pid: int) -> bool:
    """Wait until a process is traced, or its tracer has given up."""
    while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
        if tracer.poll() is not None:
            return False
        time.sleep(0.001)
    return True


def _live(job: Job) -> None:
    status = UNCLEAR
    try:
        os.kill(os.getpid(), signal.SIGSTOP)
        run_job(job)
        status = DONE
    except FullfunnelError:
        status = REFUSED
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _tree(root: Path) -> Tree:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def _is_work(name: str) -> bool:
    """What no reader of an output looks at: hidden files, and the job's own folder."""
    return any(part.startswith(".") or part == "_job" for part in Path(name).parts)


def _is_manifest(name: str) -> bool:
    return name.endswith(("_SUCCESS", ".success.json"))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["out.parquet", "out"])
def test_a_fault_at_any_system_call_loses_and_repeats_nothing(
    strace: list[str], toy: Path, source: Path, tmp_path: Path, name: str, fault: str
) -> None:
    sweep = Sweep(strace, Job(str(toy), str(source), name), tmp_path)
    count, wrongs = 0, []
    for call in FAULTS[fault]:
        found, wrong = sweep.wrongs(call, fault)
        count += found
        wrongs += wrong
    assert not wrongs
    assert count > 50


def test_the_sweep_finds_a_file_that_is_written_in_place(
    strace: list[str], toy: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def in_place(path: Path, mark: str = "") -> Iterator[Hashed]:
        file: BinaryIO
        with open(path, "wb", buffering=0) as file:
            yield Hashed(file)

    monkeypatch.setattr(shards, "durable", in_place)
    monkeypatch.setattr(finishing, "durable", in_place)
    sweep = Sweep(strace, Job(str(toy), str(source), "out"), tmp_path)
    _, wrongs = sweep.wrongs("write", "signal=SIGKILL")
    assert any("not whole" in wrong for wrong in wrongs)
