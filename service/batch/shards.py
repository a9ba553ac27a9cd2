"""One shard: read, scored and written as one part, in whichever process.

Knows plans, formats and the scorer. Does not know who decides what is done next, nor what else was done.
"""

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from contract.errors import RowsRefused
from service.batch.durable import durable
from service.batch.formats import format_named
from service.batch.formats.codec import Chunk, reported
from service.batch.job import Plan, Shard
from service.batch.output import Output
from service.batch.scoring import TableScorer
from service.batch.stores import opened
from service.batch.tally import Tally
from service.scoring.scorer import Scorer

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Done:
    """A shard that is written: plain data, for the journal."""

    index: int
    rows: int
    refused: int
    size: int
    sha256: str
    tally: Mapping[str, Any] = field(default_factory=dict)


class ShardScorer:
    """Scores the shards of one plan, one after the other. What has been read of a file is not read again.

    Where an attempt that is believed dead may still be writing, `mark` keeps its unfinished files apart.
    """

    def __init__(self, scorer: Scorer, plan: Plan, mark: str = "") -> None:
        self._plan, self._mark = plan, mark
        self._output = Output.of(plan.job, plan.output_format)
        self._schema = pa.ipc.read_schema(pa.py_buffer(plan.schema))
        self._tables = TableScorer(scorer, plan.keep, self._schema)
        self._format = format_named(plan.input_format)
        self._manifest = scorer.manifest

    def write(self, shard: Shard, report: Progress = lambda rows: None) -> Done:
        """Score a shard and write its part; `report` is told of rows as they are done.

        Raises: DataInvalid, RowsRefused, ScoreInvalid, TargetUnwritable.
        """
        rows, tally = 0, Tally(self._manifest)
        bad: list[dict[str, Any]] = []
        path = self._output.part(shard)
        write = format_named(self._output.format).writer
        with (
            durable(path, self._mark) as sink,
            closing(write(sink, self._schema)) as writer,
            closing(self.chunks(shard)) as chunks,
        ):
            for scored in self._tables.stream(chunks):
                for row, reason in scored.refused.items():
                    bad.append({"source": shard.file.path, "row": shard.first_row + rows + row, "reason": reason})
                check_refused(len(bad), self._plan.job.max_bad, bad)
                rows += scored.source.num_rows
                writer.write(scored.table)
                tally.add(scored)
                report(scored.source.num_rows)
        if bad:
            with durable(self._output.refused_part(shard), self._mark) as file:
                for line in bad:
                    file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        return Done(shard.index, rows, len(bad), sink.size, sink.sha256, tally.plain())

    def chunks(self, shard: Shard) -> Generator[Chunk, None, None]:
        """The rows of a shard, as they are in its file, with what its folders say. Raises: DataInvalid."""
        skip, left = shard.skip, shard.rows
        with reported(shard.file.path), opened(shard.file.path, self._format.maps) as file:
            for block in shard.blocks:
                for chunk in self._format.chunks(file, block, self._plan.wanted):
                    count = chunk.batch.num_rows
                    if skip >= count:
                        skip -= count
                        continue
                    stop = min(count, skip + left)
                    yield self._completed(chunk if stop - skip == count else chunk.cut(skip, stop), shard)
                    left -= stop - skip
                    skip = 0
                    if not left:
                        return

    def _completed(self, chunk: Chunk, shard: Shard) -> Chunk:
        batch = chunk.batch
        for name, value in shard.file.partitions.items():
            if name in self._plan.wanted.dtypes or name in (*self._plan.keep, *self._plan.labels):
                kind = partition_type(self._schema, self._plan, name)
                if name not in batch.schema.names:
                    batch = batch.append_column(
                        name, pa.repeat(pa.scalar(value, pa.string()).cast(kind), batch.num_rows)
                    )
        return Chunk(batch, chunk.refused)


def partition_type(schema: pa.Schema, plan: Plan, name: str) -> pa.DataType:
    """A partition is kept as it is in the schema; what is not kept stays text, but where a feature takes numbers."""
    if name in plan.keep:
        return schema.field(name).type
    return pa.float64() if plan.wanted.dtypes.get(name) == "float32" else pa.string()


def check_refused(count: int, max_bad: int, first: list[dict[str, Any]]) -> None:
    """Stop when more rows are refused than are allowed. Raises: RowsRefused."""
    if count > max_bad:
        row = first[0]
        allowed = {0: "none is allowed", 1: "only one is allowed"}.get(max_bad, f"only {max_bad} are allowed")
        raise RowsRefused(
            f"cannot be scored, and {allowed}: {str(row['reason']).rstrip('.')}",
            place=f"{row['source']}, row {row['row']}",
            remedy="correct the row, or leave such rows out with --max-bad N",
        )
