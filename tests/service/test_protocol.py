"""Heads, bodies and patience on a real socket."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.api.protocol import without_upgrade
from tests.service.process import ServiceProcess, raw, read_to_end

PATIENCE_S = 0.5
ONE = b'{"candidates": {"item_id": ["i1"]}}'
POST = b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module")
def service(toy: Path) -> Iterator[ServiceProcess]:
    with ServiceProcess(toy, receive_timeout_s=PATIENCE_S) as process:
        yield process


@pytest.fixture(autouse=True)
def still_serves(service: ServiceProcess) -> Iterator[None]:
    """Whatever a client does, the next one is answered."""
    yield
    assert service.client.post("/v1/predict", json={"candidates": {"item_id": ["i1"]}}).status_code == 200


def exchange(service: ServiceProcess, sent: bytes) -> tuple[int, dict[str, object]]:
    """Send, read to the end, and read the problem out of it."""
    with raw(service) as connection:
        connection.sendall(sent)
        return problem_in(read_to_end(connection))


def problem_in(received: bytes) -> tuple[int, dict[str, object]]:
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    found = json.loads(body)
    assert f"x-request-id: {found['request_id']}".encode() in head
    status = int(head.split()[1])
    assert found["status"] == status
    return status, found


def answers_of(connection: socket.socket, count: int) -> bytes:
    received = b""
    while received.count(b"HTTP/1.1 ") < count or not received.endswith(b"}"):
        piece = connection.recv(65536)
        assert piece, received
        received += piece
    return received


def test_a_head_that_trickles_in_is_hung_up_on(service: ServiceProcess) -> None:
    with raw(service) as connection:
        connection.settimeout(PATIENCE_S / 20)
        received = b""
        for byte in POST * 100:
            try:
                connection.sendall(bytes([byte]))
                received += connection.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                break
            if received:
                break
        assert problem_in(received)[1]["type"] == "urn:fullfunnel:problem:request-timeout"


def test_a_body_that_trickles_in_is_hung_up_on(service: ServiceProcess) -> None:
    status, found = exchange(service, POST + b"content-length: 100\r\n\r\n{")
    assert status == 408
    assert found["type"] == "urn:fullfunnel:problem:request-timeout"


def test_a_connection_that_says_nothing_is_closed_without_a_word(service: ServiceProcess) -> None:
    with raw(service) as connection:
        assert read_to_end(connection) == b""


def test_empty_lines_between_requests_do_not_keep_a_connection(service: ServiceProcess) -> None:
    body = b"content-length: %d\r\n\r\n%s" % (len(ONE), ONE)
    with raw(service) as connection:
        connection.sendall(POST + body)
        assert b"200 OK" in answers_of(connection, 1)
        connection.sendall(b"\r\n")
        assert read_to_end(connection) == b""


def test_an_idle_connection_outlives_the_patience_for_a_request(service: ServiceProcess) -> None:
    """Patience is for requests; between them there is keep-alive."""
    body = b"content-length: %d\r\n\r\n%s" % (len(ONE), ONE)
    with raw(service) as connection:
        connection.sendall(POST + body)
        assert b"200 OK" in answers_of(connection, 1)
        connection.settimeout(PATIENCE_S * 2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(30)
        connection.sendall(POST + body)
        assert b"200 OK" in answers_of(connection, 1)


def test_pipelined_requests_are_all_answered(service: ServiceProcess) -> None:
    body = b"content-length: %d\r\n\r\n%s" % (len(ONE), ONE)
    with raw(service) as connection:
        connection.sendall((POST + body) * 5)
        assert answers_of(connection, 5).count(b"200 OK") == 5


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\n" + b"x: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"x: " + b"y" * 17_000,
        b"GET /livez HTTP/1.1\r\n" + b"".join(b"x%d: y\r\n" % n for n in range(5000)) + b"\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"".join(b"x%d: y\r\n" % n for n in range(65)) + b"\r\n",
        b"GET /" + b"y" * 17_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["huge header", "large header without an end", "5000 headers", "65 headers", "large path"],
)
def test_large_heads_are_refused(service: ServiceProcess, head: bytes) -> None:
    status, found = exchange(service, head)
    assert status == 431
    assert found["type"] == "urn:fullfunnel:problem:headers-too-large"


def test_heads_up_to_the_limit_are_taken(service: ServiceProcess) -> None:
    names = b"".join(b"x%d: y\r\n" % n for n in range(60))
    large = b"x: " + b"y" * 15_000 + b"\r\n"
    for headers in (names, large):
        with raw(service) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n" + headers + b"\r\n")
            assert b"200 OK" in answers_of(connection, 1)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_http_is_a_problem_too(service: ServiceProcess, sent: bytes) -> None:
    status, found = exchange(service, sent)
    assert status == 400
    assert found["type"] == "urn:fullfunnel:problem:http-malformed"


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c"])
def test_an_upgrade_is_not_taken_up(service: ServiceProcess, upgrade: bytes) -> None:
    with raw(service) as connection:
        headers = b"connection: upgrade\r\nupgrade: %s\r\ncontent-length: %d\r\n\r\n" % (upgrade, len(ONE))
        connection.sendall(POST + headers + ONE)
        assert b"200 OK" in answers_of(connection, 1)


def test_only_the_head_is_disarmed() -> None:
    head = b"POST /upgrade: HTTP/1.1\r\nUpgrade: h2c\r\nx-upgrade: 1"
    body = b"\r\n\r\nbody\r\nupgrade: 1"
    assert without_upgrade(head + body) == head.replace(b"Upgrade: h2c", b"ignored: h2c") + body
    assert without_upgrade(head) == head.replace(b"Upgrade: h2c", b"ignored: h2c")
    assert without_upgrade(body) == body


def test_an_upgrade_in_two_pieces_is_refused_rather_than_misread(service: ServiceProcess) -> None:
    with raw(service) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(POST + b"connection: upgrade\r\nupg")
        assert service.client.get("/livez").status_code == 200  # by now it has read the first piece
        connection.sendall(b"rade: h2c\r\ncontent-length: %d\r\n\r\n" % len(ONE) + ONE)
        assert problem_in(read_to_end(connection))[1]["type"] == "urn:fullfunnel:problem:http-malformed"


def test_the_settings_of_the_environment_are_in_force(service: ServiceProcess) -> None:
    assert service.client.get("/v1/limits").json()["receive_timeout_s"] == PATIENCE_S


def test_a_giant_chunked_body_is_refused_and_does_not_fill_the_memory(service: ServiceProcess) -> None:
    before = service.peak_bytes()
    piece = b"%x\r\n%s\r\n" % (2**20, b" " * 2**20)
    with raw(service) as connection:
        connection.sendall(POST + b"transfer-encoding: chunked\r\n\r\n")
        try:
            for _ in range(60):
                connection.sendall(piece)
            connection.sendall(b"0\r\n\r\n")
        except OSError:
            pass  # it may hang up before all of it is sent
        connection.settimeout(30)
        received = connection.recv(65536)
    assert b"HTTP/1.1 413" in received
    assert b"urn:fullfunnel:problem:body-too-large" in received
    assert service.peak_bytes() - before < 16 * 2**20


def test_a_client_that_sends_too_much_can_read_why_and_go_on(service: ServiceProcess) -> None:
    body = b"content-length: %d\r\n\r\n%s" % (len(ONE), ONE)
    with raw(service) as connection:
        connection.sendall(POST + b"content-length: 3000000\r\n\r\n" + b" " * 3_000_000 + POST + body)
        received = answers_of(connection, 2)
    assert b"HTTP/1.1 413" in received
    assert b"HTTP/1.1 200" in received


def test_a_client_that_never_ends_what_was_refused_is_hung_up_on_without_another_word(service: ServiceProcess) -> None:
    status, found = exchange(service, POST + b"content-length: 3000000\r\n\r\n" + b" " * 10)
    assert status == 413
    assert found["type"] == "urn:fullfunnel:problem:body-too-large"


def test_a_body_in_too_many_chunks_is_refused(service: ServiceProcess) -> None:
    status, found = exchange(service, POST + b"transfer-encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 100_000)
    assert status == 413
    assert found["type"] == "urn:fullfunnel:problem:body-too-large"


def test_a_client_that_hangs_up_in_the_middle_leaves_no_trace(service: ServiceProcess) -> None:
    for cut in (10, len(POST), len(POST) + 30):
        with raw(service) as connection:
            connection.sendall((POST + b"content-length: 1000\r\n\r\n{")[:cut])
    assert service.client.get("/livez").status_code == 200
    assert service.process.poll() is None


def test_slow_clients_do_not_slow_the_others(service: ServiceProcess) -> None:
    slow = [service.connect() for _ in range(200)]
    for connection in slow:
        connection.sendall(POST + b"content-length: 1000\r\n\r\n{")
    answered = 0
    give_up = time.monotonic() + 30
    while answered < 20:
        assert time.monotonic() < give_up
        answered += service.client.post(
            "/v1/predict", content=ONE, headers={"content-type": "application/json"}
        ).is_success
    for connection in slow:
        assert problem_in(read_to_end(connection))[0] == 408
        connection.close()
