"""What is done to every request and response: an id, a goodbye while draining, and an answer to the unforeseen.

Knows ASGI. Does not know routes.
"""

import logging
import random
import re
import time
from collections.abc import Iterable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.lifecycle import Ids, Lifecycle
from service.api.metrics.families import OK, OTHER
from service.api.problems import kind_of_status, problem

REQUEST_ID = "x-request-id"
ACCEPTED_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
TRACEPARENT = "traceparent"  # of W3C Trace Context
ACCEPTED_TRACE = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
REQUEST_ID_BYTES, TRACEPARENT_BYTES = REQUEST_ID.encode(), TRACEPARENT.encode()

log = logging.getLogger("fullfunnel")


class Edge:
    """The outermost layer. A request keeps the id it brings along, if that is short and plain."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self._app = app
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        ids, began = ids_of(scope["headers"]), time.perf_counter()
        request_id = ids.request_id
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["outcome"] = OK  # unless somebody says otherwise
        started = False

        async def send_signed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                if ids.traceparent is not None:
                    headers[TRACEPARENT] = ids.traceparent
                if self._lifecycle.draining:
                    headers["connection"] = "close"
            await send(message)

        try:
            await self._app(scope, receive, send_signed)
        except Exception:
            log.exception("request %s failed", request_id, extra=ids._asdict())
            kind = kind_of_status(500)
            state["outcome"] = kind.slug
            if not started:
                await problem(kind, request_id, path=scope["path"])(scope, receive, send_signed)
        if state["outcome"] is not None:  # somebody has been answered
            self._lifecycle.answered(getattr(scope.get("route"), "path", OTHER), state["outcome"], began, ids)


def new_request_id() -> str:
    """A random id, which keeps no secret."""
    return f"{random.getrandbits(64):016x}"


def ids_of(headers: Iterable[tuple[bytes, bytes]]) -> Ids:
    """The ids that a request brings along, if they are well-formed; a new one for the request where it has none."""
    request_id = traceparent = None
    for name, value in headers:
        if name == REQUEST_ID_BYTES and ACCEPTED_ID.fullmatch(value):
            request_id = str(value, "ascii")
        elif name == TRACEPARENT_BYTES and ACCEPTED_TRACE.fullmatch(value):
            traceparent = str(value, "ascii")
    return Ids(request_id or new_request_id(), traceparent)
