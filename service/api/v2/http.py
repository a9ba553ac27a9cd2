"""The paths of the Open Inference Protocol.

Knows which path does what. Inference goes bytes -> tensors -> one run -> bytes; FastAPI only routes it. Errors
are raised as everywhere, and `problems.py` writes those of /v2 as the protocol wants them.
"""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.lifecycle import Lifecycle
from service.api.predictions import Predictions
from service.api.settings import Limits, Settings
from service.api.shortcut import Answer, Posted, Shortcuts
from service.api.together import Exchange, Together
from service.api.v2.codec import HEADER_LENGTH, answer, read_body, write_body
from service.api.v2.inference import Inference, arrays_of, check_model, of_outputs
from service.api.v2.metadata import model_config, model_metadata, server_metadata
from service.scoring.batching import split
from service.scoring.scorer import Scorer, Scores

# Triton's client names no type at all
MEDIA_TYPES = frozenset({"application/json", "application/octet-stream", ""})
MODEL = "/v2/models/{name}"
VERSION = MODEL + "/versions/{version}"
INFER = MODEL + "/infer"
ERROR = {"type": "object", "properties": {"error": {"type": "string"}}}
RAW_HEAD = b"content-type: application/octet-stream\r\n" + HEADER_LENGTH.encode() + b": %d\r\n"
RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {"description": "What went wrong", "content": {"application/json": {"schema": ERROR}}}
}
BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
}


def shortcuts(settings: Settings, lifecycle: Lifecycle) -> Shortcuts:
    """What answers whole requests at once, if they are short."""
    return {INFER: Together(settings, lifecycle, Exchange(_read, arrays_of, _answers, MEDIA_TYPES))}


def router(lifecycle: Lifecycle, predictions: Predictions) -> APIRouter:
    """All routes of the protocol."""
    routes = APIRouter(tags=["v2"], responses=RESPONSES)

    def served(name: str, version: str) -> Scorer:
        scorer = lifecycle.scorer
        check_model(scorer, name, version)
        return scorer

    @routes.get("/v2", summary="The server, and the extensions it has")
    async def server() -> dict[str, Any]:
        return server_metadata()

    @routes.get("/v2/health/live", summary="The process turns")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @routes.get("/v2/health/ready", summary="A verified model answers")
    async def ready() -> dict[str, bool]:
        lifecycle.check_ready()
        return {"ready": True}

    @routes.get(MODEL, summary="What the model takes and answers")
    @routes.get(VERSION, summary="What this version of the model takes and answers")
    async def model(name: str, version: str = "") -> dict[str, Any]:
        return model_metadata(served(name, version))

    @routes.get(f"{MODEL}/ready", summary="The model answers")
    @routes.get(f"{VERSION}/ready", summary="This version of the model answers")
    async def model_ready(name: str, version: str = "") -> dict[str, Any]:
        lifecycle.check_ready()
        served(name, version)
        return {"name": name, "ready": True}

    @routes.get(f"{MODEL}/config", summary="The model as Triton configures it")
    @routes.get(f"{VERSION}/config", summary="This version of the model as Triton configures it")
    async def config(name: str, version: str = "") -> dict[str, Any]:
        return model_config(served(name, version))

    @routes.post(INFER, summary="Score candidates sent as tensors", openapi_extra=BODY)
    @routes.post(f"{VERSION}/infer", summary="Score candidates with this version of the model", openapi_extra=BODY)
    async def infer(request: Request, name: str, version: str = "") -> Response:
        served(name, version)  # before the body is received, and again by whatever scores it
        header_length = request.headers.get(HEADER_LENGTH)

        def read(scorer: Scorer, limits: Limits, body: bytes) -> Inference:
            check_model(scorer, name, version)
            return read_body(scorer, limits, body, header_length=header_length)

        return await predictions.respond(request, read, answer, _response, MEDIA_TYPES)

    return routes


def _read(scorer: Scorer, limits: Limits, posted: Posted) -> Inference:
    check_model(scorer, posted.name, "")
    header_length = posted.headers.get(HEADER_LENGTH.encode())
    return read_body(
        scorer, limits, posted.body, header_length=None if header_length is None else header_length.decode("latin-1")
    )


def _answers(scorer: Scorer, several: Sequence[Inference], scores: Scores) -> list[Answer]:
    parts = split(scores, [asked.count for asked in several])
    return [
        _answer(*write_body(scorer, asked, of_outputs(asked, part))) for asked, part in zip(several, parts, strict=True)
    ]


def _answer(content: bytes, header_length: int | None) -> Answer:
    if header_length is None:
        return Answer(content)
    return Answer(content, RAW_HEAD % header_length)


def _response(made: tuple[bytes, int | None]) -> Response:
    content, header_length = made
    if header_length is None:
        return Response(content, media_type="application/json")
    return Response(content, headers={HEADER_LENGTH: str(header_length)}, media_type="application/octet-stream")
