"""The paths of the API.

Knows which path does what. Predictions go bytes -> columns -> one run -> bytes; FastAPI only routes them.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.describe import (
    PROBLEM,
    BatchAnswer,
    BatchRequest,
    ModelFacts,
    PredictAnswer,
    PredictRequest,
    State,
    body_of,
    model_facts,
)
from service.api.lifecycle import Lifecycle
from service.api.ranking import answer, answer_batch, wire_of
from service.api.receiving import body_of as received
from service.api.receiving import check_media_type
from service.api.settings import Limits, Settings
from service.api.shortcut import Shortcuts
from service.api.wire import RankingRequest, Wire
from service.scoring.scorer import Scorer

Read = Callable[[Wire, bytes], Any]
Answer = Callable[[Scorer, Any], bytes]
PREDICT, BATCH = "/v1/predict", "/v1/predict:batch"
PREDICTIONS: dict[str, tuple[Read, Answer]] = {
    PREDICT: (Wire.read_request, answer),
    BATCH: (Wire.read_batch, answer_batch),
}


class Predictions:
    """Receives a body, reads it, scores it, answers: short ones on the event loop, long ones in a thread."""

    def __init__(self, settings: Settings, lifecycle: Lifecycle) -> None:
        self._settings, self._lifecycle = settings, lifecycle

    async def respond(self, request: Request, read: Read, make: Answer) -> Response:
        """One prediction.

        Raises: RequestInvalid, NotReady, Overloaded, ScoreInvalid, HTTPException.
        """
        scorer, limits = self._lifecycle.scorer, self._settings.limits
        check_media_type(request)
        async with received(request, limits, self._lifecycle) as body:
            with self._lifecycle.prediction():
                asked = read(wire_of(scorer, limits), body)
                if self._is_short(scorer, asked):
                    content = make(scorer, asked)
                else:
                    loop = asyncio.get_running_loop()
                    content = await loop.run_in_executor(self._lifecycle.threads, make, scorer, asked)
        return Response(content, media_type="application/json")

    def shortcuts(self) -> Shortcuts:
        """What answers a whole body at once, if it is short."""

        def at_once(read: Read, make: Answer, body: bytes) -> bytes | None:
            scorer = self._lifecycle.scorer
            with self._lifecycle.prediction():
                asked = read(wire_of(scorer, self._settings.limits), body)
                return make(scorer, asked) if self._is_short(scorer, asked) else None

        return {path.encode(): partial(at_once, *how) for path, how in PREDICTIONS.items()}

    def _is_short(self, scorer: Scorer, asked: RankingRequest | Sequence[RankingRequest]) -> bool:
        """Whether the run is expected to be over before anyone could mind."""
        requests = [asked] if isinstance(asked, RankingRequest) else asked
        return sum(request.count for request in requests) * scorer.row_ms <= self._settings.inline_ms


def router(settings: Settings, lifecycle: Lifecycle) -> APIRouter:
    """All routes."""
    routes = APIRouter()
    predictions = Predictions(settings, lifecycle)

    @routes.post(
        PREDICT,
        tags=["predict"],
        summary="Score the candidates of one user",
        responses={200: {"model": PredictAnswer}, **PROBLEM},
        openapi_extra=body_of(PredictRequest),
    )
    async def predict(request: Request) -> Response:
        return await predictions.respond(request, *PREDICTIONS[PREDICT])

    @routes.post(
        BATCH,
        tags=["predict"],
        summary="Score the candidates of several users in one run",
        responses={200: {"model": BatchAnswer}, **PROBLEM},
        openapi_extra=body_of(BatchRequest),
    )
    async def predict_batch(request: Request) -> Response:
        return await predictions.respond(request, *PREDICTIONS[BATCH])

    @routes.get("/v1/model", tags=["facts"], summary="What the model takes, answers, and is worth", responses=PROBLEM)
    async def model() -> ModelFacts:
        return model_facts(lifecycle.scorer, settings.limits)

    @routes.get("/v1/limits", tags=["facts"], summary="What a request may hold")
    async def limits() -> Limits:
        return settings.limits

    @routes.get("/livez", tags=["health"], summary="The process turns")
    async def livez() -> State:
        return State(status="alive")

    @routes.get("/readyz", tags=["health"], summary="A verified model answers", responses=PROBLEM)
    async def readyz() -> State:
        lifecycle.check_ready()
        return State(status="ready")

    return routes
