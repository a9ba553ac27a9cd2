"""Which requests are answered inside the protocol, and that all others take the way through the application."""

import asyncio
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from service.api import shortcut
from service.api.keys import ACCESS, BATCH, PREDICT, Keys, add_key, new_key
from service.api.lifecycle import Lifecycle
from service.api.settings import Limits, Settings
from service.api.shortcut import MAX_BYTES, Answer, Posted, ShortcutProtocol, shortened_by
from tests.service.process import ServiceProcess, children

BODY = b'{"a": 1}'
JSON = b"content-type: application/json\r\n"
LENGTH = b"content-length: %d\r\n" % len(BODY)


def request(line: bytes = b"POST /short HTTP/1.1", headers: bytes = JSON + LENGTH, body: bytes = BODY) -> bytes:
    return line + b"\r\nhost: x\r\n" + headers + b"\r\n" + body


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed = b"", False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Short:
    """The shortcut: answers when it is asked, or when `later` with `finish`."""

    media_types = frozenset({"application/json"})

    def __init__(self, answer: Callable[[bytes], bytes | None], turns: list[int]) -> None:
        self.answer, self.turns, self.later = answer, turns, False
        self.asked: list[Posted] = []
        self._begun: list[Callable[[], None]] = []

    def begin(self, asked: Sequence[Posted], settle: Callable[[int, Answer | None], None]) -> None:
        self.turns.append(len(asked))
        self.asked += asked
        for index, posted in enumerate(asked):
            content = self.answer(posted.body)
            self._begun.append(partial(settle, index, None if content is None else Answer(content)))
        if not self.later:
            self.finish()

    def finish(self) -> None:
        while self._begun:
            self._begun.pop(0)()


class Connection:
    """A protocol on a loop of its own; the application and the shortcut each say who they are."""

    def __init__(self, answer: Callable[[bytes], bytes | None] | None = None, **limits: Any) -> None:
        self.loop, self.wire, self.bodies = asyncio.new_event_loop(), Wire(), list[bytes]()
        self.lengths: list[bytes | None] = []
        self.limits = Limits(**limits)
        self.lifecycle = Lifecycle(Settings(limits=self.limits), lambda: pytest.fail("nothing is loaded here"))

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            self.lengths.append(dict(scope["headers"]).get(b"content-length"))
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message.get("body", b""), message.get("more_body", False)
            self.bodies.append(body)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
            await send({"type": "http.response.body", "body": b"app"})

        self.turns: list[int] = []

        self.short = Short(answer or (lambda _: b"short"), self.turns)
        self.kind = shortened_by(self.limits, self.lifecycle, {"/short": self.short})
        config = uvicorn.Config(application, ws="none", log_config=None)
        self.config = config
        self.protocol = self.connected(self.wire)

    def connected(self, wire: Wire) -> ShortcutProtocol:
        """One more connection to the same server."""
        protocol: ShortcutProtocol = self.kind(self.config, ServerState(), {}, self.loop)
        protocol.connection_made(wire)
        return protocol

    def turn(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0))

    def send(self, *pieces: bytes) -> str:
        """Who answered, in order."""
        before = len(self.wire.written)
        for piece in pieces:
            self.protocol.data_received(piece)
        for _ in range(10):
            self.loop.run_until_complete(asyncio.sleep(0))
        found = self.wire.written[before:].split(b"HTTP/1.1 ")[1:]
        return " ".join(part.rpartition(b"\r\n\r\n")[2].decode() for part in found)

    def held(self) -> int:
        return self.lifecycle._buffered_bytes


@pytest.fixture
def connect() -> Iterator[Callable[..., Connection]]:
    made: list[Connection] = []

    def start(*arguments: Any, **limits: Any) -> Connection:
        made.append(Connection(*arguments, **limits))
        return made[-1]

    yield start
    for connection in made:
        connection.protocol.connection_lost(None)
        connection.loop.run_until_complete(asyncio.sleep(0))
        connection.loop.close()


Connect = Callable[..., Connection]


def test_an_ordinary_request_is_answered_at_once(connect: Connect) -> None:
    connection = connect()
    assert connection.send(request()) == "short"
    head = connection.wire.written.decode()
    assert head.startswith("HTTP/1.1 200 OK\r\n") and "content-type: application/json\r\n" in head
    assert connection.send(request(headers=JSON + LENGTH + b"x-request-id: my-id\r\naccept: */*\r\n")) == "short"
    assert "x-request-id: my-id\r\n" in connection.wire.written.decode()
    assert not connection.bodies and not connection.held() and not connection.wire.closed


def test_a_body_may_come_in_pieces(connect: Connect) -> None:
    seen: list[bytes] = []

    def answer(body: bytes) -> bytes:
        seen.append(body)
        return b"short"

    connection = connect(answer)
    whole = request()
    assert connection.send(*(whole[i : i + 7] for i in range(0, len(whole), 7))) == "short"
    assert seen == [BODY]


@pytest.mark.parametrize(
    "sent",
    [
        request(b"POST /other HTTP/1.1"),
        request(b"POST /short?x=1 HTTP/1.1"),
        request(b"PUT /short HTTP/1.1"),
        request(b"GET /short HTTP/1.1", b"", b""),
        request(b"POST /short HTTP/1.0"),
        request(headers=JSON + LENGTH + b"connection: close\r\n"),
        request(headers=JSON + LENGTH + b"content-encoding: gzip\r\n"),
        request(headers=JSON + LENGTH + b"accept: application/vnd.apache.arrow.stream\r\n"),
        request(headers=JSON + LENGTH + b"expect: 100-continue\r\n"),
        request(headers=JSON + b"transfer-encoding: chunked\r\n", body=b"8\r\n" + BODY + b"\r\n0\r\n\r\n"),
        request(headers=b"content-type: text/plain\r\n" + LENGTH),
        request(headers=LENGTH),
        request(headers=JSON + b"content-length: %d\r\n" % (MAX_BYTES + 1), body=b" " * (MAX_BYTES + 1)),
    ],
)
def test_what_is_out_of_the_ordinary_goes_to_the_application(connect: Connect, sent: bytes) -> None:
    connection = connect()
    assert connection.send(sent).endswith("app")
    assert len(connection.bodies) == 1


def test_what_the_shortcut_leaves_or_cannot_do_the_application_gets_whole(connect: Connect) -> None:
    def fail(_: bytes) -> bytes:
        raise ValueError

    for answer in (lambda _: None, fail):
        connection = connect(answer)
        assert connection.send(request()) == "app"
        assert connection.bodies == [BODY] and not connection.held()


def test_pipelined_requests_are_answered_in_their_order(connect: Connect) -> None:
    answers = iter([b"one", None, b"never", None])
    connection = connect(lambda _: next(answers))
    other = request(b"POST /other HTTP/1.1")
    assert connection.send(request() + request() + request() + other + request()) == "one app app app app"


class Untouched:
    """A parser that must not be given anything."""

    def feed_data(self, data: bytes) -> None:
        pytest.fail("it was parsed")


def test_a_head_that_is_the_last_one_is_not_parsed_again(connect: Connect) -> None:
    connection = connect(lambda body: body)
    traced = JSON + LENGTH + b"x-request-id: mine\r\n"
    for headers in (JSON + LENGTH, traced, JSON + LENGTH):
        assert connection.send(request(headers=headers)) == BODY.decode()
        parser, connection.protocol.parser = connection.protocol.parser, Untouched()  # type: ignore[assignment]
        other = request(headers=headers.replace(LENGTH, b"content-length: 11\r\n"), body=b'{"b": 2345}')
        assert connection.send(other) == '{"b": 2345}'
        assert connection.send(request(headers=headers)) == BODY.decode()
        connection.protocol.parser = parser
    assert connection.wire.written.count(b"x-request-id: mine\r\n") == 3 and not connection.held()
    ids = re.findall(rb"x-request-id: ([0-9a-f]{16})\r\n", connection.wire.written)
    assert len(set(ids)) == 6, "an id for each request that brings none"


def test_other_lengths_in_a_repeated_head_are_those_of_each_request(connect: Connect) -> None:
    connection = connect()
    for length in (b"7", b"12", b"7"):
        headers = JSON + LENGTH + b"x-json-content-length: " + length + b"\r\n"
        assert connection.send(request(headers=headers)) == "short"
        connection.protocol.parser = Untouched()  # type: ignore[assignment]
        assert connection.short.asked[-1].headers[b"x-json-content-length"] == length
        assert connection.short.asked[-1].headers[b"content-type"] == b"application/json"


def test_what_may_have_changed_since_the_last_head_is_looked_at_again(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(ACCESS, "/short", PREDICT)
    answers = iter([b"one", None, b"two", b"three", b"four", b"never"])
    connection = connect(lambda _: next(answers), max_buffered_bytes=len(BODY))
    assert connection.send(request()) == "one"
    assert connection.send(request()) == "app", "the shortcut leaves it"
    assert connection.send(request()) == "two"
    connection.lifecycle.hold(1)
    assert connection.send(request()) == "app", "there is no room for its body"
    connection.lifecycle.release(1)
    assert connection.send(request()) == "three"
    assert connection.bodies == [BODY] * 2
    _, key = new_key("other", [PREDICT])
    add_key(tmp_path / "keys", key)
    connection.lifecycle.keys = Keys(tmp_path / "keys")
    assert connection.send(request()) == "app", "it needs a key now"
    connection.lifecycle.keys = None
    assert connection.send(request()) == "four"
    connection.lifecycle.draining = True
    assert connection.send(request()) == "app", "the service drains"
    assert connection.held() == 0


def test_what_the_shortcut_leaves_is_parsed_after_all(connect: Connect) -> None:
    connection = connect(lambda body: None if len(body) == 10 else body)
    longer = request(headers=JSON + b"content-length: 10\r\n", body=b'{"a": 123}')
    assert [connection.send(sent) for sent in (request(), longer, request())] == ['{"a": 1}', "app", '{"a": 1}']
    assert (connection.bodies, connection.lengths) == ([b'{"a": 123}'], [b"10"])


def test_a_repeated_head_with_a_large_body_goes_to_the_application(connect: Connect) -> None:
    connection = connect()
    large = request(headers=JSON + b"content-length: %d\r\n" % (MAX_BYTES + 1), body=b" " * (MAX_BYTES + 1))
    assert [connection.send(sent) for sent in (request(), large, request())] == ["short", "app", "short"]


def test_a_head_counts_from_the_first_byte_of_a_request(connect: Connect) -> None:
    connection = connect()
    assert connection.send(request()[:-3]) == ""
    both = request()[-3:] + request()
    assert connection.send(both) == "short short"
    assert connection.send(both).startswith('{"type"'), "which begins with three bytes that are no request"
    assert connection.wire.closed


def test_of_requests_in_one_piece_no_head_is_taken_for_that_of_another(connect: Connect) -> None:
    connection = connect(lambda body: body)
    longer = request(headers=JSON + b"content-length: 10\r\n", body=b'{"a": 123}')
    assert connection.send(request() + longer) == '{"a": 1} {"a": 123}'
    assert connection.send(request() + b"PO") == '{"a": 1}', "and two bytes of the next request"
    assert connection.send(longer[2:]) == '{"a": 123}'
    named = request(headers=JSON + LENGTH + b"x-request-id: mine\r\n")
    assert connection.send(named + request()) == connection.send(request() + request()) == '{"a": 1} {"a": 1}'
    for _ in range(2):
        assert connection.send(named) == '{"a": 1}'
    assert connection.wire.written.count(b"x-request-id: mine\r\n") == 3
    connection.send(named + request())
    assert connection.send(named) == '{"a": 1}' and connection.wire.written.count(b"x-request-id: mine\r\n") == 5


def test_a_repeated_head_keeps_the_connection(connect: Connect) -> None:
    connection = connect()
    connection.protocol.timeout_keep_alive = 0.02  # type: ignore[assignment]
    assert connection.send(request()) == "short"
    connection.short.later = True
    assert connection.send(request()) == ""
    connection.loop.run_until_complete(asyncio.sleep(0.05))
    connection.short.finish()
    assert connection.wire.written.endswith(b"short") and not connection.wire.closed


def test_any_bytes_in_any_pieces_are_answered_as_if_every_head_were_parsed(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(body: bytes) -> bytes | None:
        return None if body.startswith(b"leave") else body or b"nothing"

    heads = [JSON + LENGTH, JSON + LENGTH + b"x-request-id: mine\r\n", JSON + b"content-length: 10\r\n"]
    heads += [JSON + b"x-content-length: %d\r\n" % length + LENGTH for length in (1, 22)]
    heads += [JSON + b"content-length: 0\r\n", JSON + b"content-length: 0008\r\n", b"Content-Length:8\r\n" + JSON]
    bodies = [BODY, b'{"b": 2}', b"leave it", b"\r\n\r\n\r\n\r\n", b"POST /sh", b'{"long": 1}'[:10]]
    others = [b"\r\n", request(b"POST /other HTTP/1.1"), request(headers=JSON + LENGTH + b"connection: close\r\n")]
    others += [request(b"POST /short HTTP/1.0"), request(headers=LENGTH), b"junk\r\n\r\n", request()[:-3]]
    for seed in range(300):
        drawn = random.Random(seed)
        pieces, start = list[bytes](), request(headers=drawn.choice(heads), body=b"")
        for _ in range(drawn.randint(2, 7)):
            kind = drawn.random()
            start = request(headers=drawn.choice(heads), body=b"") if kind < 0.3 else start
            sent = drawn.choice(others) if kind > 0.9 else start + drawn.choice(bodies)
            cut = drawn.randrange(1, len(sent)) if drawn.random() < 0.2 else len(sent)
            pieces += [sent[:cut], sent[cut:]] if cut < len(sent) else [sent]
            if drawn.random() < 0.2 and len(pieces) > 1:
                pieces[-2:] = [pieces[-2] + pieces[-1]]
        told = []
        for parsed in (False, True):
            with monkeypatch.context() as patch:
                if parsed:
                    patch.setattr(ShortcutProtocol, "_repeatable", lambda self, size: False)
                connection = connect(answer)
                for group in range(0, len(pieces), 2):  # two pieces before the loop turns
                    if not connection.wire.closed:
                        connection.send(*pieces[group : group + 2])
                written = re.sub(rb"(x-request-id: |\"request_id\":\")[0-9a-f]{16}", b"", connection.wire.written)
                told.append((written, connection.bodies, connection.lengths, connection.held(), connection.wire.closed))
        assert told[0] == told[1], pieces


def test_requests_of_one_turn_are_answered_together(connect: Connect) -> None:
    connection = connect(lambda body: body)
    wires = [Wire() for _ in range(3)]
    protocols = [connection.connected(wire) for wire in wires]
    for number, protocol in enumerate(protocols):
        protocol.data_received(request(body=b'{"a": %d}' % number))
    assert not any(wire.written for wire in wires)
    connection.turn()
    assert connection.turns == [3]
    assert [wire.written[-8:] for wire in wires] == [b'{"a": 0}', b'{"a": 1}', b'{"a": 2}']
    for protocol in protocols:
        protocol.connection_lost(None)


@pytest.mark.parametrize(("patience_s", "turns"), [(60.0, [2, 2]), (0.0, [2, 1, 1])])
def test_as_many_as_last_time_are_waited_for_and_not_for_long(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, patience_s: float, turns: list[int]
) -> None:
    monkeypatch.setattr(shortcut, "PATIENCE_S", patience_s)
    connection = connect()
    protocols = [connection.connected(Wire()) for _ in range(2)]
    for protocol in protocols:
        protocol.data_received(request())
    connection.turn()
    for protocol in protocols:
        protocol.data_received(request())
        connection.turn()
    assert connection.turns == turns
    connection.protocol.data_received(request())
    protocols[0].shutdown()  # which waits for nobody
    connection.protocol.shutdown()
    assert sum(connection.turns) == 5
    for protocol in protocols:
        protocol.connection_lost(None)


def test_while_it_waits_for_others_it_leaves_its_core_to_them(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortcut, "PATIENCE_S", 60.0)
    yields: list[None] = []
    monkeypatch.setattr(os, "sched_yield", lambda: yields.append(None))
    connection = connect()
    protocols = [connection.connected(Wire()) for _ in range(2)]
    connection.kind.turn.welcoming = 0
    for protocol in protocols:
        protocol.data_received(request())
    connection.turn()
    assert connection.turns == [2] and not yields
    protocols[0].data_received(request())
    connection.turn()
    assert connection.turns == [2] and yields
    for protocol in protocols:
        protocol.shutdown()


def test_who_hangs_up_before_the_loop_turns_costs_nothing(connect: Connect) -> None:
    connection = connect()
    gone, stays = Wire(), Wire()
    for wire in (gone, stays):
        protocol = connection.connected(wire)
        protocol.data_received(request())
        if wire is gone:
            protocol.connection_lost(None)
    connection.turn()
    assert connection.turns == [1] and not gone.written and stays.written.endswith(b"short")
    protocol.connection_lost(None)
    assert connection.held() == 0


def test_a_server_that_stops_answers_what_waits_for_the_turn(connect: Connect) -> None:
    connection = connect()
    connection.protocol.data_received(request())
    connection.protocol.shutdown()
    assert connection.wire.written.endswith(b"short") and connection.wire.closed


def test_an_answer_that_comes_later_finds_its_connection_or_nobody(connect: Connect) -> None:
    connection = connect()
    connection.short.later = True
    gone = connection.connected(Wire())
    for protocol in (gone, connection.protocol):
        protocol.data_received(request())
    connection.turn()
    assert not connection.wire.written and connection.held() == 2 * len(BODY)
    gone.connection_lost(None)
    connection.short.finish()
    assert connection.wire.written.endswith(b"short") and connection.held() == 0


def test_what_has_been_begun_is_answered_before_a_pipelined_request_and_before_the_end(connect: Connect) -> None:
    connection = connect()
    connection.short.later = True
    connection.protocol.data_received(request())
    connection.turn()
    connection.protocol.data_received(request(b"POST /other HTTP/1.1"))
    assert connection.wire.written.endswith(b"short")
    for _ in range(10):
        connection.turn()
    assert connection.wire.written.endswith(b"app")
    connection.protocol.data_received(request())
    connection.turn()
    connection.protocol.shutdown()
    assert connection.wire.written.endswith(b"short") and connection.wire.closed


def test_bodies_on_their_way_are_counted_and_let_go(connect: Connect) -> None:
    connection = connect(max_buffered_bytes=len(BODY))
    connection.send(request()[:-3])
    assert connection.held() == len(BODY)
    connection.protocol.connection_lost(None)
    assert connection.held() == 0
    other = connect(max_buffered_bytes=len(BODY) - 1)
    assert other.send(request()) == "app", "which refuses it"


def test_while_the_service_drains_the_application_says_goodbye(connect: Connect) -> None:
    connection = connect()
    connection.lifecycle.draining = True
    assert connection.send(request()) == "app"


def test_a_request_on_its_way_when_the_server_stops_is_answered(connect: Connect) -> None:
    connection = connect()
    connection.send(request()[:-3])
    connection.protocol.shutdown()
    assert not connection.wire.closed
    assert connection.send(request()[-3:]) == "app"
    assert connection.bodies == [BODY] and connection.wire.closed


def test_a_body_that_does_not_come_is_refused_as_by_the_application(connect: Connect) -> None:
    connection = connect(receive_timeout_s=0.01)
    connection.protocol.data_received(request()[:-3])
    while not connection.wire.closed:
        connection.loop.run_until_complete(asyncio.sleep(0.005))
    assert connection.wire.written.startswith(b"HTTP/1.1 408 ")


def test_connections_that_have_just_come_are_let_in_before_the_next_run(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortcut, "WELCOMING", 1_000)
    monkeypatch.setattr(shortcut, "WELCOME_S", 60.0)
    connection = connect()
    connection.protocol.data_received(request())
    late = connection.connected(Wire())
    connection.turn()
    assert connection.turns == []
    late.data_received(request())
    connection.kind.turn.welcoming = 1
    connection.turn()
    assert connection.turns == [2]
    late.connection_lost(None)


def test_connections_that_do_not_stop_coming_hold_nobody_up_for_long(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortcut, "WELCOMING", 1_000)
    monkeypatch.setattr(shortcut, "WELCOME_S", 0.0)
    connection = connect()
    connection.protocol.data_received(request())
    others = [connection.connected(Wire()) for _ in range(2)]
    connection.turn()
    assert connection.turns == [1]
    for protocol in others:
        protocol.connection_lost(None)


@pytest.mark.parametrize("workers", [1, 2])
def test_many_connections_at_once_do_not_wait_for_a_run_each(toy: Path, workers: int) -> None:
    with ServiceProcess(toy, "--workers", str(workers), "--drain-delay-s", "0", "--admin-port", "0") as service:
        head = b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 35\r\n\r\n"

        def runs() -> int:
            answer = httpx.get(f"http://127.0.0.1:{service.admin_port}/metrics", trust_env=False).text
            return int(answer.partition("\nfullfunnel_run_seconds_count ")[2].partition("\n")[0].partition(".")[0])

        before, processes = runs(), [service.process.pid, *children(service)]
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        clients = [service.connect() for _ in range(40)]  # which the kernel keeps until it goes on
        for client in clients:
            client.sendall(head + b'{"candidates": {"item_id": ["i1"]}}')
        for pid in processes:
            os.kill(pid, signal.SIGCONT)
        for client in clients:
            assert client.recv(4096).startswith(b"HTTP/1.1 200 OK")
            client.close()
        assert 1 <= runs() - before <= 10


def test_patience_counts_from_the_first_byte_of_each_request(connect: Connect) -> None:
    connection = connect(receive_timeout_s=0.05)
    assert connection.send(request()) == "short"
    connection.loop.run_until_complete(asyncio.sleep(0.03))
    began = time.monotonic()
    connection.protocol.data_received(request()[:-3])
    while not connection.wire.closed:
        connection.loop.run_until_complete(asyncio.sleep(0.005))
    assert time.monotonic() - began >= 0.05
    assert b"HTTP/1.1 408 " in connection.wire.written


def test_who_has_no_key_for_it_is_left_to_the_application(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(ACCESS, "/short", PREDICT)
    connection = connect()
    secrets = []
    for name, scope in (("good", PREDICT), ("other", BATCH)):
        secret, key = new_key(name, [scope])
        add_key(tmp_path / "keys", key)
        secrets.append(secret.encode())
    connection.lifecycle.keys = Keys(tmp_path / "keys")
    answers = [
        connection.send(request(headers=JSON + LENGTH + b"Authorization: Bearer %b\r\n" % secret))
        for secret in (secrets[0], secrets[1], b"stranger")
    ]
    assert [*answers, connection.send(request())] == ["short", "app", "app", "app"]
