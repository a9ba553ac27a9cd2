"""Staging: the log read once, each column brought to compact codes on disk, before anything is fitted.

Knows columns and Arrow. Does not know vocabularies: those are fitted afterwards, on training rows only.

A column of values becomes int32 codes into a dictionary of its distinct values, batch by batch, so that memory
holds the distinct values and one batch, whatever the number of rows. Code -1 is missing.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.errors import DataInvalid
from contract.features import Categorical, Dtype, Feature, Numeric
from contract.features import Sequence as SequenceFeature
from contract.tasks import Task
from training.columns import codes_of, dtype_of, floats_of, labels_of, sequences_of
from training.split import TEST, Log

HELD_OUT_ROWS = 12_000


class Codes:
    """A column's codes on disk and its dictionaries in memory.

    `append` takes codes into a dictionary of the batch's own; `unified` then gives the distinct values of one
    or several columns, and for each batch the map from its codes to them.
    """

    def __init__(self, path: Path, width: int = 1) -> None:
        self.path, self.width = path, width
        self.dictionaries: list[pa.Array] = []
        self.rows: list[int] = []
        self._file = open(path, "wb")  # noqa: SIM115 (closed by `finish`)

    def append(self, codes: NDArray[np.int32], dictionary: pa.Array) -> None:
        """Add a batch: codes [B] or [B, width]."""
        self.rows.append(len(codes))
        self.dictionaries.append(dictionary)
        self._file.write(np.ascontiguousarray(codes, dtype=np.int32).data)

    def finish(self) -> None:
        """Close the file."""
        self._file.close()

    def batches(self) -> Iterator[NDArray[np.int32]]:
        """The codes of each batch, [B, width]."""
        codes = open_array(self.path, np.int32, self.width)
        for start, stop in itertools.pairwise(itertools.accumulate(self.rows, initial=0)):
            yield codes[start:stop]


class Floats:
    """A numeric column on disk: float32 [rows], NaN is missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "wb")  # noqa: SIM115 (closed by `finish`)

    def append(self, values: NDArray[np.float32]) -> None:
        """Add a batch: [B]."""
        self._file.write(np.ascontiguousarray(values, dtype=np.float32).data)

    def finish(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self) -> NDArray[np.float32]:
        """All values, memory-mapped: [rows]."""
        return open_array(self.path, np.float32, 1)[:, 0]


@dataclass
class Staged:
    """The log as codes and numbers, in the files' order.

    `labels`: uint8 [rows, T]. `extra`: keys and slices, as codes. `held_out`: some raw test rows, and
    `held_out_rows` their row numbers.
    """

    codes: dict[str, Codes] = field(default_factory=dict)
    floats: dict[str, Floats] = field(default_factory=dict)
    extra: dict[str, Codes] = field(default_factory=dict)
    dtypes: dict[str, Dtype] = field(default_factory=dict)
    labels: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 0), np.uint8))
    held_out: pa.Table = field(default_factory=lambda: pa.table({}))
    held_out_rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def finish(self) -> None:
        """Close all files."""
        for codes in (*self.codes.values(), *self.extra.values()):
            codes.finish()
        for numbers in self.floats.values():
            numbers.finish()


def open_array(path: Path, dtype: type[np.generic], width: int) -> NDArray[Any]:
    """A file of rows of `width` values, memory-mapped: [rows, width]."""
    size = path.stat().st_size // (np.dtype(dtype).itemsize * width)
    return np.memmap(path, dtype, "r", shape=(size, width)) if size else np.empty((0, width), dtype)


def stage(
    log: Log,
    features: Sequence[Feature],
    tasks: Sequence[Task],
    extra: Sequence[str],
    directory: Path,
    on_progress: Callable[[int], None],
) -> Staged:
    """Read the log once into files in `directory`; `extra` columns (keys, slices) become codes too.

    Raises: ColumnMissing, ColumnTypeInvalid, MixedTypes, LabelInvalid, LabelWithoutParent, DataInvalid.
    """
    columns = [*(f.name for f in features), *(t.label for t in tasks), *extra]
    for source in log.sources:
        source.check_columns(columns, log.sources[0])
    staged = Staged()
    try:
        _open(staged, log, features, extra, directory)
        rows = _read(staged, log, features, tasks, columns, on_progress)
    finally:
        staged.finish()
    if rows != len(log.split):
        raise DataInvalid(
            f"{rows} rows where {len(log.split)} were counted a moment ago",
            place=log.sources[0].path,
            remedy="do not change the files while they are read",
        )
    return staged


def _open(staged: Staged, log: Log, features: Sequence[Feature], extra: Sequence[str], directory: Path) -> None:
    for number, feature in enumerate(features):
        path = directory / f"feature{number}"
        if isinstance(feature, Numeric):
            staged.floats[feature.name] = Floats(path)
        else:
            kind = log.sources[0].dataset.schema.field(feature.name).type
            found = dtype_of(kind, feature.name)  # refuses what cannot be categorical, whatever was declared
            staged.dtypes[feature.name] = feature.dtype or found
            staged.codes[feature.name] = Codes(path, feature.max_length if isinstance(feature, SequenceFeature) else 1)
    for number, name in enumerate(dict.fromkeys(extra)):
        staged.extra[name] = Codes(directory / f"extra{number}")


def _read(
    staged: Staged,
    log: Log,
    features: Sequence[Feature],
    tasks: Sequence[Task],
    columns: Sequence[str],
    on_progress: Callable[[int], None],
) -> int:
    """Fill `staged`; returns the number of rows read. Columns of a batch are staged side by side."""
    every = max(1, log.rows(TEST) // HELD_OUT_ROWS)
    labels, held_out, held_out_rows = [], [], []
    groups = _groups(features)
    row = tests = 0
    with ThreadPoolExecutor() as pool:
        for source in log.sources:
            for batch in source.batches(columns):
                place = f"{source.path}, rows {row} to {row + batch.num_rows - 1}"
                jobs = [pool.submit(_stage_group, group, batch, staged, place) for group in groups]
                labels.append(labels_of(batch, tasks, source.path, row))
                for name, codes in staged.extra.items():
                    codes.append(*codes_of(batch.column(name), None, f"{place}, column {name!r}"))
                test = np.flatnonzero(log.split[row : row + batch.num_rows] == TEST)
                chosen = test[np.arange(tests, tests + len(test)) % every == 0]
                held_out.append(_plain(batch.select([f.name for f in features]).take(pa.array(chosen))))
                held_out_rows.append(chosen + row)
                for job in jobs:
                    job.result()
                row, tests = row + batch.num_rows, tests + len(test)
                on_progress(row)
    staged.labels = np.concatenate(labels)
    staged.held_out = pa.concat_tables(held_out, promote_options="permissive")
    staged.held_out_rows = np.concatenate(held_out_rows)
    return row


def _groups(features: Sequence[Feature]) -> list[list[Feature]]:
    """Features staged together: a sequence with those that run along it; any other alone."""
    groups: dict[str, list[Feature]] = {}
    for feature in sorted(features, key=lambda f: isinstance(f, SequenceFeature) and f.along is not None):
        key = (isinstance(feature, SequenceFeature) and feature.along) or feature.name
        groups.setdefault(key, []).append(feature)
    return list(groups.values())


def _stage_group(group: list[Feature], batch: pa.RecordBatch, staged: Staged, place: str) -> None:
    places = [f"{place}, column {feature.name!r}" for feature in group]
    first = group[0]
    if isinstance(first, Numeric):
        staged.floats[first.name].append(floats_of(batch.column(first.name), places[0]))
    elif isinstance(first, Categorical):
        column = codes_of(batch.column(first.name), staged.dtypes[first.name], places[0])
        staged.codes[first.name].append(*column)
    else:
        columns = [batch.column(feature.name) for feature in group]
        dtypes = [staged.dtypes[feature.name] for feature in group]
        coded = sequences_of(columns, dtypes, first.max_length, places)
        for feature, (codes, dictionary) in zip(group, coded, strict=True):
            staged.codes[feature.name].append(codes, dictionary)


def _plain(batch: pa.RecordBatch) -> pa.Table:
    """Without dictionaries, whose values differ from batch to batch."""
    table = pa.Table.from_batches([batch])
    for number, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(number, column.name, table.column(number).cast(column.type.value_type))
    return table
