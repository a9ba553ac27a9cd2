"""One run at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contract.errors import JobRunning
from service.batch.lock import locked

HOLD = """
import os, sys, time
from pathlib import Path
from service.batch.lock import locked
with locked(Path(sys.argv[1]), "out"):
    if sys.argv[2] == "fork" and os.fork():
        print("held", flush=True)
        sys.stdin.read()
        os._exit(0)
    if sys.argv[2] == "fork":
        os.close(1)
        time.sleep(0.3)
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


def _holder(path: Path, how: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", HOLD, str(path), how]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    return holder


def test_a_second_run_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    with _holder(tmp_path / "lock", "alone") as holder:
        with pytest.raises(JobRunning, match="out: another run is at work"), locked(tmp_path / "lock", "out"):
            pass
        holder.kill()
        holder.wait()
        with locked(tmp_path / "lock", "out"):
            assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_workers_of_a_dead_run_are_waited_for(tmp_path: Path) -> None:
    with _holder(tmp_path / "lock", "fork") as holder:
        holder.kill()
        holder.wait()
        with locked(tmp_path / "lock", "out"):
            pass


def test_a_lock_that_was_taken_away_meanwhile_is_made_anew(tmp_path: Path) -> None:
    with locked(tmp_path / "deep" / "lock", "out"):
        (tmp_path / "deep" / "lock").unlink()
        with locked(tmp_path / "deep" / "lock", "out"):
            assert (tmp_path / "deep" / "lock").exists()
