"""What people write to score a Parquet file: pandas chunks, polars, or Ray Data around onnxruntime and a flat graph.

`python scoring_peers.py KIND GRAPH INPUT OUTPUT CORES`. Runs in an environment that holds nothing of Fullfunnel
(environments/batch.lock). Knows pandas, polars, Ray Data and onnxruntime. Does not know bundles.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq

CHUNK_ROWS = 65_536
DTYPES = {"tensor(string)": object, "tensor(int64)": np.int64, "tensor(float)": np.float32}
MISSING: dict[Any, Any] = {object: "", np.int64: -(2**63), np.float32: np.nan}


class Model:
    """A session with `threads` threads, and raw columns in."""

    def __init__(self, graph: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.inputs = {port.name: (DTYPES[port.type], len(port.shape)) for port in self.session.get_inputs()}
        self.outputs = [port.name for port in self.session.get_outputs()]

    def scores(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Columns of one chunk, lists as object arrays -> the scores."""
        feeds = {}
        for name, (dtype, rank) in self.inputs.items():
            feeds[name] = _padded(columns[name], dtype) if rank == 2 else _filled(columns[name], dtype)
        return dict(zip(self.outputs, self.session.run(self.outputs, feeds), strict=True))


def _filled(values: Any, dtype: Any) -> Any:
    if dtype is object:
        return np.array(["" if value is None or value != value else str(value) for value in values], object)
    return np.asarray(values, dtype)


def _padded(rows: Any, dtype: Any) -> Any:
    width = max((len(row) for row in rows), default=0)
    padded = np.full((len(rows), width), MISSING[dtype], dtype)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return padded


def with_pandas(graph: str, source: str, target: str, cores: int) -> None:
    """Row groups to data frames to arrays; onnxruntime uses the cores."""
    model, writer = Model(graph, cores), None
    for batch in pq.ParquetFile(source).iter_batches(CHUNK_ROWS, columns=list(model.inputs)):
        frame = batch.to_pandas()
        scores = pa.table(model.scores({name: frame[name].to_numpy() for name in model.inputs}))
        writer = writer or pq.ParquetWriter(target, scores.schema)
        writer.write_table(scores)
    assert writer
    writer.close()


def with_polars(graph: str, source: str, target: str, cores: int) -> None:
    """A lazy scan, collected chunk by chunk."""
    import polars as pl  # type: ignore[import-not-found,unused-ignore]

    model, writer = Model(graph, cores), None
    rows = pq.read_metadata(source).num_rows
    scan = pl.scan_parquet(source).select(list(model.inputs))
    for start in range(0, rows, CHUNK_ROWS):
        frame = scan.slice(start, CHUNK_ROWS).collect()
        columns = {
            name: frame[name].to_list() if rank == 2 else frame[name].to_numpy()
            for name, (_, rank) in model.inputs.items()
        }
        scores = pa.table(model.scores(columns))
        writer = writer or pq.ParquetWriter(target, scores.schema)
        writer.write_table(scores)
    assert writer
    writer.close()


class RayModel:
    """What `map_batches` makes one of for each actor."""

    def __init__(self, graph: str) -> None:
        self.model = Model(graph, 1)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Scores beside the row's number, by which they are put in order."""
        return {"impression_id": batch["impression_id"], **self.model.scores(batch)}


def with_ray(graph: str, source: str, target: str, cores: int) -> None:
    """`map_batches` with an actor a core, and room for what reads: without it nothing ever moves."""
    import ray

    ray.init(num_cpus=cores + 1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    columns = ["impression_id", *Model(graph, 1).inputs]
    rows = ray.data.read_parquet(source, columns=columns)
    scored = rows.map_batches(
        RayModel,
        fn_constructor_args=(graph,),
        batch_size=CHUNK_ROWS // 4,
        compute=ray.data.ActorPoolStrategy(size=cores),
    )
    scored.write_parquet(target)


KINDS = {"pandas": with_pandas, "polars": with_polars, "ray": with_ray}

if __name__ == "__main__":
    kind, graph_path, source_path, target_path, count = sys.argv[1:]
    KINDS[kind](str(Path(graph_path)), source_path, target_path, int(count))
