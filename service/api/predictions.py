"""One prediction, whatever the protocol: admitted, read, scored and answered.

Knows where the work is done: short runs on the event loop, long ones in a thread. Does not know what is in a body or an
answer: it is given functions that do.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Protocol, TypeVar

from fastapi import Request, Response

from service.api.lifecycle import Lifecycle
from service.api.receiving import JSON, body_of, check_media_type
from service.api.settings import Limits, Settings
from service.scoring.scorer import Scorer

# of larger bodies also the reading takes long, however few candidates there are
INLINE_BYTES = 256 * 1024


class Counted(Protocol):
    """A request that has been read."""

    @property
    def count(self) -> int:
        """How many candidates it asks about."""


Asked = TypeVar("Asked", bound=Counted | Sequence[Counted])
Answer = TypeVar("Answer")


def json_response(content: bytes) -> Response:
    """The response that carries JSON."""
    return Response(content, media_type="application/json")


class Predictions:
    """Receives a body, reads it, scores it, answers: short ones on the event loop, long ones in a thread."""

    def __init__(self, settings: Settings, lifecycle: Lifecycle) -> None:
        self._settings, self._lifecycle = settings, lifecycle

    async def respond(
        self,
        request: Request,
        read: Callable[[Scorer, Limits, bytes], Asked],
        answer: Callable[[Scorer, Asked], Answer],
        response: Callable[[Answer], Response],
        media_types: Collection[str] = JSON,
    ) -> Response:
        """One prediction over HTTP.

        Raises: RequestInvalid, NotReady, Overloaded, ScoreInvalid, HTTPException.
        """
        self._lifecycle.scorer  # noqa: B018  without one there is no need to receive anything
        check_media_type(request, media_types)
        async with body_of(request, self._settings.limits, self._lifecycle) as body:
            return response(await self.make(read, answer, body))

    async def make(
        self, read: Callable[[Scorer, Limits, bytes], Asked], answer: Callable[[Scorer, Asked], Answer], body: bytes
    ) -> Answer:
        """The answer to a body.

        Raises: RequestInvalid, NotReady, Overloaded, ScoreInvalid.
        """
        scorer = self._lifecycle.scorer
        with self._lifecycle.prediction():
            asked = read(scorer, self._settings.limits, body)
            if len(body) <= INLINE_BYTES and self._is_short(scorer, asked):
                return answer(scorer, asked)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._lifecycle.threads, answer, scorer, asked)

    def at_once(
        self, read: Callable[[Scorer, Limits, bytes], Asked], answer: Callable[[Scorer, Asked], Answer], body: bytes
    ) -> Answer | None:
        """The same, now; None where that would take long.

        Raises: RequestInvalid, NotReady, Overloaded, ScoreInvalid.
        """
        scorer = self._lifecycle.scorer
        with self._lifecycle.prediction():
            asked = read(scorer, self._settings.limits, body)
            return answer(scorer, asked) if self._is_short(scorer, asked) else None

    def _is_short(self, scorer: Scorer, asked: Counted | Sequence[Counted]) -> bool:
        """Whether the run is expected to be over before anyone could mind."""
        requests = asked if isinstance(asked, Sequence) else [asked]
        return sum(request.count for request in requests) * scorer.row_ms <= self._settings.inline_ms
