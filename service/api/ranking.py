"""Requests as answers: one run of the model for all of them, then each one's own order and length.

Knows requests and the scorer. Does not know HTTP; the command line answers through it too.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from contract.errors import RequestInvalid
from service.api.settings import Limits
from service.api.wire import RankingRequest, Wire, within
from service.scoring.columns import raise_all
from service.scoring.scorer import Scorer

Scores = dict[str, NDArray[np.float32]]


def read_request(scorer: Scorer, limits: Limits, body: bytes) -> RankingRequest:
    """The body of /v1/predict.

    Raises: RequestInvalid.
    """
    return wire_of(scorer, limits).read_request(body)


def read_batch(scorer: Scorer, limits: Limits, body: bytes) -> list[RankingRequest]:
    """The body of /v1/predict:batch.

    Raises: RequestInvalid.
    """
    return wire_of(scorer, limits).read_batch(body)


def answer(scorer: Scorer, request: RankingRequest) -> bytes:
    """The JSON that answers one request.

    Raises: RequestInvalid, ScoreInvalid.
    """
    return _json({"model": name_of(scorer), **ranked(scorer, request)})


def ranked(scorer: Scorer, request: RankingRequest) -> dict[str, NDArray[Any]]:
    """The scores in the order asked for.

    Raises: RequestInvalid, ScoreInvalid.
    """
    users = {name: [value] for name, value in request.user.items()}
    return _ranked(request, scorer.score(users, request.candidates, np.zeros(request.count, dtype=np.int64)))


def answer_each(scorer: Scorer, requests: Sequence[RankingRequest]) -> list[bytes]:
    """The JSON that answers each of several requests, scored in one run.

    Raises: RequestInvalid where one of them is at fault, ScoreInvalid.
    """
    if len(requests) == 1:
        return [answer(scorer, requests[0])]
    model = name_of(scorer)
    return [_json({"model": model, **result}) for result in _scored_together(scorer, requests)]


def answer_batch(scorer: Scorer, requests: Sequence[RankingRequest]) -> bytes:
    """The JSON that answers several requests, in their order, scored in one run.

    Raises: RequestInvalid, ScoreInvalid.
    """
    raise_all(
        [
            within(fault, f"requests[{index}]")
            for index, request in enumerate(requests)
            for fault in scorer.unknown(request.user, request.candidates)
        ]
    )
    try:
        results = _scored_together(scorer, requests)
    except RequestInvalid:
        _name_the_request(scorer, requests)
        raise
    return _json({"model": name_of(scorer), "results": results})


def wire_of(scorer: Scorer, limits: Limits) -> Wire:
    """What reads requests for this scorer."""
    return Wire(limits, scorer.candidates.features, scorer.manifest.outputs)


def name_of(scorer: Scorer) -> dict[str, str]:
    """Which model answers."""
    return {"name": scorer.manifest.name, "version": scorer.manifest.version, "digest": scorer.digest}


def _scored_together(scorer: Scorer, requests: Sequence[RankingRequest]) -> list[dict[str, NDArray[Any]]]:
    """Each request's scores in the order it asked for, from one run."""
    counts = [request.count for request in requests]
    scores = scorer.score(*_merged(requests), np.repeat(np.arange(len(requests)), counts))
    results, start = [], 0
    for request in requests:
        stop = start + request.count
        results.append(_ranked(request, {name: values[start:stop] for name, values in scores.items()}))
        start = stop
    return results


def _merged(requests: Sequence[RankingRequest]) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """One table of users and one of candidates; what a request does not give is missing in its rows."""
    user_names = dict.fromkeys(chain.from_iterable(request.user for request in requests))
    names = dict.fromkeys(chain.from_iterable(request.candidates for request in requests))
    users = {name: [request.user.get(name) for request in requests] for name in user_names}
    candidates = {
        name: list(chain.from_iterable(request.candidates.get(name) or [None] * request.count for request in requests))
        for name in names
    }
    return users, candidates


def _name_the_request(scorer: Scorer, requests: Sequence[RankingRequest]) -> None:
    """Something is wrong in one of them: find out where, one request at a time."""
    faults = []
    for index, request in enumerate(requests):
        users = {name: [value] for name, value in request.user.items()}
        try:
            scorer.read(users, request.candidates, np.zeros(request.count, dtype=np.int64))
        except RequestInvalid as fault:
            faults.append(within(fault, f"requests[{index}]"))
    raise_all(faults)


def _ranked(request: RankingRequest, scores: Scores) -> dict[str, NDArray[Any]]:
    """Scores in the order asked for, with the candidates' positions in the request as `index`."""
    if request.order_by is None:
        return {**scores}
    index = np.argsort(-scores[request.order_by], kind="stable")[: request.top_k]
    return {**{name: values[index] for name, values in scores.items()}, "index": index}


def _json(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
