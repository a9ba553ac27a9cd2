"""One run at a time on one output: a lock that dies with the processes that hold it.

Knows flock. Does not know jobs. Workers inherit the lock, so that nobody else begins before the last of them is gone.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from contract.errors import JobRunning
from service.batch.durable import unwritable

PATIENCE_S = 20.0  # for workers whose run is dead already, and who will notice


@contextmanager
def locked(path: Path, place: str) -> Iterator[None]:
    """Hold the lock while the block runs. Raises: JobRunning, TargetUnwritable."""
    descriptor = _take(path, place)
    try:
        yield
    finally:
        os.close(descriptor)


def _take(path: Path, place: str) -> int:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            continue
        except OSError as error:
            raise unwritable(path, error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                os.truncate(descriptor, 0)
                os.write(descriptor, str(os.getpid()).encode())
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            if path.exists() and (_alive(descriptor) or time.monotonic() > deadline):
                os.close(descriptor)
                raise JobRunning(
                    "another run is at work on this output", place=place, remedy="wait for it, or write elsewhere"
                ) from None
        os.close(descriptor)
        time.sleep(0.02)


def _alive(descriptor: int) -> bool:
    """Whether the run that took the lock is still there; its workers may outlive it for a moment."""
    with suppress(ValueError, OSError):
        owner = int(os.pread(descriptor, 20, 0))
        with suppress(ProcessLookupError):
            os.kill(owner, 0)
            return True
        return False
    return True
