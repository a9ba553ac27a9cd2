"""The load generator: `python -m benchmarks.serving.load PLAN --port N --connections C --seconds S [--rate R]`.

Requests are bytes made beforehand, each connection is kept open, and of an answer only status and Content-Length are
read. Closed loop: each connection sends its next request when the last one is answered. Open loop: requests fall due
at a fixed rate, whether or not the server keeps up, and latency counts from when a request was due. An answer that
differs from the earlier ones to the same request is kept; all that were kept are compared with the expected scores
after the clock has stopped.

Knows sockets, and the process tree of the server by its pid. Does not know which server it is.
"""

import argparse
import contextlib
import json
import re
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle, repeat
from pathlib import Path

import numpy as np

from benchmarks.records import Figures
from benchmarks.serving import processes
from benchmarks.serving.plan import Plan

MAX_DISTINCT = 64  # different answers to one request; scores of a shared run differ in the last digit
LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
CHUNK = 2**18


class LoadFailed(Exception):
    """The server does not speak as expected."""


class Connection:
    """A socket, what is still to be sent, and what has arrived of the answer."""

    def __init__(self, port: int, stack: contextlib.ExitStack) -> None:
        self.socket = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.unsent = memoryview(b"")
        self.arrived = bytearray()
        self.request, self.due, self.status, self.begins, self.ends = 0, 0.0, 0, 0, 0

    def ask(self, number: int, request: bytes, due: float) -> bool:
        """Begin to send a request that fell due; whether all of it is sent."""
        self.request, self.due, self.unsent = number, due, memoryview(request)
        return self.send()

    def send(self) -> bool:
        """Send what the socket takes; whether that is all."""
        with contextlib.suppress(BlockingIOError):
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
        return not self.unsent

    def receive(self) -> tuple[int, bytes] | None:
        """Take what is there; status and body once they are complete. Raises: LoadFailed."""
        data = self.socket.recv(CHUNK)
        if not data:
            raise LoadFailed("the server closed a connection")
        self.arrived += data
        if not self.ends:
            end = self.arrived.find(b"\r\n\r\n")
            if end < 0:
                return None
            head = bytes(self.arrived[:end])
            length = LENGTH.search(head)
            if length is None:
                raise LoadFailed(f"an answer without Content-Length: {head!r}")
            self.status, self.begins, self.ends = int(head[9:12]), end + 4, end + 4 + int(length[1])
        if len(self.arrived) < self.ends:
            return None
        body = bytes(self.arrived[self.begins :])
        self.arrived, self.ends = bytearray(), 0
        return self.status, body


@dataclass
class Outcome:
    """What a load came to: `seconds` measured, the latencies within them, all distinct answers to each request.

    `refused` were answered with another status than 200, `unanswered` not in time.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    answered: int = 0
    refused: int = 0
    unanswered: int = 0
    answers: dict[int, list[bytes]] = field(default_factory=dict)

    def note(self, request: int, body: bytes) -> None:
        """Keep an answer that is not known yet. Raises: LoadFailed."""
        known = self.answers.setdefault(request, [])
        if body not in known:
            known.append(body)
            if len(known) > MAX_DISTINCT:
                raise LoadFailed(f"more than {MAX_DISTINCT} different answers to one request")

    def count(self, status: int, latency: float) -> None:
        """An answer within the measured time."""
        if status == 200:
            self.answered += 1
            self.latencies.append(latency)
        else:
            self.refused += 1

    def wrong(self, plan: Plan) -> int:
        """How many of the distinct answers are not those expected."""
        return sum(not plan.is_right(request, body) for request, known in self.answers.items() for body in known)


def drive(
    requests: list[bytes],
    port: int,
    connections: int,
    seconds: float,
    warm_up: float = 0.0,
    rate: float | None = None,
    at_edge: Callable[[], None] = lambda: None,
) -> Outcome:
    """Put load on a server; `at_edge` is called when the measured time begins and when it ends.

    With `rate`, requests that fall due in the measured time are waited for as long again, and those that are then
    still open count with the time they have waited. Raises: LoadFailed.
    """
    with contextlib.ExitStack() as stack:
        opened = [Connection(port, stack) for _ in range(connections)]
        return _drive(opened, requests, seconds, warm_up, rate, at_edge)


def _drive(
    opened: list[Connection],
    requests: list[bytes],
    seconds: float,
    warm_up: float,
    rate: float | None,
    at_edge: Callable[[], None],
) -> Outcome:
    outcome, clock = Outcome(), time.perf_counter
    start = clock()
    begin, end = start + warm_up, start + warm_up + seconds
    deadline = end if rate is None else end + seconds
    dues = repeat(start) if rate is None else (start + i / rate for i in range(int((warm_up + seconds) * rate)))
    upcoming = next(dues, None)
    idle, requested, measuring = deque(opened), cycle(enumerate(requests)), False
    # select waits by the microsecond, epoll by the millisecond: too coarse for sending on time
    with selectors.DefaultSelector() if rate is None else selectors.SelectSelector() as selector:
        for connection in opened:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        while True:
            now = clock()
            if not measuring and now >= begin:
                at_edge()
                measuring = True
            if now >= deadline or (upcoming is None and len(idle) == len(opened)):
                break
            while idle and upcoming is not None and upcoming <= now:
                connection = idle.popleft()
                if not connection.ask(*next(requested), clock() if rate is None else upcoming):
                    selector.modify(connection.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)
                upcoming = next(dues, None)
            edge = deadline if measuring else begin
            until = min(edge, upcoming) if idle and upcoming is not None else edge
            for key, events in selector.select(max(until - clock(), 0.0)):
                connection = key.data
                if events & selectors.EVENT_WRITE and connection.send():
                    selector.modify(connection.socket, selectors.EVENT_READ, connection)
                if events & selectors.EVENT_READ and (answer := connection.receive()) is not None:
                    now = clock()
                    idle.append(connection)
                    status, body = answer
                    if status == 200:
                        outcome.note(connection.request, body)
                    if connection.due >= begin if rate is not None else begin <= now < end:
                        outcome.count(status, now - connection.due)
    now = clock()
    at_edge()
    outcome.seconds = max(now, end) - begin
    in_flight = [connection.due for connection in opened if connection not in idle]
    if rate is None:
        outcome.unanswered = 0 if outcome.answered else len(in_flight)  # otherwise they are merely under way
    else:
        never_sent = [] if upcoming is None else [upcoming, *dues]
        late = [due for due in in_flight + never_sent if due >= begin]
        outcome.latencies += [now - due for due in late]
        outcome.unanswered = len(late)
    return outcome


def measure(plan: Plan, options: argparse.Namespace) -> Figures:
    """Drive, then compare the answers. Where nothing was answered there is no latency. Raises: LoadFailed."""
    edges: list[tuple[dict[int, float], float]] = []

    def at_edge() -> None:
        edges.append((processes.cpu_seconds(options.pid) if options.pid else {}, time.process_time()))

    outcome = drive(
        plan.requests(options.port),
        options.port,
        options.connections,
        options.seconds,
        options.warm_up,
        options.rate,
        at_edge,
    )
    always = {
        "requests_per_second": outcome.answered / outcome.seconds,
        "memory_mib": processes.memory_mib(options.pid) if options.pid else 0.0,
        "refused": float(outcome.refused),
        "unanswered": float(outcome.unanswered),
        "wrong": float(outcome.wrong(plan)),
    }
    if not outcome.answered:
        return always
    (before, own_before), (after, own_after) = edges
    per_thousand = 1e3 / outcome.answered
    p50, p99 = np.percentile(outcome.latencies, (50, 99)) * 1e3
    return {
        **always,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "cpu_s_per_1000": processes.spent(before, after) * per_thousand,
        "generator_cpu_s_per_1000": (own_after - own_before) * per_thousand,
    }


def main(argv: list[str] | None = None) -> None:
    """Parse, drive, print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.load", description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--warm-up", type=float, default=0.0)
    parser.add_argument("--rate", type=float, help="requests a second: an open loop")
    parser.add_argument("--pid", type=int, help="of the server, whose cost is measured")
    options = parser.parse_args(argv)
    try:
        print(json.dumps(measure(Plan.read(options.plan), options)))
    except (LoadFailed, OSError) as error:
        raise SystemExit(f"load: {error}") from None


if __name__ == "__main__":
    main()
