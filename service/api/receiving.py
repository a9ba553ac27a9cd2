"""The body of a request, no larger and in no more pieces than allowed.

Knows content types and sizes. Does not know what is in the body. How long it may take is `protocol.py`'s to say.
"""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from starlette.exceptions import HTTPException
from starlette.requests import Request

from contract.errors import BodyTooLarge
from service.api.lifecycle import Lifecycle
from service.api.settings import Limits

JSON = frozenset({"application/json"})


def check_media_type(request: Request, accepted: Collection[str] = JSON) -> None:
    """Raises: HTTPException 415 unless the body is of an accepted type ("": none is named), and not compressed."""
    plain = request.headers.get("content-encoding", "identity").strip().lower() == "identity"
    if not is_accepted(request.headers.get("content-type", ""), accepted) or not plain:
        raise HTTPException(415)


def is_accepted(content_type: str, accepted: Collection[str] = JSON) -> bool:
    """Whether the header names an accepted type, in UTF-8."""
    media_type, _, parameters = content_type.partition(";")
    return media_type.strip().lower() in accepted and parameters.strip().lower() in ("", "charset=utf-8")


@asynccontextmanager
async def body_of(request: Request, limits: Limits, lifecycle: Lifecycle) -> AsyncIterator[bytes]:
    """The body, counted while it arrives and held only inside the block.

    Raises: BodyTooLarge, Overloaded, starlette's ClientDisconnect.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) < 20 and int(declared) > limits.max_body_bytes:
        raise _too_large(limits)
    pieces: list[bytes] = []
    held = 0
    try:
        async for piece in request.stream():
            if held + len(piece) > limits.max_body_bytes:
                raise _too_large(limits)
            if len(pieces) == limits.max_body_chunks and piece:  # Starlette ends every stream with an empty piece
                raise BodyTooLarge(f"more than {limits.max_body_chunks} pieces", remedy="send larger pieces")
            lifecycle.hold(len(piece))
            held += len(piece)
            pieces.append(piece)
        yield b"".join(pieces)
    finally:
        lifecycle.release(held)


def _too_large(limits: Limits) -> BodyTooLarge:
    return BodyTooLarge(f"more than {limits.max_body_bytes} bytes", remedy="send fewer candidates at once")
