"""`python -m benchmarks.batch`: Parquet in, scores out: `fullfunnel score`, its session alone, and what people write.

A simulated log, in which the rows of a request follow each other, is scored by each in turn. The limit is the session
that `fullfunnel score` runs, on arrays that are ready, in as many processes as there are cores. What people write runs
the flat graph of the same bundle in an environment of its own; all scores must be Fullfunnel's by 1e-6. Memory is the
proportional set size of the process tree, sampled; utilisation is processor time over time and cores. Times are of the
whole process, start and imports included, but for the limit, which has none.

Knows commands and /proc. Does not know how rows are scored.
"""

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from benchmarks.environment import ROOT, interpreter
from benchmarks.serving.graphs import flat_graph, saved
from benchmarks.serving.processes import cpu_seconds, memory_mib, spent
from contract.bundle import MODEL, read_bundle
from service.batch.arrays import Arrays
from service.batch.formats.codec import CHUNK_ROWS, Wanted
from service.batch.formats.parquet import Parquet
from service.batch.scoring import TableScorer
from service.scoring.scorer import Scorer

BUNDLE = ROOT / "demo" / "bundles" / "ple"
LIMIT, OURS = "the session alone, on ready arrays", "fullfunnel score"
PEERS = {
    "pandas": "pandas chunks, onnxruntime",
    "polars": "polars, onnxruntime",
    "ray": "Ray Data map_batches, onnxruntime",
}
READY_CHUNKS = 12
SAMPLE_S = 0.1
MEMORY_SAMPLE = 5  # one in so many: the kernel walks through all pages of all processes, while they run
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Figures:
    """Of one run."""

    rows_per_s: float
    peak_mib: float = 0.0
    utilisation: float = 0.0


def watched(command: list[str | Path], rows: int, cores: int) -> Figures:
    """Run a command to its end. Raises: SystemExit when it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    environment |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    started, peak, cpu = time.perf_counter(), 0.0, dict[int, float]()
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    for sample in count():
        cpu |= cpu_seconds(process.pid)
        if sample % MEMORY_SAMPLE == 0:
            peak = max(peak, memory_mib(process.pid))
        with suppress(subprocess.TimeoutExpired):
            process.wait(SAMPLE_S)
            break
    seconds = time.perf_counter() - started
    if process.returncode:
        assert process.stderr
        raise SystemExit(f"{command}: {process.stderr.read()[-2000:]}")
    return Figures(rows / seconds, peak, spent({}, cpu) / seconds / cores)


def limit(bundle: Path, source: Path, cores: int, seconds: float) -> Figures:
    """The session on arrays of rows of the same file, in a process for each core at the same time."""
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        rates = pool.starmap(_session_rate, [(bundle, source, seconds)] * cores)
    return Figures(sum(rates), utilisation=1.0)


def _session_rate(bundle: Path, source: Path, seconds: float) -> float:
    """Rows a second."""
    scorer = Scorer.load(bundle)
    wanted = Wanted(tuple(entry.name for entry in scorer.manifest.inputs), {}, frozenset())
    arrays, tables, codec = Arrays(scorer), TableScorer(scorer), Parquet()
    with pa.OSFile(str(source)) as file:
        blocks = codec.survey(file, wanted).blocks
        chunks = (chunk for block in blocks for chunk in codec.chunks(file, block, wanted))
        whole = (chunk.batch for chunk in chunks if chunk.batch.num_rows == CHUNK_ROWS)
        feeds = [part for batch in islice(whole, READY_CHUNKS) for part in tables.parts(arrays.read(batch).feeds)]
    names = [entry.name for entry in scorer.manifest.outputs]
    row_user, done, started = scorer.manifest.row_user, 0, 0.0
    for number, part in enumerate(cycle(feeds)):
        if number == len(feeds) // 4:  # warm
            started, done = time.perf_counter(), 0
        scorer.session.run(names, part)
        done += len(part[row_user])
        if started and time.perf_counter() - started > seconds:
            break
    return done / (time.perf_counter() - started)


def check(name: str, target: Path, expected: pa.Table) -> None:
    """Raises: SystemExit where scores are not Fullfunnel's."""
    found = ds.dataset(target, format="parquet").to_table()
    if "impression_id" in found.schema.names:
        found = found.sort_by("impression_id")
    for column in expected.schema.names:
        difference = np.abs(found[column].to_numpy() - expected[column].to_numpy()).max()
        if not difference <= TOLERANCE:
            raise SystemExit(f"{name}: {column} differs by {difference:.1e}")


def measure(options: argparse.Namespace, source: Path, work: Path) -> dict[str, list[Figures]]:
    """Each system in turn, as often as asked for."""
    rows, cores = pq.read_metadata(source).num_rows, options.cores
    graph = saved(flat_graph(read_bundle(options.bundle).files[MODEL]), work / "flat.onnx")
    ours = work / "scores.parquet"
    found: dict[str, list[Figures]] = {}
    for _ in range(options.repetitions):
        print(LIMIT, file=sys.stderr)
        found.setdefault(LIMIT, []).append(limit(options.bundle, source, cores, options.seconds))
        print(OURS, file=sys.stderr)
        command: list[Any] = [sys.executable, "-m", "cli.main", "score", options.bundle, source, ours]
        command += ["--workers", str(cores), "--restart", "--quiet"]
        found.setdefault(OURS, []).append(watched(command, rows, cores))
        for kind in options.peers:
            print(PEERS[kind], file=sys.stderr)
            target = work / f"{kind}.parquet"
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
            script = ROOT / "benchmarks" / "scoring_peers.py"
            # -P: the folder of the script holds an email.py, which would stand for Python's own
            arguments: list[Any] = [interpreter("batch", torch=False), "-P", script, kind, graph, source, target]
            arguments.append(str(cores))
            found.setdefault(PEERS[kind], []).append(watched(arguments, rows, cores))
            check(PEERS[kind], target, pq.read_table(ours))
    return found


def table(found: dict[str, list[Figures]]) -> str:
    """Medians of the repetitions."""
    lines = ["| system | rows/s | of the session alone | of Fullfunnel | peak memory, MiB | processors busy |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    rates = {name: median(one.rows_per_s for one in several) for name, several in found.items()}
    for name, several in found.items():
        peak, busy = max(one.peak_mib for one in several), median(one.utilisation for one in several)
        lines.append(
            f"| {name} | {rates[name]:,.0f} | {rates[name] / rates[LIMIT]:.2f} | {rates[name] / rates[OURS]:.2f} | "
            f"{f'{peak:,.0f}' if peak else ''} | {busy:.0%} |"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Parse, simulate, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0, help="of the session alone")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "benchmarks", help="where the log is kept")
    options = parser.parse_args(argv)
    folder = options.data / f"batch-{options.rows}"
    if not (folder / "log.parquet").exists():
        command = [sys.executable, "-m", "cli.main", "simulate", folder, "--rows", str(options.rows)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    try:
        print(table(measure(options, folder / "log.parquet", work)))
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
