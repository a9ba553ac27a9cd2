"""One prediction, whatever the protocol: admitted, read, scored and answered.

Knows where the work is done: short runs on the event loop, long ones in a thread. Does not know what is in a body or an
answer: it is given functions that do.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from service.api.lifecycle import Counted, Lifecycle
from service.api.receiving import JSON, body_of, check_media_type
from service.api.settings import Limits, Settings
from service.scoring.batching import Batcher
from service.scoring.scorer import Feeds, Scorer, Scores

# of larger bodies also the reading takes long, however few candidates there are
INLINE_BYTES = 256 * 1024


Asked = TypeVar("Asked", bound=Counted | list[Any])
Answer = TypeVar("Answer")


def json_response(content: bytes) -> Response:
    """The response that carries JSON."""
    return Response(content, media_type="application/json")


class Predictions:
    """Receives a body, reads it, scores it, answers: short ones on the event loop, long ones in a thread.

    Where runs are shared, each waits for its run in a thread of its own.
    """

    def __init__(self, settings: Settings, lifecycle: Lifecycle) -> None:
        self._settings, self._lifecycle = settings, lifecycle

    async def respond(
        self,
        request: Request,
        read: Callable[[Scorer, Limits, bytes], Asked],
        answer: Callable[[Scorer, Asked], Answer],
        response: Callable[[Answer], Response],
        media_types: frozenset[str] = JSON,
    ) -> Response:
        """One prediction over HTTP.

        Raises: RequestInvalid, NotReady, Overloaded, ScoreInvalid, HTTPException.
        """
        self._lifecycle.scorer  # noqa: B018  without one there is no need to receive anything
        check_media_type(request, media_types)
        async with body_of(request, self._settings.limits, self._lifecycle) as body:
            making = self.make(read, answer, body)
            return response(await (_unless_gone(request, making) if self._lifecycle.batcher else making))

    async def make(
        self, read: Callable[[Scorer, Limits, bytes], Asked], answer: Callable[[Scorer, Asked], Answer], body: bytes
    ) -> Answer:
        """The answer to a body.

        Raises: RequestInvalid, NotReady, Overloaded, ScoreInvalid.
        """
        scorer = self._lifecycle.scorer
        with self._lifecycle.prediction():
            asked = read(scorer, self._settings.limits, body)
            self._lifecycle.note(asked)
            if self._lifecycle.batcher is not None:
                return await self._together(self._lifecycle.batcher, scorer, answer, asked)
            if len(body) <= INLINE_BYTES and expected_ms(scorer, asked) <= self._settings.inline_ms:
                return self._answer(answer, scorer, asked, time.monotonic())
            loop, now = asyncio.get_running_loop(), time.monotonic()
            return await loop.run_in_executor(self._lifecycle.threads, self._answer, answer, scorer, asked, now)

    def _answer(self, answer: Callable[[Scorer, Asked], Answer], scorer: Scorer, asked: Asked, since: float) -> Answer:
        self._lifecycle.recorder.queued(time.monotonic() - since)
        return answer(scorer, asked)

    async def _together(
        self, batcher: Batcher, scorer: Scorer, answer: Callable[[Scorer, Asked], Answer], asked: Asked
    ) -> Answer:
        """The answer, from a run that other requests share; cancelled before that, it costs no run."""
        jobs: list[Future[Scores]] = []

        def run(feeds: Feeds) -> Scores:
            jobs.append(batcher.put(scorer, feeds))
            return jobs[-1].result()

        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._lifecycle.waiting, answer, scorer.through(run), asked)
        except asyncio.CancelledError:
            for job in jobs:
                job.cancel()
            raise


def expected_ms(scorer: Scorer, asked: Counted | list[Any]) -> float:
    """How long a run of this is expected to take."""
    count = sum(request.count for request in asked) if isinstance(asked, list) else asked.count
    return count * scorer.row_ms


async def _unless_gone(request: Request, making: Coroutine[Any, Any, Answer]) -> Answer:
    """What is being made, or ClientDisconnect as soon as nobody waits for it any more."""
    work, gone = asyncio.ensure_future(making), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        work.cancel()
        gone.cancel()
