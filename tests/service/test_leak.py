"""A service that has answered thousands of requests of every kind holds no more memory than before them."""

import re
import socket
from itertools import count, cycle, islice
from pathlib import Path

import orjson
import pytest

from tests.service.process import ServiceProcess
from tests.service.toy_bundle import GOLDEN_ROWS

WARM, MEASURED = 2000, 6000
BOUND_KIB = 2000  # a kilobyte kept of each would be three times as much
LEAK = """
from service.api.lifecycle import Lifecycle

kept, answered = [], Lifecycle.answered


def leaking(self, *arguments, **options):
    kept.append(bytearray(1024))
    return answered(self, *arguments, **options)


Lifecycle.answered = leaking
"""
RANKING = {
    "user": {name: values[0] for name, values in GOLDEN_ROWS.user.items()},
    "candidates": GOLDEN_ROWS.candidates,
}
TENSORS = {"inputs": [{"name": "item_id", "shape": [2], "datatype": "BYTES", "data": ["i1", "i2"]}]}
ROWS = b"user_id,city,age,recent_items,recent_actions,item_id,category,price,tags\nu1,Berlin,3,,,i1,1,2,\n"


def request(path: str, body: object, headers: str = "", method: str = "POST") -> bytes:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{headers}"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


KINDS = [
    (request("/v1/predict", RANKING), 200),
    (request("/v1/predict", RANKING), 200),
    (request("/v1/predict", RANKING, "x-request-id: NUMBERED\r\n"), 200),
    (request("/v1/predict", RANKING, "connection: close\r\n"), 200),
    (request("/v1/predict", {"candidates": {"item_id": [None, "NUMBERED"]}}), 422),
    (request("/v1/predict", b'{"candidates": '), 400),
    (request("/v1/predict:batch", {"requests": [RANKING] * 3}), 200),
    (request("/v2/models/toy/infer", TENSORS), 200),
    (request("/v1/score", ROWS).replace(b"application/json", b"text/csv"), 200),
    (request("/nowhere/NUMBERED", b"", method="GET"), 404),
    (request("/v1/limits", b"", method="GET"), 200),
    (b"nonsense\r\n\r\n", 400),
]


def ask(service: ServiceProcess, requests: int) -> None:
    """Ask so often, each kind as often, on connections that are kept while the service keeps them."""
    connection, numbers = service.connect(), count()
    for sent, status in islice(cycle(KINDS), requests):
        sent = sent.replace(b"NUMBERED", b"%08d" % next(numbers))
        connection.sendall(sent)
        answer = received(connection)
        assert answer.startswith(b"HTTP/1.1 %d " % status), (sent, answer)
        if re.search(rb"\r\nconnection: close\r\n", answer, re.IGNORECASE):
            connection.close()
            connection = service.connect()
    connection.close()


def received(connection: socket.socket) -> bytes:
    """One answer with a content length, or in pieces."""
    found = b""
    while not complete(found):
        piece = connection.recv(65536)
        assert piece, found
        found += piece
    return found


def complete(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    if length := re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE):
        return len(body) >= int(length[1])
    return bool(end) and body.endswith(b"0\r\n\r\n")


def private_kib(service: ServiceProcess) -> int:
    """Memory that is the process's own."""
    told = Path(f"/proc/{service.process.pid}/smaps_rollup").read_text()
    return sum(map(int, re.findall(r"^(?:Private_Clean|Private_Dirty):\s+(\d+) kB$", told, re.MULTILINE)))


@pytest.mark.parametrize("leaks", [False, True])
def test_thousands_of_requests_leave_nothing_behind_and_a_kilobyte_of_each_would_be_seen(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaks: bool
) -> None:
    if leaks:
        (tmp_path / "sitecustomize.py").write_text(LEAK)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with ServiceProcess(toy) as service:
        ask(service, WARM)
        before = private_kib(service)
        ask(service, MEASURED)
        grown = private_kib(service) - before
    assert (grown > BOUND_KIB) == leaks, f"{grown} KiB more"
