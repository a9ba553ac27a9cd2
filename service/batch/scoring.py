"""Tables in, tables with scores out, as a stream: in memory, in any process, for files and requests alike.

Knows the scorer and Arrow. Does not know files, shards or journals.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.batch.arrays import Arrays, Ready, TooWide
from service.batch.formats.codec import Chunk
from service.scoring.scorer import Feeds, Scorer, Scores

RUN_ROWS = 4096  # rows of one run of the graph: more do not make a row cheaper, and leave the caches


@dataclass(frozen=True, eq=False)
class Scored:
    """What became of some rows: the `table` that goes out, and why the others are not in it.

    `ready` tells which rows were scored, and what they were made into; `refused` has a reason for each other, by its
    place; `source` is what the rows came as.
    """

    table: pa.RecordBatch
    scores: Scores
    refused: Mapping[int, str]
    ready: Ready
    source: pa.RecordBatch


class TableScorer:
    """Scores record batches with one scorer, and keeps some of their columns beside the scores."""

    def __init__(self, scorer: Scorer, keep: Sequence[str] = (), schema: pa.Schema | None = None) -> None:
        self._scorer, self._keep = scorer, tuple(keep)
        self._arrays = Arrays(scorer)
        self._schema = schema

    def stream(self, chunks: Iterable[Chunk]) -> Iterator[Scored]:
        """Score chunks one after the other, in order.

        Each must have a column for every feature, of a type that `typed.check_type` lets pass. Raises: ScoreInvalid.
        """
        for chunk in chunks:
            yield from self._score(chunk)

    def _score(self, chunk: Chunk) -> Iterator[Scored]:
        try:
            ready = self._arrays.read(chunk.batch)
        except TooWide:
            middle = chunk.batch.num_rows // 2
            yield from self._score(chunk.cut(0, middle))
            yield from self._score(chunk.cut(middle, chunk.batch.num_rows))
            return
        reasons = dict(chunk.refused)
        if reasons:
            refused = np.zeros(chunk.batch.num_rows, np.bool_) if ready.refused is None else ready.refused
            refused[list(reasons)] = True
            ready = replace(ready, refused=refused)
        if ready.refused is not None:
            for row in np.flatnonzero(ready.refused).tolist():
                if row not in reasons:
                    reasons[row] = self._arrays.reason(chunk.batch, row)
        scores = self._run(self._arrays.without(ready))
        scored = None if ready.refused is None else ~ready.refused
        table = self._table(chunk.batch, scored, scores)
        yield Scored(table, scores, dict(sorted(reasons.items())), ready, chunk.batch)

    def _run(self, feeds: Feeds) -> Scores:
        runs = [self._scorer.run(part) for part in self.parts(feeds)]
        return {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}

    def parts(self, feeds: Feeds) -> Iterator[Feeds]:
        """What the graph is run with: the arrays of a chunk, RUN_ROWS rows at a time."""
        rows = len(feeds[self._scorer.manifest.row_user])
        return (self._part(feeds, start) for start in range(0, max(rows, 1), RUN_ROWS))

    def _part(self, feeds: Feeds, start: int) -> Feeds:
        """The arrays of RUN_ROWS rows from `start`, with the users that they need."""
        row_user = feeds[self._scorer.manifest.row_user][start : start + RUN_ROWS]
        first, last = (int(row_user.min()), int(row_user.max())) if len(row_user) else (0, 0)
        users: slice | NDArray[np.int64] = slice(first, last + 1)
        if last - first < len(row_user):
            row_user = row_user - first
        else:  # users from all over the batch
            users, row_user = np.unique(row_user, return_inverse=True)
        mine = self._scorer.candidates.features
        part = {
            name: array[start : start + RUN_ROWS] if name in mine else array[users]
            for name, array in feeds.items()
            if name != self._scorer.manifest.row_user
        }
        return {**part, self._scorer.manifest.row_user: row_user}

    def _table(self, batch: pa.RecordBatch, scored: NDArray[np.bool_] | None, scores: Scores) -> pa.RecordBatch:
        kept = [batch.column(name) for name in self._keep]
        if scored is not None:
            mask = pa.array(scored)
            kept = [column.filter(mask) for column in kept]
        if self._schema is not None:
            types = [self._schema.field(name).type for name in self._keep]
            kept = [
                column if column.type == kind else column.cast(kind) for column, kind in zip(kept, types, strict=True)
            ]
        arrays = [*kept, *(pa.array(values) for values in scores.values())]
        schema = self._schema
        if schema is None:
            return pa.RecordBatch.from_arrays(arrays, [*self._keep, *scores])
        return pa.RecordBatch.from_arrays(arrays, schema=schema)
