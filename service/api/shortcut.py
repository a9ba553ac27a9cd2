"""Small predictions answered inside the protocol and past the application, those of one turn of the loop together.

For a ranking request of a millisecond, a task, a scope and a stack of middleware cost a fifth of that. Requests that
have arrived when the loop turns share what a run costs whatever its size. Clients that were answered together ask again
together, nearly: for as many as last time a tenth of a millisecond is waited, and for no other. Connections are let in
one a turn; where one has just come, those behind it come first. A client that is kept open repeats its head: what is
the last one but for lengths is not parsed again. All else (another path, a header to heed, an error, a large request,
a service that drains) the application decides and answers. Knows the protocol of uvicorn. Does not know predictions.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from contract.errors import Overloaded
from service.api.edge import REQUEST_ID_BYTES, TRACEPARENT, TRACEPARENT_BYTES, ids_of
from service.api.heads import END, Head
from service.api.keys import ACCESS
from service.api.lifecycle import Lifecycle
from service.api.metrics.families import OK, OTHER
from service.api.paths import Paths
from service.api.problems import Kind
from service.api.protocol import GuardedProtocol
from service.api.receiving import is_accepted
from service.api.settings import Limits


class Posted(NamedTuple):
    """A request whose body is there. `name` is what stands for `{name}` of its route."""

    body: bytes
    name: str = ""
    headers: Mapping[bytes, bytes] = {}


class Answer(NamedTuple):
    """What is answered; `head` are the header lines that say what it is."""

    content: bytes
    head: bytes = b"content-type: application/json\r\n"


class Shortcut(Protocol):
    """What answers requests past the application, if their bodies are of one of these types."""

    @property
    def media_types(self) -> frozenset[str]:
        """Of bodies; "" is none."""

    def begin(self, asked: Sequence[Posted], settle: Callable[[int, Answer | None], None]) -> None:
        """Call `settle` once with the index of each and its answer, or None where the application is to answer it."""

    def finish(self) -> None:
        """Settle now what has been begun."""


Shortcuts = Mapping[str, Shortcut]  # by route

MAX_BYTES = 256 * 1024
PATIENCE_S = 1e-4  # in which as many requests as were answered last time are waited for
WELCOME_S = 1e-2  # in which new connections come before the requests that wait
WELCOMING = 2  # turns of the loop, for one that has been let in begins to speak in the next
NAMING = frozenset({REQUEST_ID_BYTES, TRACEPARENT_BYTES})
UNUSUAL = frozenset({b"transfer-encoding", b"content-encoding", b"expect"})
ANSWER = STATUS_LINE[200] + b"%b%b%b" + REQUEST_ID_BYTES + b": %b\r\ncontent-length: %d\r\n\r\n%b"


class Turn:
    """The complete requests that wait until the loop turns."""

    def __init__(self, shortcuts: Shortcuts) -> None:
        self.shortcuts, self.paths = shortcuts, Paths(shortcuts)
        self._waiting: list[tuple[str, Posted, ShortcutProtocol]] = []
        self._before, self._since = 0, 0.0  # how many were answered last time; when the first of these came
        self.welcoming = 0  # turns of the loop in which connections may follow one that has come

    def add(self, route: str, asked: Posted, connection: "ShortcutProtocol") -> None:
        """A request, which is answered through `connection.settle` when everything else that is there has been read."""
        if not self._waiting:
            self._since = time.perf_counter()
            connection.loop.call_soon(self._turn, connection.loop)
        self._waiting.append((route, asked, connection))

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer, or turn once more for those who were answered with these last time, or have just come."""
        waited_s = time.perf_counter() - self._since
        expected = 0 < len(self._waiting) < self._before and waited_s < PATIENCE_S
        if expected or (self.welcoming and waited_s < WELCOME_S):
            self.welcoming = max(0, self.welcoming - 1)
            os.sched_yield()  # the client may wait for this very core
            loop.call_soon(self._turn, loop)
        else:
            self.answer()

    def answer(self) -> None:
        """Answer all that wait now."""
        waiting, self._waiting = [one for one in self._waiting if one[2].waits], []
        self._before = len(waiting)
        for route in dict.fromkeys(route for route, _, _ in waiting):
            asking = [(asked, connection) for other, asked, connection in waiting if other == route]
            settle = Settle([connection for _, connection in asking])
            try:
                self.shortcuts[route].begin([asked for asked, _ in asking], settle)
            except Exception:  # the application will meet it again, and say what it is
                settle.rest()

    def finish(self) -> None:
        """Answer all that wait, and all that have been begun."""
        self.answer()
        for shortcut in self.shortcuts.values():
            shortcut.finish()


class Settle:
    """Gives each of some connections its answer, at most once."""

    def __init__(self, connections: Sequence["ShortcutProtocol"]) -> None:
        self._waiting = dict(enumerate(connections))

    def __call__(self, index: int, answer: Answer | None) -> None:
        """The answer to a connection, which may have gone meanwhile or been answered."""
        connection = self._waiting.pop(index, None)
        if connection is not None and connection.waits:
            connection.settle(answer)

    def rest(self) -> None:
        """The application answers all that have not been answered."""
        for index in list(self._waiting):
            self(index, None)


class ShortcutProtocol(GuardedProtocol):
    """One connection. `lifecycle` and `turn` are set on a subclass, see `shortened_by`."""

    lifecycle: Lifecycle
    turn: Turn

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._body: list[bytes] | None = None  # of a request that may be answered here
        self._fields: Mapping[bytes, bytes] = {}  # its headers
        self._route, self._name = "", ""
        self._held, self._began = 0, 0.0
        self._head: Head | None = None  # of the last request, if it came in one piece and was to be answered here
        self._unparsed: bytes | None = None  # a request that has the same
        self.waits = False  # for the turn to answer

    @property
    def holding(self) -> bool:
        """Whether a request is on its way that the application does not know of."""
        return self._body is not None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        self.turn.welcoming = WELCOMING
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._release()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes of a request. A head that is the one before but for its lengths need not be parsed again."""
        body = self._head and self._head.body_in(data)
        if body and self._repeatable(body.size) and self._hold(body.size, [data[body.begin :]]):
            self._fields = {**self._fields, **body.lengths}
            self._unset_keepalive_if_required()
            self._unparsed = data
            return self.finish()
        idle = self.idle
        super().data_received(data)
        end = data.find(END) + len(END)
        alone = idle and self.waits and end + self._held == len(data)
        self._head = Head.of(data[:end]) if alone else None

    def on_message_begin(self) -> None:
        """The first byte of a request line: the request before it, if there is one, is answered first."""
        if self.waits:
            self.turn.finish()
        super().on_message_begin()

    def begin(self) -> None:
        """A head has been accepted: wait for the body, or start the application."""
        route = None if self._unparsed else self.turn.paths.route_of(self.url)
        if route and (size := self._ordinary_size(route[0])) and self._hold(size, []):
            self._route, self._name = route
            return
        super().begin()

    def take(self, body: bytes) -> None:
        """A piece of the body has been accepted."""
        if self._body is None:
            super().take(body)
        else:
            self._body.append(body)

    def finish(self) -> None:
        """The request is complete: it is answered with the others of this turn."""
        if self._body is None:
            super().finish()
        else:
            self.waits = True
            self.turn.add(self._route, Posted(b"".join(self._body), self._name, self._fields), self)

    def settle(self, answer: Answer | None) -> None:
        """Answer the request that waits, or let the application do it after all."""
        if answer is not None:
            self._release()
            self._answer(*answer)
        elif self._unparsed is None:
            self._hand_over()
            super().finish()
        else:
            self._parse(self._unparsed)

    def shutdown(self) -> None:
        """The server stops: a request that is on its way is still answered."""
        if self.waits:
            self.turn.finish()
        if self._body is not None:
            self._hand_over()
        super().shutdown()

    @property
    def _free(self) -> bool:
        return not (self.answering or self.pipeline or self.lifecycle.draining or self.flow.write_paused)

    def _repeatable(self, size: int) -> bool:
        """Whether a request with the head of the last one, and a body of this size, would be answered here again."""
        return size <= MAX_BYTES and not self.waits and self._free and self._admitted(self._route)

    def _admitted(self, route: str) -> bool:
        keys = self.lifecycle.keys
        return keys is None or keys.admits(self._fields.get(b"authorization", b""), ACCESS[route])

    def _ordinary_size(self, route: str) -> int:
        """The size of the body of a request that nothing but the scorer has to look at; 0 for any other."""
        if not self._free or self.parser.get_method() != b"POST" or not self.parser.should_keep_alive():
            return 0
        self._fields = headers = dict(self.headers)
        content_type = headers.get(b"content-type", b"").decode("latin-1")
        if not UNUSUAL.isdisjoint(headers) or not is_accepted(content_type, self.turn.shortcuts[route].media_types):
            return 0
        accept = headers.get(b"accept", b"*/*")
        if not self._admitted(route) or (b"*/*" not in accept and b"application/json" not in accept):
            return 0
        size = headers.get(b"content-length", b"")
        return int(size) if len(size) < 8 and size.isdigit() and int(size) <= MAX_BYTES else 0

    def _answer(self, content: bytes, kind: bytes) -> None:
        ids = ids_of(() if NAMING.isdisjoint(self._fields) else self.headers)
        trace = b"" if ids.traceparent is None else f"{TRACEPARENT}: {ids.traceparent}\r\n".encode()
        usual = b"".join([b"%b: %b\r\n" % header for header in self.server_state.default_headers])
        self.transport.write(ANSWER % (usual, kind, trace, ids.request_id.encode(), len(content), content))
        self.lifecycle.answered(self._route, OK, self._began, ids)
        self.on_response_complete()

    def _hold(self, size: int, pieces: list[bytes]) -> bool:
        """Keep a body of this size, of which so much is there; whether there is room for it."""
        try:
            self.lifecycle.hold(size)
        except Overloaded:
            return False
        self._body, self._held, self._began = pieces, size, time.perf_counter()
        return True

    def _hand_over(self) -> None:
        """From here on this request is the application's."""
        pieces = self._body or []
        self._release()
        super().begin()
        for piece in pieces:
            super().take(piece)

    def _parse(self, data: bytes) -> None:
        """All of this request is the application's, which has not been parsed."""
        self._release()
        self._unparsed = data
        super().data_received(data)
        self._unparsed = None

    def _release(self) -> None:
        self.lifecycle.release(self._held)
        self._body, self._held, self._unparsed, self.waits = None, 0, None, False


def shortened_by(limits: Limits, lifecycle: Lifecycle, shortcuts: Shortcuts) -> type[ShortcutProtocol]:
    """The protocol with these limits and shortcuts."""

    def refused(kind: Kind) -> None:
        lifecycle.answered(OTHER, kind.slug, time.perf_counter())

    own = {"limits": limits, "lifecycle": lifecycle, "turn": Turn(shortcuts), "refused": staticmethod(refused)}
    return type("ShortenedBy", (ShortcutProtocol,), own)
