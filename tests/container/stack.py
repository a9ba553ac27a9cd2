"""docker-compose.yml, running: its containers, and requests to its service."""

import http.client
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.container.engine import BUILD_S, TAG, docker, inspect, wheels

PROJECT = "fullfunnel-test"
ROWS = 40_000
DRAIN_DELAY_S = 3
PATIENCE_S = 120


class Stack:
    """One run of docker-compose.yml under a name, ports and tags of its own."""

    def __init__(self) -> None:
        self.port, self.prometheus_port = _free_port(), _free_port()
        self.environment = {
            "FULLFUNNEL_TAG": TAG,
            "FULLFUNNEL_ROWS": str(ROWS),
            "FULLFUNNEL_PORT": str(self.port),
            "FULLFUNNEL_PROMETHEUS_PORT": str(self.prometheus_port),
            "FULLFUNNEL_DRAIN_DELAY_S": str(DRAIN_DELAY_S),
        }
        if folder := wheels():
            self.environment["FULLFUNNEL_WHEELS"] = folder

    def compose(self, *arguments: str, timeout_s: float = BUILD_S) -> str:
        """`docker compose ...`: what it prints."""
        return docker(
            "compose", "-p", PROJECT, "--progress", "plain", *arguments, timeout_s=timeout_s, **self.environment
        )

    def up(self) -> None:
        """Build, train, serve."""
        self.compose("--profile", "batch", "build")
        self.compose("up", "--detach", "--wait", "--pull", "never", timeout_s=600)

    def remove(self) -> None:
        """Leave nothing."""
        self.compose("--profile", "batch", "down", "--volumes", "--remove-orphans", "--timeout", "5")
        names = docker(
            "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference=fullfunnel-*:{TAG}"
        )
        if names.split():
            docker("image", "rm", "--force", *names.split())

    def container(self, service: str) -> dict[str, Any]:
        """What the engine knows about the container of a service."""
        return inspect(self.name(service))

    def name(self, service: str) -> str:
        """The name of a service's container."""
        return f"{PROJECT}-{service}-1"

    def python(self, service: str, program: str) -> Any:
        """What a Python program prints, as JSON, inside a running container."""
        return json.loads(docker("exec", self.name(service), "python", "-c", program))

    def wait_until(self, condition: Callable[[dict[str, Any]], bool], service: str = "service") -> dict[str, Any]:
        """Until what the engine knows about a container fulfils the condition."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition(container := self.container(service)):
            assert time.monotonic() < deadline, container["State"]
            time.sleep(0.2)
        return container

    def wait_until_healthy(self, service: str) -> dict[str, Any]:
        """Until the container's own health check says so."""
        return self.wait_until(
            lambda container: (
                container["State"]["Running"] and container["State"].get("Health", {}).get("Status") == "healthy"
            ),
            service,
        )

    def query(self, expression: str) -> dict[str, float]:
        """What Prometheus knows: values by their labels, as text."""
        _, answer = self.ask("GET", f"/api/v1/query?{urlencode({'query': expression})}", port=self.prometheus_port)
        assert answer["status"] == "success", answer
        return {json.dumps(one["metric"], sort_keys=True): float(one["value"][1]) for one in answer["data"]["result"]}

    def ask(self, method: str, path: str, body: object = None, port: int | None = None) -> tuple[int, dict[str, Any]]:
        """One request to the service's published port, or another: status and answer."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=30)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def request(self) -> Any:
        """A request made of rows that the served bundle was tested on."""
        return json.loads(docker("exec", self.name("service"), "fullfunnel", "predict", "/bundles/demo", "--example"))


def kill_from_outside(container: dict[str, Any]) -> None:
    """SIGKILL for a container's first process, as the kernel would send it: `docker kill` would count as a stop."""
    process = container["State"]["Pid"]
    assert process > 1 and Path(f"/proc/{process}/cgroup").read_text().count(container["Id"]), "not of this machine"
    os.kill(process, 9)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
