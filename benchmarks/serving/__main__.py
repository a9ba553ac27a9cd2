"""`python -m benchmarks.serving --bundle BUNDLE`: requests/s, latency, CPU and memory of Fullfunnel and other servers.

Every repetition starts each server in turn, has it answer every request as `Scorer.score` does, and puts each load on
it, so that what else happens on the machine hits all alike; medians of the repetitions are compared. In the "flat"
tables the peers serve the flat graph, in which every candidate brings the user's features, as a model exported the
usual way has it; in the "shared" tables they serve the bundle's own graph. Fullfunnel serves the bundle in both. What
runs "alone" does so in a loop in one process, on ready arrays: the peers' graph, and the session that Fullfunnel runs
after looking up strings; a server's requests/s are also given as a part of those of what it runs. CPU and memory are
those of the server's process tree, a shared page counted once. Measurements are kept, and not made again while
settings and sources are the same.

Knows what may be asked for. Does not know how a server is started, driven or judged.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.records import Records
from benchmarks.serving.graphs import flat_graph, saved
from benchmarks.serving.requests import GRAPHS, GraphKind, make_requests
from benchmarks.serving.rounds import Benchmark
from benchmarks.serving.server import ROOT
from benchmarks.serving.systems import SYSTEMS
from benchmarks.serving.table import Load
from contract.bundle import MODEL, read_bundle
from service.scoring.scorer import Scorer
from service.scoring.settings import ScoringSettings


def main(argv: list[str] | None = None) -> None:
    """Parse, prepare, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    names = [system.name for system in SYSTEMS]
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--systems", nargs="+", choices=names, default=names)
    parser.add_argument("--graph", nargs="+", choices=GRAPHS, default=list(GRAPHS), help="that the peers serve")
    parser.add_argument("--candidates", nargs="+", type=int, default=[1, 100, 500])
    parser.add_argument("--connections", nargs="*", type=int, default=[4, 64], help="closed loops")
    parser.add_argument("--rates", nargs="*", type=float, default=[20.0], help="open loops, requests a second")
    parser.add_argument("--workers", type=int, default=2, help="processes of each server")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load in each repetition")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "benchmarks", help="environments, graphs, records")
    options = parser.parse_args(argv)
    loads = [
        Load(candidates, connections, rate)
        for candidates in options.candidates
        for connections, rate in [*((c, None) for c in options.connections), *((64, r) for r in options.rates)]
    ]
    model, scorer = read_bundle(options.bundle).files[MODEL], Scorer.load(options.bundle)
    raw = Scorer.load(options.bundle, ScoringSettings(max_words=0))
    folder = options.data / "serving"
    graphs: dict[GraphKind, Path] = {
        "flat": saved(flat_graph(model), folder / f"{scorer.digest[:16]}-flat.onnx"),
        "shared": options.bundle / MODEL,
    }
    requests = {candidates: make_requests(scorer, candidates) for candidates in options.candidates}
    with tempfile.TemporaryDirectory() as plans:
        records = Records(folder / "figures.jsonl")
        benchmark = Benchmark(options, scorer, raw, graphs, Path(plans), records, loads, requests)
        benchmark.run()
    for graph in options.graph:
        print(f"### The {graph} graph, workers: {options.workers}\n\n{benchmark.tables(graph)}\n")


if __name__ == "__main__":
    main()
