"""The limit: a session run on ready arrays, again and again, in one process. No server, no JSON, no clients.

`python -m benchmarks.serving.engine PLAN --seconds S` runs the graph that the environment names, as the peers do, and
with `--bundle BUNDLE` Fullfunnel's own session, which gets strings looked up before.

Knows sessions, and requests in their wire format. Does not know servers.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.records import Figures
from benchmarks.serving.peers.onnx_graph import Graph
from benchmarks.serving.plan import TOLERANCE, Plan
from service.scoring.scorer import Scorer

Run = Callable[[], Sequence[Any]]  # -> the scores of each output


def runs_of_graph(plan: Plan) -> list[Run]:
    """Each request on the graph that the environment names."""
    graph = Graph()
    return [
        partial(graph.session.run, plan.outputs, graph.completed(graph.feeds(orjson.loads(body))))
        for body in plan.bodies
    ]


def runs_of_bundle(plan: Plan, bundle: Path) -> list[Run]:
    """Each request on the session of the scorer, from the arrays that the scorer would give it."""
    scorer, runs = Scorer.load(bundle), list[Run]()
    for request in map(orjson.loads, plan.bodies):
        user = {name: [value] for name, value in request["user"].items()}
        runs.append(partial(scorer.session.run, plan.outputs, scorer.read(user, request["candidates"])))
    return runs


def measure(plan: Plan, runs: Sequence[Run], seconds: float, warm_up: float) -> Figures:
    """The figures of `load.py`, as far as there are any. Raises: SystemExit when scores are not those expected."""
    for run, expected in zip(runs, plan.expected, strict=True):
        if not np.abs(np.array(run()) - expected).max() <= TOLERANCE:
            raise SystemExit("engine: the scores are not those expected")
    _loop(runs, warm_up)
    cpu, started = time.process_time(), time.perf_counter()
    latencies = _loop(runs, seconds)
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    p50, p99 = np.percentile(latencies, (50, 99)) * 1e3
    return {
        "requests_per_second": len(latencies) / elapsed,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "cpu_s_per_1000": cpu * 1e3 / len(latencies),
    }


def _loop(runs: Sequence[Run], seconds: float) -> list[float]:
    """Seconds of each run."""
    latencies: list[float] = []
    before = time.perf_counter()
    end = before + seconds
    for run in itertools.cycle(runs):
        if before >= end and latencies:
            break
        run()
        now = time.perf_counter()
        latencies.append(now - before)
        before = now
    return latencies


def main(argv: list[str] | None = None) -> None:
    """Parse, run, print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.engine", description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--warm-up", type=float, default=0.0)
    parser.add_argument("--bundle", type=Path)
    options = parser.parse_args(argv)
    plan = Plan.read(options.plan)
    runs = runs_of_bundle(plan, options.bundle) if options.bundle else runs_of_graph(plan)
    print(json.dumps(measure(plan, runs, options.seconds, options.warm_up)))


if __name__ == "__main__":
    main()
