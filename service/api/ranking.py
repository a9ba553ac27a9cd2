"""Requests as answers: one run of the model for all of them, then each one's own order and length.

Knows requests and the scorer. Does not know HTTP; the command line answers through it too.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from contract.errors import RequestInvalid
from service.api.settings import Limits
from service.api.wire import PlainRequest, RankingRequest, Wire, within
from service.scoring.batching import split
from service.scoring.columns import Table, raise_all
from service.scoring.scorer import Feeds, Scorer, Scores


def read_request(scorer: Scorer, limits: Limits, body: bytes) -> RankingRequest | PlainRequest:
    """The body of /v1/predict.

    Raises: RequestInvalid.
    """
    return wire_of(scorer, limits).read(body)


def read_batch(scorer: Scorer, limits: Limits, body: bytes) -> list[RankingRequest]:
    """The body of /v1/predict:batch.

    Raises: RequestInvalid.
    """
    return wire_of(scorer, limits).read_batch(body)


def answer(scorer: Scorer, request: RankingRequest | PlainRequest) -> bytes:
    """The JSON that answers one request.

    Raises: RequestInvalid, ScoreInvalid.
    """
    return _json({"model": name_of(scorer), **ranked(scorer, request)})


def ranked(scorer: Scorer, request: RankingRequest | PlainRequest) -> Mapping[str, NDArray[Any]]:
    """The scores in the order asked for.

    Raises: RequestInvalid, ScoreInvalid.
    """
    return _ranked(request, scorer.scores(arrays_of(scorer, [request])))


def arrays_of(scorer: Scorer, requests: Sequence[RankingRequest | PlainRequest]) -> Feeds:
    """What one run takes that scores all of these requests.

    Raises: RequestInvalid where one of them is at fault.
    """
    plain = [request.plain for request in requests if isinstance(request, PlainRequest)]
    if len(plain) < len(requests):
        return scorer.read(*_tables(_as_columns(requests)))
    return scorer.read_plain(plain, lambda: _tables(_as_columns(requests))[:2])


def answer_each(scorer: Scorer, requests: Sequence[RankingRequest | PlainRequest], scores: Scores) -> list[bytes]:
    """The JSON that answers each of several requests, from the scores of the run they shared."""
    model = name_of(scorer)
    return [_json({"model": model, **result}) for result in _results(requests, scores)]


def arrays_of_batches(scorer: Scorer, batches: Sequence[Sequence[RankingRequest]]) -> Feeds:
    """What one run takes that scores all requests of these batches.

    Raises: RequestInvalid where one of them is at fault.
    """
    return arrays_of(scorer, list(chain.from_iterable(batches)))


def answer_each_batch(scorer: Scorer, batches: Sequence[Sequence[RankingRequest]], scores: Scores) -> list[bytes]:
    """The JSON that answers each of several batches, from the scores of the run they shared."""
    model, results = name_of(scorer), _results(list(chain.from_iterable(batches)), scores)
    return [_json({"model": model, "results": list(islice(results, len(batch)))}) for batch in batches]


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
        scores = scorer.score(*_tables(requests))
    except RequestInvalid:
        _name_the_request(scorer, requests)
        raise
    return answer_each_batch(scorer, [requests], scores)[0]


def wire_of(scorer: Scorer, limits: Limits) -> Wire:
    """What reads requests for this scorer."""
    return Wire(limits, scorer.candidates.features, scorer.manifest.outputs, scorer.requests)


def name_of(scorer: Scorer) -> dict[str, str]:
    """Which model answers."""
    return {"name": scorer.manifest.name, "version": scorer.manifest.version, "digest": scorer.digest}


def _as_columns(requests: Iterable[RankingRequest | PlainRequest]) -> list[RankingRequest]:
    return [request.columns() if isinstance(request, PlainRequest) else request for request in requests]


def _results(requests: Sequence[RankingRequest | PlainRequest], scores: Scores) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Each request's scores in the order it asked for."""
    return map(_ranked, requests, split(scores, [request.count for request in requests]))


def _tables(requests: Sequence[RankingRequest]) -> tuple[Table, Table, NDArray[np.int64]]:
    """Users, candidates, and each candidate's user; what a request does not give is missing in its rows."""
    names = dict.fromkeys(chain.from_iterable(request.user for request in requests))
    users = {name: [request.user.get(name) for request in requests] for name in names}
    if len(requests) == 1:
        return users, requests[0].candidates, np.zeros(requests[0].count, dtype=np.int64)
    candidates: dict[str, list[Any]] = {
        name: [] for name in dict.fromkeys(chain.from_iterable(request.candidates for request in requests))
    }
    for request in requests:
        for name, column in candidates.items():
            column.extend(request.candidates.get(name) or [None] * request.count)
    return users, candidates, np.repeat(np.arange(len(requests)), [request.count for request in requests])


def _name_the_request(scorer: Scorer, requests: Sequence[RankingRequest]) -> None:
    """Something is wrong in one of them: find out where, one request at a time."""
    faults = []
    for index, request in enumerate(requests):
        try:
            arrays_of(scorer, [request])
        except RequestInvalid as fault:
            faults.append(within(fault, f"requests[{index}]"))
    raise_all(faults)


def _ranked(request: RankingRequest | PlainRequest, scores: Scores) -> Mapping[str, NDArray[Any]]:
    """Scores in the order asked for, with the candidates' positions in the request as `index`."""
    if request.order_by is None:
        return scores
    index = np.argsort(-scores[request.order_by], kind="stable")[: request.top_k]
    return {**{name: values[index] for name, values in scores.items()}, "index": index}


def _json(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
