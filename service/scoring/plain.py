"""Columns of plain values, raw strings, lists and scores, by compiled code where it was built (`csrc/plain.c`).

A value is plain where nothing has to be decided about it. What is not, and everything where there was no compiler, is
left to `service.scoring.values`. Knows lists and arrays. Does not know errors.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.features import INT64_MISSING

try:
    from service.scoring import _plain
except ImportError:
    _plain = None  # type: ignore[assignment]

Columns = list[Any]  # C of them, each a list of N values, or None: missing throughout


def compiled() -> bool:
    """Whether there is compiled code; without it, what reads columns answers None."""
    return _plain is not None


def numbers(columns: Columns, rows: int) -> NDArray[np.float32] | None:
    """Numbers that fit in 32 bits, and None as NaN: [C, N]. None where something is not plain."""
    if _plain is None:
        return None
    array = np.empty((len(columns), rows), np.float32)
    return array if _plain.numbers(columns, array) else None


def integers(columns: Columns, rows: int) -> NDArray[np.int64] | None:
    """Whole numbers that fit in 64 bits, and None as INT64_MISSING: [C, N]. None where something is not plain."""
    if _plain is None:
        return None
    array = np.empty((len(columns), rows), np.int64)
    return array if _plain.integers(columns, array, INT64_MISSING) else None


def strings(data: memoryview, count: int) -> list[str] | None:
    """So many strings of UTF-8, each behind four bytes of length, the lowest first. None where the data are others."""
    return None if _plain is None or count > len(data) else _plain.strings(data, count)


def unlike_before(
    values: NDArray[Any], starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.bool_] | None:
    """Which rows but the first have other values than the row before, by their bytes: bool [B - 1]."""
    if _plain is None or not values.flags.c_contiguous:
        return None
    unlike = np.empty(max(0, len(starts) - 1), np.bool_)
    _plain.unlike_before(values, starts, lengths, unlike)
    return unlike


def are_probabilities(scores: list[NDArray[np.float32]]) -> bool:
    """Whether all are numbers between 0 and 1."""
    if _plain is not None:
        return _plain.probabilities(scores)
    return all(bool(((values >= 0) & (values <= 1)).all()) for values in scores)


class Words:
    """Looks strings up in the `tables` of their columns, which know None too.

    Other ASCII strings of at most `max_bytes` bytes become the number of their column in `unknowns`.
    """

    def __init__(self, tables: tuple[dict[Any, int], ...], unknowns: tuple[int, ...], max_bytes: int) -> None:
        self._tables, self._unknowns, self._max_bytes = tables, unknowns, max_bytes

    def rows(self, columns: Columns, rows: int) -> NDArray[np.int64] | None:
        """The row of each string or None: [C, N]. None where something is not plain."""
        if _plain is None:
            return None
        array = np.empty((len(columns), rows), np.int64)
        return array if _plain.rows(columns, array, self._tables, self._unknowns, self._max_bytes) else None
