"""Processes that score shards, one core each, forked from one that has loaded the bundle.

A worker whose run is gone leaves with the next batch. Knows processes, pipes and signals. Does not know what a shard
is.
"""

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self

from contract.errors import FullfunnelError, WorkerLost

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT_BYTES = 2**25  # of one array; the largest that glibc takes
Report = Callable[[int], None]
Work = Callable[[Any, Report], Any]  # one task, done; tells of rows meanwhile
Prepare = Callable[[Any], Work]  # in each worker, from what `begin` was given


class Workers:
    """`count` processes; with one, the work is done in this process. Left as a block, they are gone.

    Make them before pyarrow has threads: `prepare` runs in each of them, later.
    """

    def __init__(self, count: int, prepare: Prepare) -> None:
        self._prepare = prepare
        self._crew: list[tuple[Any, Connection]] = []
        context = multiprocessing.get_context("fork")
        for _ in range(count if count > 1 else 0):
            here, there = context.Pipe()
            ours = [here, *(connection for _, connection in self._crew)]
            process = context.Process(target=_work, args=(there, ours, prepare, os.getpid()), daemon=True)
            process.start()
            there.close()
            self._crew.append((process, here))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process, connection in self._crew:
            process.kill()
            connection.close()
        for process, _ in self._crew:
            process.join()

    def run(self, given: Any, tasks: Iterable[Any], report: Report) -> Iterator[Any]:
        """What becomes of each task, as it is done. Raises: the first error of a worker; WorkerLost."""
        if not self._crew:
            work = self._prepare(given)
            for task in tasks:
                yield work(task, report)
            return
        waiting = iter(tasks)
        busy: dict[Connection, Any] = {}
        for process, connection in self._crew:
            with suppress(ConnectionError):  # it is gone, which is told when it is listened to
                connection.send(given)
            _give(connection, process, waiting, busy)
        while busy:
            for connection in (one for one in wait(list(busy)) if isinstance(one, Connection)):
                kind, value = _heard(connection, busy[connection])
                if kind == "rows":
                    report(value)
                elif kind == "error":
                    raise value
                else:
                    _give(connection, busy.pop(connection), waiting, busy)
                    yield value


def keep_memory() -> None:
    """Have this process keep what it frees, for the next chunk; asking the system each time costs more than filling it.

    Where the C library is not glibc, nothing changes.
    """
    with suppress(OSError, AttributeError):
        c = ctypes.CDLL(None)
        c.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        c.mallopt(M_TRIM_THRESHOLD, 4 * KEPT_BYTES)


def _give(connection: Connection, process: Any, waiting: Iterator[Any], busy: dict[Connection, Any]) -> None:
    with suppress(StopIteration, ConnectionError):
        task = next(waiting)
        busy[connection] = process  # also where it is gone, which is told when it is listened to
        connection.send(task)


def _heard(connection: Connection, process: Any) -> tuple[str, Any]:
    try:
        kind, value = connection.recv()
        return str(kind), value
    except (EOFError, ConnectionError):
        process.join()
        raise WorkerLost(
            f"a worker process ended ({_why(process.exitcode)})",
            remedy="start the same command again, with fewer --workers if memory was short",
        ) from None


def _why(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _work(connection: Connection, inherited: list[Connection], prepare: Prepare, parent: int) -> None:
    """The life of a worker. It holds no end of a pipe that is the run's: each sees by that when the run is gone."""
    for other in inherited:
        other.close()
    keep_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def report(rows: int) -> None:
        if os.getppid() != parent:
            os._exit(1)
        connection.send(("rows", rows))

    with suppress(EOFError, ConnectionError):
        work: Work | None = None
        given = connection.recv()
        while True:
            task = connection.recv()
            try:
                work = work or prepare(given)
                answer = ("done", work(task, report))
            except FullfunnelError as error:
                answer = ("error", error)
            connection.send(answer)
