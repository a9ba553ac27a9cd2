"""Worker processes under one supervisor: started, watched, started again, and drained.

Each worker has a listening socket of its own on the same port (SO_REUSEPORT). The sockets are the supervisor's: what
connects while a worker is being replaced waits in its queue and is not refused. Workers are forked, so what was loaded
before is in memory once for all of them.

Knows processes, signals and pipes. Does not know what a worker does, nor HTTP.
"""

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

BEAT_S = 1.0
MAX_DELAY_S = 30.0
READY, ALIVE = b"r", b"."
FAILED, CRASHED = 1, 70  # exit statuses: it has said why it cannot serve; it does not know what happened

log = logging.getLogger("fullfunnel")


class Pulse:
    """A worker's line to its supervisor. `life` can be read from, and is at its end, once the supervisor is gone."""

    def __init__(self, beats: int, life: int) -> None:
        self._beats, self.life, self._due = beats, life, 0.0

    def beat(self, ready: bool) -> None:
        """To be called often; tells the supervisor once a second."""
        if (now := time.monotonic()) >= self._due:
            self._due = now + BEAT_S
            os.write(self._beats, READY if ready else ALIVE)


class Lines(Protocol):
    """What speaks with the workers."""

    def open(self, number: int) -> int:
        """A worker is about to be started; what can be read from when it says something."""

    def heard(self, number: int) -> None:
        """It has said something."""

    def gone(self, number: int) -> None:
        """It has ended."""

    def reload(self) -> None:
        """SIGHUP has come."""


Work = Callable[[int, socket.socket, Pulse], int]  # number of the worker, its listener; answers an exit status


@dataclass
class Worker:
    """A process, the pipe it beats on, and when it was started and last heard of."""

    number: int
    pid: int
    beats: int
    started: float
    heard: float
    line: int


class Supervisor:
    """Keeps one process at `work` for each listener.

    A worker that is not heard of for `silence_s` is taken for dead; after a signal they get `patience_s` to leave.
    `on_gone` is told the number of a worker that has gone; `lines` lead to the workers. The
    listeners are closed here at the first signal.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        work: Work,
        on_gone: Callable[[int], None],
        lines: Lines,
        *,
        silence_s: float,
        patience_s: float,
    ) -> None:
        self._listeners, self._work, self._on_gone, self._lines = listeners, work, on_gone, lines
        self._silence_s, self._patience_s = silence_s, patience_s
        self._workers: dict[int, Worker] = {}  # by pid
        self._due = dict.fromkeys(range(len(listeners)), 0.0)  # when to start the worker of a number
        self._delays = dict.fromkeys(range(len(listeners)), 0.0)
        self._ever_ready = False
        self._kill_at = float("inf")
        self._status = 0

    def run(self) -> int:
        """Work until a signal, or until a worker fails before any was ready: the exit status."""
        with ExitStack() as stack:
            self._selector = stack.enter_context(selectors.DefaultSelector())
            self._life, self._hold = _pipe(stack)
            wake, waker = _pipe(stack)
            stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(waker, warn_on_full_buffer=False))
            self._selector.register(wake, selectors.EVENT_READ)
            handlers = {signal.SIGTERM: self._stop, signal.SIGINT: self._stop, signal.SIGCHLD: _ignore}
            for sig, handler in {**handlers, signal.SIGHUP: self._reload}.items():
                stack.callback(signal.signal, sig, signal.signal(sig, handler))
            stack.callback(self._kill)
            while self._workers or self._due:
                self._start_due()
                self._listen()
                self._reap()
                self._end_silent()
        return self._status

    def _stop(self, sig: int, frame: FrameType | None = None) -> None:
        """A signal to leave: every worker gets it, and none is started any more."""
        self._kill_at = min(self._kill_at, time.monotonic() + self._patience_s)
        self._due.clear()
        for pid in self._workers:
            with suppress(ProcessLookupError):  # it has just been waited for
                os.kill(pid, sig)
        for listener in self._listeners:  # each worker has its own copy
            listener.close()

    def _reload(self, sig: int, frame: FrameType | None) -> None:
        self._lines.reload()

    def _start_due(self) -> None:
        for number in [number for number, due in self._due.items() if due <= time.monotonic()]:
            self._due.pop(number, None)
            self._start(number)

    def _start(self, number: int) -> None:
        # a signal must not find the new process with the supervisor's handlers, or the supervisor not knowing of it
        signals = (signal.SIGTERM, signal.SIGINT)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        if self._kill_at < float("inf"):  # one has come since this was due
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return
        line = self._lines.open(number)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = CRASHED
            try:
                signal.set_wakeup_fd(-1)
                for sig in (*signals, signal.SIGCHLD):
                    signal.signal(sig, signal.SIG_DFL)
                signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the supervisor's too
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                os.setpgid(0, 0)  # ctrl-C is the supervisor's, who passes it on
                os.close(self._hold)
                os.close(reading)
                for other in self._listeners:
                    if other is not self._listeners[number]:
                        other.close()
                status = self._work(number, self._listeners[number], Pulse(writing, self._life))
            except BaseException:
                log.exception("worker %d has crashed", number)
            finally:
                logging.shutdown()
                os._exit(status)
        os.close(writing)
        now = time.monotonic()
        self._workers[pid] = Worker(number, pid, reading, now, now, line)
        self._selector.register(reading, selectors.EVENT_READ, self._workers[pid])
        self._selector.register(line, selectors.EVENT_READ, number)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _listen(self) -> None:
        """Wait for beats and signals, for a second or until a worker is to be started."""
        wait = min([BEAT_S, *(due - time.monotonic() for due in self._due.values())])
        for key, _ in self._selector.select(max(0.0, wait)):
            if isinstance(key.data, int):
                self._lines.heard(key.data)
                continue
            said = os.read(key.fd, 4096)
            if isinstance(key.data, Worker):
                key.data.heard = time.monotonic()
                self._ever_ready |= READY in said
                if not said:
                    self._selector.unregister(key.fd)

    def _reap(self) -> None:
        for worker in list(self._workers.values()):
            pid, code = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                self._bury(worker, os.waitstatus_to_exitcode(code))

    def _bury(self, worker: Worker, status: int) -> None:
        """Forget a worker that has gone; unless all are to go, start another in its place."""
        del self._workers[worker.pid]
        with suppress(KeyError):
            self._selector.unregister(worker.beats)
        os.close(worker.beats)
        self._selector.unregister(worker.line)
        self._lines.gone(worker.number)
        self._on_gone(worker.number)
        if self._kill_at < float("inf"):
            return
        if status == FAILED and not self._ever_ready:
            self._status = FAILED
            self._stop(signal.SIGTERM)
            return
        lived = time.monotonic() - worker.started
        delay = 0.0 if lived > MAX_DELAY_S else min(MAX_DELAY_S, max(0.1, 2 * self._delays[worker.number]))
        self._delays[worker.number] = delay
        self._due[worker.number] = time.monotonic() + delay
        log.error("worker %d is gone (status %d) and is started again in %.1f s", worker.number, status, delay)

    def _end_silent(self) -> None:
        now = time.monotonic()
        for worker in self._workers.values():
            if now - worker.heard > self._silence_s or now > self._kill_at:
                log.error("worker %d does not answer and is ended", worker.number)
                os.kill(worker.pid, signal.SIGKILL)

    def _kill(self) -> None:
        for worker in self._workers.values():
            os.kill(worker.pid, signal.SIGKILL)
            os.waitpid(worker.pid, 0)


def _pipe(stack: ExitStack) -> tuple[int, int]:
    reading, writing = os.pipe()
    for descriptor in (reading, writing):
        os.set_blocking(descriptor, False)
        stack.callback(os.close, descriptor)
    return reading, writing


def _ignore(sig: int, frame: FrameType | None) -> None:
    """A signal that only has to wake the selector."""
