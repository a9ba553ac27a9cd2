"""A server as a child process: started on a free port, checked until its answers are right, ended by its pid.

Knows processes and HTTP. Does not know one server from another.
"""

import http.client
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving import processes
from benchmarks.serving.plan import TOLERANCE, Plan

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 180.0


class ServerFailed(Exception):
    """A server did not start, or does not answer what it should; says why."""


@dataclass(frozen=True)
class Running:
    """Where a server listens, and the process whose tree is its cost."""

    port: int
    pid: int


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(
    command: Sequence[str], port: int, environment: Mapping[str, str], log: Path, plans: Sequence[Plan]
) -> Iterator[Running]:
    """A running server that has answered every request of `plans` rightly; ended afterwards. Raises: ServerFailed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w") as said:
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        wait(child, port, plans[0], log)
        for plan in plans:
            check(port, plan)
        yield Running(port, child.pid)
    finally:
        processes.end(child.pid)
        child.poll()


def wait(child: subprocess.Popen[bytes], port: int, plan: Plan, log: Path, patience_s: float = PATIENCE_S) -> None:
    """Ask until the answer is 200. Raises: ServerFailed."""
    deadline, last = time.monotonic() + patience_s, "no answer"
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise ServerFailed(f"ended with {child.returncode}: {_last_line(log)}")
        try:
            status, body = ask(port, plan, 0)
        except (OSError, http.client.HTTPException) as error:
            last = str(error)
        else:
            if status == 200:
                return
            last = f"{status} {body[:200]!r}"
        time.sleep(0.2)
    raise ServerFailed(f"not ready after {patience_s:.0f} s: {last}")


def check(port: int, plan: Plan) -> None:
    """Ask every request once. Raises: ServerFailed."""
    for request in range(len(plan.bodies)):
        try:
            status, body = ask(port, plan, request)
        except (OSError, http.client.HTTPException) as error:
            raise ServerFailed(f"no answer to a request of {len(plan.bodies[request])} bytes: {error}") from None
        if status != 200:
            raise ServerFailed(f"answers {status}: {body[:200]!r}")
        if not plan.is_right(request, body):
            worst = plan.difference(request, body)
            raise ServerFailed(f"scores differ by {worst:.1e}, more than {TOLERANCE:.0e}: {body[:200]!r}")


def ask(port: int, plan: Plan, request: int) -> tuple[int, bytes]:
    """Status and body of one answer, on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        body = plan.bodies[request]
        connection.request("POST", plan.path, body, plan.headers(body))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
