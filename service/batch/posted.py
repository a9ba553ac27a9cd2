"""A table that somebody sent: checked and scored in memory, then written as a stream of pieces.

All of it is scored before the first piece is made, so that whatever is wrong with it is known by then; of the first
pass only the scores are kept. What stands beside them is read again while the pieces are made, a chunk at a time: what
is in memory at once does not grow with what is kept.

Knows formats, bounds and the scorer. Does not know HTTP, nor who has sent the table.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.errors import DataInvalid, RowsRefused, TableTooLarge
from service.batch.formats import format_named
from service.batch.formats.arrow import StreamWriter
from service.batch.formats.codec import CHUNK_ROWS, Chunk, Survey, Wanted, Writer
from service.batch.formats.pages import check_pages
from service.batch.job import File
from service.batch.plan import check_writable, chosen_columns, features_of
from service.batch.scoring import TableScorer
from service.batch.weight import check_kinds, expanded_bytes
from service.scoring.scorer import Scorer, Scores

PLACE = "body"
MAX_BLOCKS = 4096  # row groups or record batches: each has a cost of its own
MAX_TOLD = 20  # refused rows whose reasons are kept
TEXT = ("csv", "ndjson")
SMALLER = "send it in several requests, or start a job over files"


@dataclass(frozen=True)
class Asked:
    """What is to be done with a table: formats by name, the columns to keep, and how many rows may be refused."""

    input_format: str
    output_format: str
    keep: tuple[str, ...] = ()
    max_bad: int = 0


@dataclass(frozen=True)
class Bounds:
    """The largest table that is scored: its rows, its columns, and its bytes when it is decoded."""

    rows: int
    columns: int
    expanded_bytes: int


@dataclass
class Outcome:
    """How many rows there were, how many could not be scored, and why the first of those could not."""

    rows: int = 0
    refused: int = 0
    reasons: dict[int, str] = field(default_factory=dict)


class PostedTable:
    """One table, from its bytes. Used from one thread at a time: `score` first, then `pieces`.

    Raises: DataInvalid, ColumnMissing, ColumnTypeInvalid, SettingInvalid, TableTooLarge.
    """

    def __init__(self, scorer: Scorer, body: bytes, asked: Asked, bounds: Bounds) -> None:
        self._scorer, self._asked, self._bounds = scorer, asked, bounds
        self._format = format_named(asked.input_format)
        self._file = pa.BufferReader(body)
        with _readable(asked.input_format):
            self._look(body)
        self._scores: Scores = {}
        self._scored: NDArray[np.bool_] = np.ones(0, np.bool_)

    def _look(self, body: bytes) -> None:
        """See what there is, before any of it is decoded."""
        asked, manifest = self._asked, self._scorer.manifest
        if asked.input_format in TEXT:
            pa.array([body], pa.large_binary()).cast(pa.large_string())  # which looks whether it is UTF-8
        features = features_of(manifest)
        self._survey = self._format.survey(self._file, features)
        self._check_size(self._survey)
        columns = chosen_columns(asked.keep, manifest, [File(PLACE, len(body), "", {})], [self._survey])
        check_kinds(self._survey.schema, columns.keep, PLACE)
        check_writable(columns, format_named(asked.output_format), PLACE)
        self._keep, self._schema = columns.keep, columns.written
        self._wanted = Wanted(tuple(dict.fromkeys((*features.columns, *columns.keep))), features.dtypes, features.lists)
        if asked.input_format == "parquet":
            check_pages(body, self._wanted.columns, self._bounds.expanded_bytes)

    def score(self, proceed: Callable[[], None] = lambda: None) -> Outcome:
        """Score every row. `proceed` is called between chunks, and may raise to end it.

        Raises: DataInvalid, RowsRefused, ScoreInvalid, TableTooLarge.
        """
        found: list[Scores] = []
        marks: list[NDArray[np.bool_]] = []
        outcome = Outcome()
        with _readable(self._asked.input_format):
            for scored in TableScorer(self._scorer).stream(self._chunks(self._wanted)):
                proceed()
                mark = np.ones(scored.source.num_rows, np.bool_)
                mark[list(scored.refused)] = False
                self._count(outcome, scored.source.num_rows, scored.refused)
                found.append(scored.scores)
                marks.append(mark)
        names = [entry.name for entry in self._scorer.manifest.outputs]
        empty = np.empty(0, np.float32)
        self._scores = {name: np.concatenate([empty, *(one[name] for one in found)]) for name in names}
        self._scored = np.concatenate([np.ones(0, np.bool_), *marks])
        return outcome

    def pieces(self) -> Iterator[bytes]:
        """The table that answers, written a few rows at a time."""
        sink = _Sink()
        # which is closed only at the end: a table that is cut short must not look whole
        writer = self._writer(sink)
        rows = scored = 0
        for batch in self._kept():
            mark = self._scored[rows : rows + batch.num_rows]
            rows += batch.num_rows
            count = int(mark.sum())
            kept = batch if count == len(mark) else batch.filter(pa.array(mark))
            writer.write(self._joined(kept, scored, count))
            scored += count
            yield from sink.taken()
        writer.close()
        yield from sink.taken()

    def _kept(self) -> Iterator[pa.RecordBatch]:
        if not self._keep:  # nothing is to be read again
            for first in range(0, len(self._scored), CHUNK_ROWS):
                rows = min(CHUNK_ROWS, len(self._scored) - first)
                yield pa.RecordBatch.from_arrays([pa.nulls(rows)], [""])
            return
        for chunk in self._format_chunks(Wanted(self._keep, self._wanted.dtypes, self._wanted.lists)):
            yield chunk.batch

    def _joined(self, kept: pa.RecordBatch, first: int, count: int) -> pa.RecordBatch:
        columns = []
        for name in self._keep:
            column, kind = kept.column(name), self._schema.field(name).type
            columns.append(column if column.type == kind else column.cast(kind))
        columns += [pa.array(values[first : first + count]) for values in self._scores.values()]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _writer(self, sink: "_Sink") -> Writer:
        if self._asked.output_format == "arrow":
            return StreamWriter(sink, self._schema)
        return format_named(self._asked.output_format).writer(sink, self._schema)

    def _chunks(self, wanted: Wanted) -> Iterator[Chunk]:
        size = 0
        with closing(self._format_chunks(wanted)) as chunks:
            for chunk in chunks:
                size += expanded_bytes(chunk.batch)
                if size > self._bounds.expanded_bytes:
                    raise _too_large(f"more than {self._bounds.expanded_bytes} bytes when it is decoded")
                yield chunk

    def _format_chunks(self, wanted: Wanted) -> Any:
        for block in self._survey.blocks:
            if block.rows:
                yield from self._format.chunks(self._file, block, wanted)

    def _check_size(self, survey: Survey) -> None:
        rows, columns, blocks = sum(block.rows for block in survey.blocks), len(survey.schema), len(survey.blocks)
        if any(block.rows < 0 for block in survey.blocks):
            raise DataInvalid("says that it has fewer than no rows", place=PLACE, remedy="write it again")
        if rows > self._bounds.rows:
            raise _too_large(f"more than {self._bounds.rows} rows")
        if columns > self._bounds.columns:
            raise _too_large(f"more than {self._bounds.columns} columns")
        if blocks > MAX_BLOCKS:
            raise TableTooLarge(
                f"more than {MAX_BLOCKS} row groups or record batches", place=PLACE, remedy="write it with larger ones"
            )

    def _count(self, outcome: Outcome, rows: int, refused: Mapping[int, str]) -> None:
        for row, reason in refused.items():
            if len(outcome.reasons) < MAX_TOLD:
                outcome.reasons[outcome.rows + row] = reason
        outcome.rows += rows
        outcome.refused += len(refused)
        if outcome.refused > self._asked.max_bad:
            row, reason = next(iter(outcome.reasons.items()))
            allowed = f"{self._asked.max_bad} are allowed" if self._asked.max_bad else "none is allowed"
            raise RowsRefused(
                f"cannot be scored, and {allowed}: {reason.rstrip('.')}",
                place=f"{PLACE}, row {row}",
                remedy="correct the row, or leave such rows out with max_bad",
            )


class _Sink:
    """A file of which pieces can be taken while it is written."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: "bytes | memoryview") -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        return len(piece)

    def flush(self) -> None:
        """Nothing is held back here."""

    def taken(self) -> Iterator[bytes]:
        if self._pieces:
            joined, self._pieces = b"".join(self._pieces), []
            yield joined


def told(outcome: Outcome) -> str:
    """The first refused rows as JSON in ASCII, of at most about 4 KB."""
    lines = [{"row": row, "reason": reason[:200]} for row, reason in outcome.reasons.items()]
    while lines and len(text := json.dumps(lines)) > 4096:
        lines.pop()
    return text if lines else "[]"


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turn what libraries say about the bytes into an error that repeats none of them, and name the place."""
    try:
        yield
    except DataInvalid as error:
        raise type(error)(error.fact, place=error.place or PLACE, remedy=error.remedy) from error
    except MemoryError:
        raise _too_large("a part of it takes more memory to read than there is") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError, LookupError) as error:
        raise DataInvalid(
            f"cannot be read as {name}", place=PLACE, remedy="check that it is whole, and of that format"
        ) from error


def _too_large(fact: str) -> TableTooLarge:
    return TableTooLarge(fact, place=PLACE, remedy=SMALLER)
