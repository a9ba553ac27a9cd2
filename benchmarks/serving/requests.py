"""The requests of the benchmark: users and candidates of a bundle's golden rows, and what `Scorer.score` says of them.

Knows bundles and the scorer. Does not know HTTP, nor who is asked.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import orjson

from benchmarks.serving.plan import Plan
from benchmarks.serving.wire import Array, Wire, encode
from service.scoring.scorer import Scorer

GraphKind = Literal["flat", "shared"]
GRAPHS: tuple[GraphKind, ...] = ("flat", "shared")
DIFFERENT = 32


@dataclass(frozen=True)
class Request:
    """One user, some candidates, and their scores [outputs, candidates]."""

    user: dict[str, Any]
    candidates: dict[str, list[Any]]
    expected: Array


def make_requests(scorer: Scorer, candidates: int, count: int = DIFFERENT, seed: int = 0) -> list[Request]:
    """So many different requests: a golden user each, with candidates drawn from all golden ones."""
    random, rows = np.random.default_rng((seed, candidates)), scorer.golden.rows
    users, items = (len(next(iter(table.values()))) for table in (rows.user, rows.candidates))
    made = []
    for i in range(count):
        chosen = random.integers(items, size=candidates).tolist()
        user = {name: values[i % users] for name, values in rows.user.items()}
        columns = {name: [values[j] for j in chosen] for name, values in rows.candidates.items()}
        scores = scorer.score({name: [value] for name, value in user.items()}, columns)
        made.append(Request(user, columns, np.array(list(scores.values()), np.float64)))
    return made


def make_plan(raw: Scorer, made: list[Request], wire: Wire, path: str, graph: GraphKind) -> Plan:
    """The requests as a system takes them: Fullfunnel raw values, the others what the graph takes.

    `raw` is a scorer that leaves strings to the graph.
    """
    outputs = [output.name for output in raw.manifest.outputs]
    bodies = [_body(raw, request, wire, graph) for request in made]
    return Plan(wire, path.format(name=raw.manifest.name), outputs, bodies, [request.expected for request in made])


def _body(raw: Scorer, request: Request, wire: Wire, graph: GraphKind) -> bytes:
    if wire == "fullfunnel":
        return orjson.dumps({"user": request.user, "candidates": request.candidates})
    feeds = dict(raw.read({name: [value] for name, value in request.user.items()}, request.candidates))
    count = len(feeds.pop(raw.manifest.row_user))
    users = [entry.name for entry in raw.manifest.inputs if entry.side == "user"]
    if graph == "shared":
        return encode(wire, feeds, users)
    return encode(wire, {n: np.repeat(x, count, axis=0) if n in users else x for n, x in feeds.items()}, ())
