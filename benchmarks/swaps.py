"""`python -m benchmarks.swaps`: what requests notice of the model being changed under them.

One service, two versions of a bundle, and an open loop of ranking requests; phases in turn, several times over: no
swap, one every so many seconds, and one as soon as the one before is done. Latency is from when a request was due.
Every answer must be 200 and hold the scores expected; anything else is counted as lost. Medians of the repetitions.

Knows the service and its listener for operators. Does not know how a model is changed.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks.environment import ROOT
from benchmarks.serving.load import drive
from benchmarks.serving.plan import Plan
from benchmarks.serving.requests import make_plan, make_requests
from benchmarks.serving.server import free_port, serving
from contract.bundle import publish_bundle, read_bundle
from service.scoring.scorer import Scorer

BUNDLE = ROOT / "demo" / "bundles" / "ple"
CONNECTIONS = 16
WARM_UP_S = 2.0


class Phase(NamedTuple):
    """One stretch of time: ms, requests that were lost, and swaps."""

    p50_ms: float
    p99_ms: float
    lost: int
    swaps: int


class Swapper(threading.Thread):
    """Asks for the other version, `every_s` seconds after it was asked before (0: once that is done), until `stop`.

    With little Python: it shares the interpreter with what measures the latency. `failed` says why it ended early.
    """

    def __init__(self, port: int, every_s: float) -> None:
        super().__init__()
        self.swaps, self.stop, self.failed = 0, threading.Event(), ""
        self._port, self._every_s = port, every_s

    def run(self) -> None:
        """Swap."""
        try:
            while not self.stop.wait(self._every_s):
                version = self._ask("GET", "/models")["version"]
                self._ask("POST", "/swap", b'{"bundle":"2"}' if version == "1" else b'{"bundle":"1"}')
                self.swaps += 1
        except (OSError, HTTPException) as error:
            self.failed = f"the model was not changed: {error}"

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=60)) as connection:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                raise HTTPException(f"{method} {path}: {answer.status} {content!r}")
            return json.loads(content)["current"]


def phase(plan: Plan, port: int, admin: int, every_s: float | None, options: argparse.Namespace) -> Phase:
    """Drive the service while it swaps every so often; None: never."""
    swapper = Swapper(admin, every_s or 0.0)
    if every_s is not None:
        swapper.start()
    try:
        outcome = drive(plan.requests(port), port, CONNECTIONS, options.seconds, WARM_UP_S, options.rate)
    finally:
        swapper.stop.set()
        if every_s is not None:
            swapper.join()
    if swapper.failed:
        raise SystemExit(swapper.failed)
    p50, p99 = np.percentile(outcome.latencies, (50, 99)) * 1e3
    return Phase(float(p50), float(p99), outcome.refused + outcome.unanswered + outcome.wrong(plan), swapper.swaps)


def table(measured: dict[str, Sequence[Phase]]) -> str:
    """A line for each kind of phase."""
    steady = median(one.p99_ms for one in next(iter(measured.values())))
    lines = [
        "| swaps | p50, ms | p99, ms | of steady | swaps made | lost |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, phases in measured.items():
        p50, p99 = median(one.p50_ms for one in phases), median(one.p99_ms for one in phases)
        swaps, lost = sum(one.swaps for one in phases), sum(one.lost for one in phases)
        lines.append(f"| {name} | {p50:.2f} | {p99:.2f} | {p99 / steady:.2f}x | {swaps} | {lost} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.swaps", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="served as two versions of itself (%(default)s)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second (%(default)s)")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between swaps in the second phase")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each phase (%(default)s)")
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args(argv)
    kinds = {"none": None, f"one every {options.every:g} s": options.every, "back to back": 0.0}
    measured: dict[str, list[Phase]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as directory:
        folder, bundle = Path(directory), read_bundle(options.bundle)
        for version in "12":
            publish_bundle(folder / version, bundle.manifest.model_copy(update={"version": version}), bundle.files)
        scorer = Scorer.load(folder / "1")
        plan = make_plan(scorer, make_requests(scorer, options.candidates), "fullfunnel", "/v1/predict", "shared")
        port, admin = free_port(), free_port()
        command = [sys.executable, "-m", "service", str(folder / "1"), "--port", str(port), "--admin-port", str(admin)]
        command += ["--workers", str(options.workers), "--drain-delay-s", "0"]
        with serving(command, port, {"FULLFUNNEL_TRIAL_S": "0"}, folder / "log", [plan]):
            for _ in range(options.repetitions):
                for name, every_s in kinds.items():
                    measured[name].append(phase(plan, port, admin, every_s, options))
    print(table({**measured}))


if __name__ == "__main__":
    main()
