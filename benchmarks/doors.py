"""`python -m benchmarks.doors`: one table through every door of a bundle, in every format: how far scores are apart.

The rows of a log go to /v1/predict:batch as users and candidates, which is the measure; then as files of each format
to `fullfunnel score`, in slices of each format to /v1/score, and, where an environment with Ray is told, to
`fullfunnel score --on ray`. Scores are compared row by row, so that order counts. Ends with status 1 where a
difference is above 1e-6.

Knows doors and formats. Does not know how rows are scored.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.environment import ROOT
from benchmarks.memory import service
from benchmarks.serving.server import free_port
from contract.bundle import Manifest, read_bundle

BUNDLE = ROOT / "demo" / "bundles" / "ple"
TOLERANCE = 1e-6
REQUESTS, CANDIDATES = 64, 100  # in a call, and in a request
SLICE_ROWS = 50_000
MEDIA_TYPES = {
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
    "csv": "text/csv",
    "ndjson": "application/x-ndjson",
}
JSON = {"content-type": "application/json"}
Scores = Mapping[str, NDArray[np.float32]]


def encoded(table: pa.Table, kind: str) -> bytes:
    """The table in a format; lists are JSON in CSV."""
    sink = pa.BufferOutputStream()
    if kind == "parquet":
        pq.write_table(table, sink)
    elif kind == "arrow":
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    elif kind == "csv":
        texts = {
            name: [None if value is None else orjson.dumps(value).decode() for value in table[name].to_pylist()]
            for name in table.column_names
            if pa.types.is_list(table.schema.field(name).type)
        }
        columns = [pa.array(texts[name], pa.string()) if name in texts else table[name] for name in table.column_names]
        pyarrow.csv.write_csv(pa.table(columns, table.column_names), sink)
    else:
        return b"".join(orjson.dumps(row) + b"\n" for batch in table.to_batches() for row in batch.to_pylist())
    return bytes(sink.getvalue())


def online(port: int, table: pa.Table, manifest: Manifest) -> Scores:
    """Through /v1/predict:batch: rows of one user that follow each other are the candidates of a request."""
    user = [feature.name for feature in manifest.features if feature.side == "user"]
    item = [feature.name for feature in manifest.features if feature.side == "item"]

    def requests() -> Iterator[dict[str, Any]]:
        for batch in table.to_batches(max_chunksize=SLICE_ROWS):
            for of, rows in groupby(batch.to_pylist(), key=lambda row: orjson.dumps([row[name] for name in user])):
                values, together = orjson.loads(of), list(rows)
                for at in range(0, len(together), CANDIDATES):
                    some = together[at : at + CANDIDATES]
                    candidates = {name: [row[name] for row in some] for name in item}
                    yield {"user": dict(zip(user, values, strict=True)), "candidates": candidates}

    found: dict[str, list[float]] = {output.name: [] for output in manifest.outputs}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
        waiting: list[dict[str, Any]] = []

        def ask() -> None:
            answer = client.post("/v1/predict:batch", content=orjson.dumps({"requests": waiting}), headers=JSON)
            answer.raise_for_status()
            for result in orjson.loads(answer.content)["results"]:
                for name in found:
                    found[name] += result[name]
            waiting.clear()

        for request in requests():
            waiting.append(request)
            if len(waiting) == REQUESTS:
                ask()
        if waiting:
            ask()
    return {name: np.array(values, np.float32) for name, values in found.items()}


def posted(port: int, table: pa.Table, kind: str) -> Scores:
    """Through /v1/score, slice by slice."""
    answers = []
    for at in range(0, table.num_rows, SLICE_ROWS):
        answer = httpx.post(
            f"http://127.0.0.1:{port}/v1/score",
            content=encoded(table.slice(at, SLICE_ROWS), kind),
            headers={"content-type": MEDIA_TYPES[kind], "accept": MEDIA_TYPES["parquet"]},
            trust_env=False,
            timeout=600,
        )
        answer.raise_for_status()
        answers.append(pq.read_table(pa.BufferReader(answer.content)))
    return _scores(pa.concat_tables(answers))


def scored(python: str | Path, bundle: Path, source: Path, target: Path, *options: str) -> Scores:
    """Through `fullfunnel score`."""
    command = [python, "-m", "cli.main", "score", bundle, source, target, *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return _scores(pq.read_table(target))


def answers(
    options: argparse.Namespace, port: int, table: pa.Table, kind: str, source: Path
) -> Iterator[tuple[str, Scores]]:
    """The scores of each door; `source` holds the table in this format."""
    target = source.with_name(f"{kind}.parquet")
    yield "fullfunnel score", scored(sys.executable, options.bundle, source, target)
    yield "/v1/score", posted(port, table, kind)
    if options.ray:
        target = source.with_name(f"{kind}-ray.parquet")
        yield "fullfunnel score --on ray", scored(options.ray, options.bundle, source, target, "--on", "ray")


def difference(found: Scores, expected: Scores) -> float:
    """The largest, over all outputs and rows."""
    if {name: len(values) for name, values in found.items()} != {name: len(v) for name, v in expected.items()}:
        raise SystemExit("not the same outputs and rows")
    return max(float(np.abs(found[name] - values).max(initial=0)) for name, values in expected.items())


def _scores(table: pa.Table) -> Scores:
    return {name: table[name].to_numpy() for name in table.column_names}


def main(argv: Sequence[str] | None = None) -> int:
    """Write, ask at every door, compare, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.doors", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--log", type=Path, help="Parquet with the bundle's features (one is simulated)")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--formats", nargs="+", choices=MEDIA_TYPES, default=list(MEDIA_TYPES))
    parser.add_argument("--ray", type=Path, help="a Python that has Ray, such as build/environments/ray/bin/python")
    options = parser.parse_args(argv)
    manifest = read_bundle(options.bundle).manifest
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        log = options.log
        if log is None:
            simulate = [sys.executable, "-m", "cli.main", "simulate", name, "--rows", str(options.rows)]
            subprocess.run(simulate, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
            log = folder / "log.parquet"
        table = pq.read_table(log, columns=[feature.name for feature in manifest.features]).slice(0, options.rows)
        port = free_port()
        with service(options.bundle, 1, port):
            expected = online(port, table, manifest)
            lines = []
            for kind in options.formats:
                source = folder / f"in.{kind}"
                source.write_bytes(encoded(table, kind))
                for door, found in answers(options, port, table, kind, source):
                    lines.append((door, kind, difference(found, expected)))
                    print(f"{door}, {kind}: {lines[-1][2]:.1e}", file=sys.stderr, flush=True)
    print(f"{table.num_rows:,} rows; the largest difference from /v1/predict:batch\n")
    print("| door | format | difference |\n| --- | --- | ---: |")
    for door, kind, apart in lines:
        print(f"| {door} | {kind} | {apart:.1e} |")
    return int(max(apart for _, _, apart in lines) > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
