"""Which rows train, which validate and which test.

Knows times, keys and row numbers. Does not know features.
"""

from dataclasses import dataclass

import mmh3
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.errors import ColumnTypeInvalid, EmptySplit
from training.run import DataOptions, SplitOptions
from training.source import Source

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Log:
    """The sources in order, and the split of every row of them: uint8 [rows]."""

    sources: tuple[Source, ...]
    split: NDArray[np.uint8]

    def rows(self, split: int) -> int:
        """Number of rows in a split."""
        return int(np.count_nonzero(self.split == split))


def assign(log: Source, validation: Source | None, test: Source | None, data: DataOptions, split: SplitOptions) -> Log:
    """Cut what has no file of its own off the log; a fifth file changes no row's split when cut by key.

    Raises: ColumnMissing, ColumnTypeInvalid, EmptySplit.
    """
    share_validation = 0.0 if validation else split.validation
    share_test = 0.0 if test else split.test
    if split.by == "time":
        parts = [_by_time(log, split.column or "", share_validation, share_test)]
    else:
        parts = [_by_hash(_hashes(log, split), split, share_validation, share_test)]
    sources = [log]
    for source, code in ((validation, VALIDATION), (test, TEST)):
        if source:
            sources.append(source)
            parts.append(np.full(source.count(), code, np.uint8))
    result = Log(tuple(sources), np.concatenate(parts))
    for code, name in enumerate(SPLITS):
        if result.rows(code) == 0:
            raise EmptySplit(
                f"no row falls into the {name} split",
                place=data.path,
                remedy="enlarge its share in [split], or give its file",
            )
    return result


def _by_time(source: Source, column: str, validation: float, test: float) -> NDArray[np.uint8]:
    """Cut at the times below which the earlier shares lie; rows of one time stay together."""
    source.check_columns([column])
    kind = source.dataset.schema.field(column).type
    if not (pa.types.is_temporal(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise ColumnTypeInvalid(
            f"holds {kind}, which has no order in time",
            place=f"{source.path}, column {column!r}",
            remedy="give a time or a number",
        )
    batches = [_as_int64(batch.column(0)) for batch in source.batches([column])]
    time = np.concatenate(batches) if batches else np.empty(0, np.int64)
    result = np.zeros(len(time), np.uint8)
    if len(time):
        ordered = np.sort(time)
        start_validation = ordered[min(len(time) - 1, int(len(time) * (1 - validation - test)))]
        start_test = ordered[min(len(time) - 1, int(len(time) * (1 - test)))]
        if validation > 0:
            result[time >= start_validation] = VALIDATION
        if test > 0:
            result[time >= start_test] = TEST
    return result


def _as_int64(column: pa.Array) -> NDArray[np.int64]:
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())  # in its own unit
    values: NDArray[np.int64] = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    return values


def _hashes(source: Source, split: SplitOptions) -> NDArray[np.float64]:
    """A number in [0, 1) for each row, the same for all rows of a key."""
    if split.by == "row":
        return _spread(np.arange(source.count(), dtype=np.uint64))
    column = split.column or ""
    source.check_columns([column])
    parts = [np.empty(0)]
    for batch in source.batches([column]):
        codes = batch.column(0)
        if not pa.types.is_dictionary(codes.type):
            codes = codes.dictionary_encode(null_encoding="encode")
        keys = [mmh3.hash(str(key).encode(), 7, signed=False) for key in codes.dictionary.to_pylist()]
        index = pc.fill_null(codes.indices, len(keys)).to_numpy(zero_copy_only=False)
        parts.append(_spread(np.array([*keys, 0], dtype=np.uint64)[index]))
    return np.concatenate(parts)


def _spread(key: NDArray[np.uint64]) -> NDArray[np.float64]:
    """SplitMix64's finaliser: consecutive keys fall anywhere."""
    x = (key + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) / 2.0**53


def _by_hash(where: NDArray[np.float64], split: SplitOptions, validation: float, test: float) -> NDArray[np.uint8]:
    """Fold or share by hash; validation is a share of all rows, taken from those that are not in test.

    Each fold has validation rows of its own, as far as they go round: calibration fitted on the same few rows in
    every fold would be wrong in the same direction in all of them.
    """
    if split.folds is not None and test > 0:
        scaled = where * split.folds
        in_test = scaled.astype(np.int64) == split.fold
        rest = (_spread((where * 2.0**53).astype(np.uint64)) + split.fold / split.folds) % 1.0
        in_validation = rest < validation / (1 - 1 / split.folds)
    else:
        in_test = where >= 1.0 - test
        in_validation = where < validation
    result = np.zeros(len(where), np.uint8)
    result[in_validation] = VALIDATION
    result[in_test] = TEST
    return result
