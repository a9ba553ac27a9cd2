"""In which form a request to /v1/predict comes and its answer goes: JSON, or Arrow where pyarrow is installed.

Knows media types, and what reads and writes each. Does not know what is in a body.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple

from fastapi import Response

from service.api import ranking
from service.api.settings import Limits
from service.api.wire import PlainRequest, RankingRequest
from service.scoring.scorer import Scorer

JSON, ARROW = "application/json", "application/vnd.apache.arrow.stream"
MEDIA_TYPES = frozenset({JSON, ARROW} if find_spec("pyarrow") else {JSON})


class Codec(NamedTuple):
    """How a request is read and its answer written, as `Predictions.respond` wants it."""

    read: Callable[[Scorer, Limits, bytes], RankingRequest | PlainRequest]
    answer: Callable[[Scorer, RankingRequest | PlainRequest], bytes]
    response: Callable[[bytes], Response]


def codec_of(content_type: str, accept: str) -> Codec:
    """The codec for a request with these headers; an answer has the form of the request, unless one is asked for."""
    sent, wanted = media_type(content_type), {media_type(one) for one in accept.split(",")}
    answered = next((kind for kind in (ARROW, JSON) if kind in wanted), sent)
    read, answer = ranking.read_request, ranking.answer
    if ARROW in MEDIA_TYPES & {sent, answered}:
        from service.api import arrow  # pyarrow is large, and most services never need it

        read = arrow.read_request if sent == ARROW else read
        answer = arrow.answer if answered == ARROW else answer
    kind = answered if answered in MEDIA_TYPES else JSON
    return Codec(read, answer, partial(Response, media_type=kind))


def media_type(header: str) -> str:
    """What a header names, without its parameters.

    >>> media_type("Application/JSON; charset=utf-8")
    'application/json'
    """
    return header.partition(";")[0].strip().lower()
