"""A real service process on a free port of 127.0.0.1."""

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import httpx

PATIENCE_S = 30


class ServiceProcess:
    """`python -m service BUNDLE --port 0`, up to the moment it is ready."""

    def __init__(self, bundle: Path, *arguments: str, **settings: object) -> None:
        environment = {**os.environ, **{f"FULLFUNNEL_{name.upper()}": str(value) for name, value in settings.items()}}
        command = [sys.executable, "-m", "service", str(bundle), "--port", "0", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment)
        self.log = b""
        self.port = int(self._wait_for(rb"listening on http://127\.0\.0\.1:(\d+)"))
        self._wait_for(rb"ready: (\w+)")
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()

    @property
    def grpc_port(self) -> int:
        """Where it listens for gRPC, if it was told to."""
        return int(self._wait_for(rb"listening on grpc://127\.0\.0\.1:(\d+)"))

    @property
    def admin_port(self) -> int:
        """Where it listens for operators, if it was told to."""
        return int(self._wait_for(rb"listening for operators on http://127\.0\.0\.1:(\d+)"))

    def wait_for(self, pattern: bytes) -> None:
        """Until its log holds this."""
        self._wait_for(b"(" + pattern + b")")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def peak_bytes(self) -> int:
        """Largest resident size so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024

    def _wait_for(self, pattern: bytes) -> bytes:
        assert self.process.stderr is not None
        descriptor = self.process.stderr.fileno()
        give_up = time.monotonic() + PATIENCE_S
        while (found := re.search(pattern, self.log)) is None:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, give_up - time.monotonic()))
            piece = os.read(descriptor, 65536) if ready else b""
            assert piece, f"the service did not say {pattern!r}: {self.log!r}"
            self.log += piece
        return found[1]


@contextlib.contextmanager
def raw(service: ServiceProcess) -> Iterator[socket.socket]:
    """A socket to the service."""
    with service.connect() as connection:
        yield connection


def read_to_end(connection: socket.socket) -> bytes:
    """All that comes until the other side hangs up."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            received += piece
    return received


def children(service: ServiceProcess) -> list[int]:
    """The workers of a service of several."""
    pid = service.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(condition: Callable[[], bool]) -> None:
    """Wait, but not for ever."""
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)
