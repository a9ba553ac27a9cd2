"""The paths of the API.

Knows which path does what. Predictions go bytes -> columns -> one run -> bytes; FastAPI only routes them.
"""

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.codecs import MEDIA_TYPES, codec_of
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
from service.api.predictions import Predictions, json_response
from service.api.ranking import (
    answer,
    answer_batch,
    answer_each,
    answer_each_batch,
    arrays_of,
    arrays_of_batches,
    read_batch,
    read_request,
)
from service.api.settings import Limits, Settings
from service.api.shortcut import Answer, Shortcuts
from service.api.together import Exchange, Together
from service.scoring.scorer import Feeds, Scorer

Read = Callable[[Scorer, Limits, bytes], Any]
PREDICT, BATCH = "/v1/predict", "/v1/predict:batch"
PREDICTIONS: dict[str, tuple[Read, Callable[[Scorer, Any], bytes]]] = {
    PREDICT: (read_request, answer),
    BATCH: (read_batch, answer_batch),
}


def shortcuts(settings: Settings, lifecycle: Lifecycle) -> Shortcuts:
    """What answers whole requests at once, if they are short."""

    def exchange(
        read: Read, arrays: Callable[[Scorer, Sequence[Any]], Feeds], answers: Callable[..., list[bytes]]
    ) -> Exchange[Any]:
        return Exchange(
            lambda scorer, limits, posted: read(scorer, limits, posted.body),
            arrays,
            lambda scorer, asked, scores: [Answer(content) for content in answers(scorer, asked, scores)],
        )

    return {
        PREDICT: Together(settings, lifecycle, exchange(read_request, arrays_of, answer_each)),
        BATCH: Together(settings, lifecycle, exchange(read_batch, arrays_of_batches, answer_each_batch)),
    }


def router(settings: Settings, lifecycle: Lifecycle, predictions: Predictions) -> APIRouter:
    """All routes but those of `v2/`."""
    routes = APIRouter()

    @routes.post(
        PREDICT,
        tags=["predict"],
        summary="Score the candidates of one user",
        responses={200: {"model": PredictAnswer}, **PROBLEM},
        openapi_extra=body_of(PredictRequest),
    )
    async def predict(request: Request) -> Response:
        codec = codec_of(request.headers.get("content-type", ""), request.headers.get("accept", ""))
        return await predictions.respond(request, *codec, MEDIA_TYPES)

    @routes.post(
        BATCH,
        tags=["predict"],
        summary="Score the candidates of several users in one run",
        responses={200: {"model": BatchAnswer}, **PROBLEM},
        openapi_extra=body_of(BatchRequest),
    )
    async def predict_batch(request: Request) -> Response:
        return await predictions.respond(request, *PREDICTIONS[BATCH], json_response)

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
