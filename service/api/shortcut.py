"""Small predictions answered inside the protocol and past the application, those of one turn of the loop together.

A ranking request takes the model a millisecond; a task, a scope and a stack of middleware for it cost a fifth of that.
Requests that have arrived when the loop turns share what a run costs whatever its size; none waits for a later one.
What is out of the ordinary in any way (another path, a header to heed, an error, a large request, a service that
drains) takes the way through the application, which decides and answers alone. Knows uvicorn's httptools protocol.
Does not know what a prediction is.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from contract.errors import Overloaded
from service.api.edge import REQUEST_ID, TRACEPARENT, ids_of
from service.api.lifecycle import Lifecycle
from service.api.metrics.families import OK, OTHER
from service.api.problems import Kind
from service.api.protocol import GuardedProtocol
from service.api.receiving import is_accepted
from service.api.settings import Limits


class Shortcut(Protocol):
    """What answers bodies of JSON past the application."""

    def begin(self, bodies: Sequence[bytes], settle: Callable[[int, bytes | None], None]) -> None:
        """Call `settle` once with the index of each and its JSON, or None where the application is to answer it."""

    def finish(self) -> None:
        """Settle now what has been begun."""


Shortcuts = Mapping[bytes, Shortcut]  # by path

MAX_BYTES = 256 * 1024
UNUSUAL = frozenset({b"transfer-encoding", b"content-encoding", b"expect"})
HEAD = b"content-type: application/json\r\n" + REQUEST_ID.encode() + b": %b\r\ncontent-length: %d\r\n\r\n"


class Turn:
    """The complete requests that wait until the loop turns."""

    def __init__(self, shortcuts: Shortcuts) -> None:
        self.shortcuts = shortcuts
        self._waiting: list[tuple[bytes, bytes, ShortcutProtocol]] = []

    def add(self, path: bytes, body: bytes, connection: "ShortcutProtocol") -> None:
        """A request, which is answered through `connection.settle` when everything else that is there has been read."""
        if not self._waiting:
            connection.loop.call_soon(self.answer)
        self._waiting.append((path, body, connection))

    def answer(self) -> None:
        """Answer all that wait now."""
        waiting, self._waiting = [one for one in self._waiting if one[2].waits], []
        for path in dict.fromkeys(path for path, _, _ in waiting):
            asking = [(body, connection) for other, body, connection in waiting if other == path]
            settle = Settle([connection for _, connection in asking])
            try:
                self.shortcuts[path].begin([body for body, _ in asking], settle)
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

    def __call__(self, index: int, content: bytes | None) -> None:
        """The answer to a connection, which may have gone meanwhile or been answered."""
        connection = self._waiting.pop(index, None)
        if connection is not None and connection.waits:
            connection.settle(content)

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
        self._held = 0
        self._began = 0.0
        self.waits = False  # for the turn to answer

    @property
    def holding(self) -> bool:
        """Whether a request is on its way that the application does not know of."""
        return self._body is not None

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._release()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """The first byte of a request line: the request before it, if there is one, is answered first."""
        if self.waits:
            self.turn.finish()
        super().on_message_begin()

    def begin(self) -> None:
        """A head has been accepted: wait for the body, or start the application."""
        if self.url in self.turn.shortcuts and (size := self._ordinary_size()):
            try:
                self.lifecycle.hold(size)
            except Overloaded:
                pass
            else:
                self._body, self._held, self._began = [], size, time.perf_counter()
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
            self.turn.add(self.url, b"".join(self._body), self)

    def settle(self, content: bytes | None) -> None:
        """Answer the request that waits, or let the application do it after all."""
        if content is None:
            self._hand_over()
            super().finish()
        else:
            self._release()
            self._answer(content)

    def shutdown(self) -> None:
        """The server stops: a request that is on its way is still answered."""
        if self.waits:
            self.turn.finish()
        if self._body is not None:
            self._hand_over()
        super().shutdown()

    def _ordinary_size(self) -> int:
        """The size of the body of a request that nothing but the scorer has to look at; 0 for any other."""
        if self.answering or self.pipeline or self.lifecycle.draining or self.flow.write_paused:
            return 0
        if self.parser.get_method() != b"POST" or not self.parser.should_keep_alive():
            return 0
        headers = dict(self.headers)
        if not UNUSUAL.isdisjoint(headers) or not is_accepted(headers.get(b"content-type", b"").decode("latin-1")):
            return 0
        accept = headers.get(b"accept", b"*/*")
        if b"*/*" not in accept and b"application/json" not in accept:
            return 0
        size = headers.get(b"content-length", b"")
        return int(size) if len(size) < 8 and size.isdigit() and int(size) <= MAX_BYTES else 0

    def _answer(self, content: bytes) -> None:
        head = [STATUS_LINE[200], *(b"%b: %b\r\n" % header for header in self.server_state.default_headers)]
        ids = ids_of(self.headers)
        if ids.traceparent is not None:
            head.append(f"{TRACEPARENT}: {ids.traceparent}\r\n".encode())
        head.append(HEAD % (ids.request_id.encode(), len(content)))
        self.transport.write(b"".join([*head, content]))
        self.lifecycle.answered(self.url.decode(), OK, self._began, ids)
        self.on_response_complete()

    def _hand_over(self) -> None:
        """From here on this request is the application's."""
        pieces = self._body or []
        self._release()
        super().begin()
        for piece in pieces:
            super().take(piece)

    def _release(self) -> None:
        self.lifecycle.release(self._held)
        self._body, self._held, self.waits = None, 0, False


def shortened_by(limits: Limits, lifecycle: Lifecycle, shortcuts: Shortcuts) -> type[ShortcutProtocol]:
    """The protocol with these limits and shortcuts."""

    def refused(kind: Kind) -> None:
        lifecycle.answered(OTHER, kind.slug, time.perf_counter())

    given = {
        "limits": limits,
        "lifecycle": lifecycle,
        "turn": Turn(shortcuts),
        "refused": staticmethod(refused),
    }
    return type("ShortenedBy", (ShortcutProtocol,), given)
