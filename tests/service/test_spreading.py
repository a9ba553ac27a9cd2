"""Connections spread evenly over workers."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.api.spreading import GONE, Spread
from tests.service.process import ServiceProcess, children, until


def owners(service: ServiceProcess, ports: set[int]) -> list[int]:
    """How many of the connections from these ports each worker holds, fewest first."""
    inodes = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        inodes[fields[9]] = (int(fields[1].split(":")[1], 16), int(fields[2].split(":")[1], 16))
    counts = []
    for child in children(service):
        links = [str(path.readlink()) for path in Path(f"/proc/{child}/fd").iterdir() if path.is_symlink()]
        held = [inodes.get(link.removeprefix("socket:[").removesuffix("]")) for link in links]
        counts.append(sum(pair is not None and pair[0] == service.port and pair[1] in ports for pair in held))
    return sorted(counts)


def owners_of(service: ServiceProcess, count: int) -> list[int]:
    """How many of so many connections, each of which is answered, each worker holds, fewest first."""
    head = b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 35\r\n\r\n"
    clients = [service.connect() for _ in range(count)]
    ports = {client.getsockname()[1] for client in clients}
    for client in clients:
        client.sendall(head + b'{"candidates": {"item_id": ["i1"]}}')
        assert client.recv(4096).startswith(b"HTTP/1.1 200 OK")
    found = owners(service, ports)
    for client in clients:
        client.close()
    until(lambda: owners(service, ports) == [0, 0])
    return found


def test_few_connections_are_spread_evenly_and_all_are_answered(workers: ServiceProcess) -> None:
    until(lambda: owners_of(workers, 2) == [1, 1])  # one of the two may still be starting
    assert owners_of(workers, 4) == [2, 2]
    assert owners_of(workers, 9) == [4, 5]


@pytest.fixture
def spread() -> Iterator[Spread]:
    with contextlib.closing(Spread(3)) as found:
        yield found


def test_a_connection_goes_to_the_worker_that_has_fewest(spread: Spread) -> None:
    spread.counts[0], spread.counts[1], spread.counts[2] = 2, 0, 1
    ours, client = socket.socketpair()
    with client:
        with ours:
            assert spread.pass_on(ours, number=0, have=2)
        assert list(spread.counts) == [2, 1, 1]
        assert spread.passed(0) is None and spread.passed(2) is None
        passed = spread.passed(1)
        assert passed is not None and spread.passed(1) is None
        with passed:
            client.sendall(b"hello")
            assert passed.recv(5) == b"hello"


def test_a_connection_stays_where_it_is_when_none_has_fewer_or_none_can_take_it(spread: Spread) -> None:
    assert list(spread.counts) == [GONE] * 3
    spread.counts[0] = 3
    ours, client = socket.socketpair()
    with ours, client:
        assert not spread.pass_on(ours, number=0, have=3), "the others are not there"
        spread.counts[1] = 3
        assert not spread.pass_on(ours, number=0, have=3)
        spread.counts[0], taken = 10, 0
        while spread.pass_on(ours, number=0, have=GONE - 1):
            taken += 1
        assert taken > 0, "until its door was full"
        while (passed := spread.passed(1)) is not None:
            passed.close()
