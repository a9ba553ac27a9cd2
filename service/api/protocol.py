"""HTTP/1.1 with bounded heads, pieces and patience.

uvicorn reads heads of any size for as long as the client likes. This protocol refuses large heads (431), bodies in
too many pieces (413), and requests that have not arrived in full in time (408), as problem documents, before and
beside the application. Knows uvicorn's httptools protocol. Does not know routes.
"""

import asyncio
import re
import time
from collections.abc import Callable
from itertools import chain
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from contract.errors import BodyTooLarge
from service.api.edge import REQUEST_ID, new_request_id
from service.api.problems import MEDIA_TYPE, Kind, document, kind_of_error, kind_of_status
from service.api.settings import SMALL_PIECE, Limits

IDLE, HEAD, BODY = "idle", "head", "body"
UPGRADE = re.compile(rb"(?<=\n)upgrade(?=:)", re.IGNORECASE)


class Refused(Exception):
    """Ends parsing from inside a callback; httptools turns it into its own error."""


class GuardedProtocol(HttpToolsProtocol):
    """One connection. `limits` is set on a subclass; `refused` is told of what is refused here."""

    limits: Limits
    refused: Callable[[Kind], None] = staticmethod(lambda _: None)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._receiving: str = IDLE
        self._head_bytes = self._pieces = 0
        self._refusal: Kind | None = None
        self._deadline: float | None = None  # until which a request that has been begun must be there
        self._patience: asyncio.TimerHandle | None = None  # looks whether it is; one for many requests

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected, and has so long to say something."""
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._received()
        if self._patience is not None:
            self._patience.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes of a request."""
        self._expect()
        if self._receiving != BODY:
            data = without_upgrade(data)
        super().data_received(data)
        if self._receiving == HEAD and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.max_head_bytes:
                self._send_problem(kind_of_status(431))

    def on_message_begin(self) -> None:
        """The first byte of a request line."""
        super().on_message_begin()
        self._receiving, self._head_bytes, self._pieces = HEAD, 0, 0
        self._expect()

    def on_headers_complete(self) -> None:
        """The head is there; the application starts."""
        head_bytes = len(self.url) + sum(map(len, chain.from_iterable(self.headers)))
        if len(self.headers) > self.limits.max_headers or head_bytes > self.limits.max_head_bytes:
            self._refuse(kind_of_status(431))
        if self.parser.should_upgrade():  # CONNECT, or an upgrade header that came in two pieces
            self._refuse(kind_of_status(400))
        self._receiving = BODY
        self.begin()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._pieces += len(body) < SMALL_PIECE
        if self._pieces > self.limits.max_body_chunks:
            self._refuse(kind_of_error(BodyTooLarge("")))
        self.take(body)

    def on_message_complete(self) -> None:
        """All of a request is there."""
        self._received()
        self.finish()

    @property
    def idle(self) -> bool:
        """Whether the next byte begins a request."""
        return self._receiving == IDLE

    @property
    def answering(self) -> bool:
        """Whether the application has a request that it has not answered."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def holding(self) -> bool:
        """Whether a request is on its way that the application does not know of."""
        return False

    def begin(self) -> None:
        """A head has been accepted: start the application."""
        super().on_headers_complete()

    def take(self, body: bytes) -> None:
        """A piece of the body has been accepted."""
        super().on_body(body)

    def finish(self) -> None:
        """The request is complete."""
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP, or that a callback refused."""
        self._send_problem(self._refusal or kind_of_status(400))

    def _refuse(self, kind: Kind) -> None:
        self._refusal = kind
        raise Refused

    def _expect(self) -> None:
        if self._deadline is None:
            self._deadline = time.monotonic() + self.limits.receive_timeout_s
            if self._patience is None:
                self._patience = self.loop.call_later(self.limits.receive_timeout_s, self._out_of_patience)

    def _received(self) -> None:
        self._receiving, self._deadline = IDLE, None

    def _out_of_patience(self) -> None:
        self._patience = None
        if self._deadline is None:
            return
        left_s = self._deadline - time.monotonic()
        if left_s > 0:
            self._patience = self.loop.call_later(left_s, self._out_of_patience)
            return
        self._deadline = None
        if self.transport.is_closing():
            return
        if self._receiving == IDLE:
            self.transport.close()
        else:
            self._send_problem(kind_of_status(408))

    def _send_problem(self, kind: Kind) -> None:
        """Write a response past the application and hang up; only hang up where it is answering already."""
        if self.pipeline or (self.answering and self.cycle.response_started):
            self.transport.close()
            return
        if self._receiving == BODY and not (
            self.answering or self.holding
        ):  # the application has refused the body before it was all there
            self.transport.close()
            return
        self.refused(kind)
        request_id = new_request_id()
        content = document(kind, request_id)
        head = [
            STATUS_LINE[kind.status],
            b"content-type: " + MEDIA_TYPE.encode() + b"\r\n",
            b"content-length: " + str(len(content)).encode() + b"\r\n",
            REQUEST_ID.encode() + b": " + request_id.encode() + b"\r\n",
            b"connection: close\r\n\r\n",
        ]
        self.transport.write(b"".join([*head, content]))
        self.transport.close()


def without_upgrade(data: bytes) -> bytes:
    """The same head with its upgrade header disarmed, by a name of the same length.

    A server may ignore an upgrade (RFC 9110, 7.8), and Java's HTTP client offers one with every first request; but
    httptools takes what follows such a head for another protocol, and drops the body.
    """
    end = data.find(b"\r\n\r\n")
    end = len(data) if end < 0 else end
    if UPGRADE.search(data, 0, end) is None:
        return data
    return UPGRADE.sub(b"ignored", data[:end]) + data[end:]
