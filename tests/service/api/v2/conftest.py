"""A running service with both transports, and Triton's own clients."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc
import tritonclient.http

from tests.service.process import ServiceProcess


@pytest.fixture(scope="module")
def service(toy: Path) -> Iterator[ServiceProcess]:
    with ServiceProcess(toy, "--grpc-port", "0") as running:
        yield running


@pytest.fixture(scope="module")
def http(service: ServiceProcess) -> Iterator[Any]:
    with tritonclient.http.InferenceServerClient(f"127.0.0.1:{service.port}") as client:
        yield client


@pytest.fixture(scope="module")
def grpc(service: ServiceProcess) -> Iterator[Any]:
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{service.grpc_port}") as client:
        yield client
