"""Arrow lists as flat values with where each row's begin: compared, hashed and gathered without a loop over rows.

Knows offsets. Does not know what the values mean.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from service.scoring import plain

Ints = NDArray[np.int64]
Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Spans:
    """Row i has `lengths[i]` flat values from `starts[i]` on."""

    starts: Ints
    lengths: Ints

    def places(self, rows: Ints) -> Ints:
        """Where the values of some rows are, one row after the other."""
        lengths = self.lengths[rows]
        ends = np.cumsum(lengths)
        shift = self.starts[rows] - (ends - lengths)
        return np.repeat(shift, lengths) + np.arange(ends[-1] if len(ends) else 0)


def spans_of(column: pa.Array) -> tuple[Spans, pa.Array]:
    """The rows of a list column, and its flat values. A missing list is empty."""
    rows = len(column)
    if pa.types.is_null(column.type):
        return Spans(np.zeros(rows, np.int64), np.zeros(rows, np.int64)), pa.nulls(0)
    if pa.types.is_fixed_size_list(column.type):
        column = column.cast(pa.list_(column.type.value_type))
    offsets = column.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    lengths = np.diff(offsets)
    if column.null_count:
        lengths[pc.is_null(column).to_numpy(zero_copy_only=False)] = 0
    return Spans(offsets[:-1] - offsets[0], lengths), column.values.slice(offsets[0], offsets[-1] - offsets[0])


def differing(spans: Spans, values: Array, one: Ints, other: Ints) -> NDArray[np.bool_]:
    """Of rows `one` [R] and `other` [R], which pairs do not hold equal lists: bool [R]."""
    lengths = spans.lengths[one]
    unlike: NDArray[np.bool_] = lengths != spans.lengths[other]
    alike = np.flatnonzero(~unlike & (lengths > 0))
    here, there = spans.places(one[alike]), spans.places(other[alike])
    wrong = np.flatnonzero(values[here] != values[there])
    if len(wrong):
        ends = np.cumsum(lengths[alike])
        unlike[alike[np.searchsorted(ends, wrong, side="right")]] = True
    return unlike


def differing_from_before(spans: Spans, values: Array) -> NDArray[np.bool_]:
    """Which rows but the first do not hold the list of the row before: bool [B - 1].

    What `differing` would say, by compiled code or in fewer passes: where two equally long lists follow each other,
    each value is compared with the one a list's length further on.
    """
    if (compiled := plain.unlike_before(values, spans.starts, spans.lengths)) is not None:
        return compiled
    lengths = spans.lengths
    ends = np.cumsum(lengths)
    before = ends - lengths
    if len(values) != ends[-1] or (spans.starts != before).any():  # values that belong to no row
        rows = np.arange(len(lengths) - 1)
        return differing(spans, values, rows + 1, rows)
    further = np.arange(len(values)) + np.repeat(lengths, lengths)
    unlike = values != values.take(further, mode="clip") if len(values) else np.zeros(0, np.bool_)
    count = np.concatenate([np.zeros(1, np.int32), np.cumsum(unlike, dtype=np.int32)])
    return np.asarray((count[ends[:-1]] != count[before[:-1]]) | (lengths[1:] != lengths[:-1]))


def hashes(spans: Spans, values: Array, rows: Ints) -> NDArray[np.uint64]:
    """A number for the list of each row [R]: the same for equal lists, and hardly ever for others."""
    lengths = spans.lengths[rows]
    places = spans.places(rows)
    ends = np.cumsum(lengths)
    step = np.arange(len(places)) - np.repeat(ends - lengths, lengths)
    mixed = mix(values[places].astype(np.uint64) + mix(step.astype(np.uint64)))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed)])
    return mix((sums[ends] - sums[ends - lengths]) + mix(lengths.astype(np.uint64) + np.uint64(1)))


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatter the bits (the finaliser of MurmurHash3, Appleby 2011, first half)."""
    values = values ^ (values >> np.uint64(33))
    values = values * np.uint64(0xFF51AFD7ED558CCD)
    return values ^ (values >> np.uint64(33))
