"""The body of a request, no larger and in no more pieces than allowed.

Knows content types and sizes. Does not know what is in the body. How long it may take is `protocol.py`'s to say.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import lru_cache

from starlette.exceptions import HTTPException
from starlette.requests import Request

from contract.errors import BodyTooLarge
from service.api.lifecycle import Lifecycle
from service.api.settings import SMALL_PIECE, Limits

JSON = frozenset({"application/json"})


def check_media_type(request: Request, accepted: frozenset[str] = JSON) -> None:
    """Raises: HTTPException 415 unless the body is of an accepted type ("": none is named), and not compressed."""
    plain = request.headers.get("content-encoding", "identity").strip().lower() == "identity"
    if not is_accepted(request.headers.get("content-type", ""), accepted) or not plain:
        raise HTTPException(415)


@lru_cache(maxsize=64)
def is_accepted(content_type: str, accepted: frozenset[str] = JSON) -> bool:
    """Whether the header names an accepted type, in UTF-8."""
    media_type, _, parameters = content_type.partition(";")
    return media_type.strip().lower() in accepted and parameters.strip().lower() in ("", "charset=utf-8")


@asynccontextmanager
async def body_of(request: Request, limits: Limits, lifecycle: Lifecycle) -> AsyncIterator[bytes]:
    """The body, counted while it arrives and held only inside the block.

    Raises: BodyTooLarge, Overloaded, starlette's ClientDisconnect.
    """
    held = 0

    def hold(size: int) -> None:
        nonlocal held
        lifecycle.hold(size)
        held += size

    try:
        yield await received(request, limits.max_body_bytes, limits.max_body_chunks, hold)
    finally:
        lifecycle.release(held)


async def received(
    request: Request, max_bytes: int, max_pieces: int, hold: Callable[[int], None] = lambda size: None
) -> bytes:
    """The body, counted while it arrives; `hold` is told of each piece first.

    Raises: BodyTooLarge, starlette's ClientDisconnect, what `hold` raises.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) < 20 and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    pieces: list[bytes] = []
    size = small = 0
    async for piece in request.stream():
        if size + len(piece) > max_bytes:
            raise _too_large(max_bytes)
        small += 0 < len(piece) < SMALL_PIECE  # Starlette ends every stream with an empty piece
        if small > max_pieces:
            raise BodyTooLarge(f"more than {max_pieces} small pieces", remedy="send larger pieces")
        hold(len(piece))
        size += len(piece)
        pieces.append(piece)
    return b"".join(pieces)


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"more than {max_bytes} bytes", remedy="send less at once")
