"""`python -m benchmarks.memory`: what several workers hold in memory beside one, and how soon a service is ready.

The bundle is one that exists (`--bundle`), with its largest embedding table made larger (`--megabytes`): rows that no
value leads to, so that scores and golden rows stay what they were. Memory is the proportional set size of the service
and all its processes, in which a page that n of them share counts 1/n for each, after every worker has answered
predictions. Time is from starting the interpreter until /readyz says yes, with the files in the page cache and the
sources compiled, as they are in an installed service: a first start, which sees to both, does not count. Both are
medians of several starts.

Knows bundles, processes and /proc. Does not know how workers share.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import httpx
import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.environment import ROOT
from contract.bundle import MANIFEST, MODEL, publish_bundle, read_bundle
from service.api.wire import example_request

BUNDLE = ROOT / "demo" / "bundles" / "ple"
WORKERS = (1, 2, 4)
PREDICTIONS = 50  # for each worker
PATIENCE_S = 60.0


class Started(NamedTuple):
    """Seconds until ready, and MiB."""

    ready_s: float
    mebibytes: float


def enlarge(source: Path, target: Path, megabytes: int) -> None:
    """Publish the bundle again with a table so much larger."""
    bundle = read_bundle(source)
    model = onnx.load_from_string(bundle.files[MODEL])
    looked_up = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
    table = max(
        (t for t in model.graph.initializer if t.name in looked_up and len(t.dims) == 2), key=lambda t: t.dims[0]
    )
    rows = numpy_helper.to_array(table)
    more = np.random.default_rng(0).normal(0, 0.1, (megabytes * 10**6 // rows[0].nbytes, rows.shape[1]))
    table.CopyFrom(numpy_helper.from_array(np.concatenate([rows, more.astype(rows.dtype)]), table.name))
    files = {name: content for name, content in bundle.files.items() if name != MANIFEST}
    manifest = bundle.manifest.model_copy(update={"parameters": bundle.manifest.parameters + more.size})
    publish_bundle(target, manifest, files | {MODEL: model.SerializeToString()})


@contextmanager
def service(bundle: Path, workers: int, port: int) -> Iterator[tuple[int, float]]:
    """A service that is ready: its process, and how many seconds that took."""
    command = [sys.executable, "-m", "service", str(bundle), "--port", str(port), "--workers", str(workers)]
    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.monotonic()
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=compiled) as process:
        try:
            while not _is_ready(port):
                if process.poll() is not None or time.monotonic() > started + PATIENCE_S:
                    raise SystemExit(f"{' '.join(command)}: not ready")
                time.sleep(0.005)
            yield process.pid, time.monotonic() - started
        finally:
            process.terminate()
            process.terminate()  # without the delay in which load balancers would notice


def measure(bundle: Path, workers: int, port: int) -> Started:
    """Start, ask, look, stop."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", port))
        port = free.getsockname()[1]
    request = example_request(read_bundle(bundle).golden, candidates=64)
    with service(bundle, workers, port) as (pid, ready_s):
        for _ in range(PREDICTIONS * workers):  # each over a connection of its own, which goes to the next worker
            httpx.post(f"http://127.0.0.1:{port}/v1/predict", json=request, trust_env=False).raise_for_status()
        return Started(ready_s, proportional_set(pid))


def proportional_set(pid: int) -> float:
    """MiB of a process and those below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    own = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return own / 1024 + sum(proportional_set(int(child)) for child in children)


def table(measured: Mapping[int, Sequence[Started]]) -> str:
    """A line for each number of workers."""
    one = median(start.mebibytes for start in measured[min(measured)])
    lines = ["| workers | memory, MiB | of one worker's | ready after, s |", "| ---: | ---: | ---: | ---: |"]
    for workers, starts in measured.items():
        size, ready_s = (median(values) for values in zip(*[(s.mebibytes, s.ready_s) for s in starts], strict=True))
        lines.append(f"| {workers} | {size:,.0f} | {size / one:.2f}x | {ready_s:.2f} |")
    return "\n".join(lines)


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def main(argv: list[str] | None = None) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="the bundle to enlarge (%(default)s)")
    parser.add_argument("--megabytes", type=int, default=500, help="by how much (%(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--starts", type=int, default=5, help="how often each is started (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="where to serve (any free port)")
    options = parser.parse_args(argv)
    measured: dict[int, list[Started]] = {workers: [] for workers in options.workers}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as directory:
        enlarge(options.bundle, Path(directory) / "large", options.megabytes)
        measure(Path(directory) / "large", 1, options.port)
        for _ in range(options.starts):
            for workers, starts in measured.items():
                starts.append(measure(Path(directory) / "large", workers, options.port))
    print(table(measured))


if __name__ == "__main__":
    main()
