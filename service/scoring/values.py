"""Lists of raw values as one array of a dtype, or the position and the fact of the first wrong one.

Knows Python, JSON and numpy types. Does not know features. The types of a column are looked at once, as a set;
only a column that holds something wrong is walked value by value, to find it. Lists in which nothing is out of the
ordinary are read by compiled code where there is some (`plain.py`), with the same result.
"""

from array import array as Floats
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.features import INT64_MISSING, STRING_MISSING
from service.scoring import plain
from service.scoring.lookups import Words

Array = NDArray[Any]

STRINGS: frozenset[type] = frozenset({str, np.str_, NoneType})
INTEGERS: frozenset[type] = frozenset({int, np.int64, np.int32, NoneType})
NUMBERS: frozenset[type] = INTEGERS | {float, np.float64, np.float32}
FINITE: frozenset[type] = frozenset({int, float})
NO_WORD = -1  # no row of a table
LARGEST = float(np.finfo(np.float32).max)


class BadValue(Exception):
    """The value at `index` cannot be read. Never leaves this package."""

    def __init__(self, index: int, fact: str) -> None:
        super().__init__(index, fact)
        self.index, self.fact = index, fact


@dataclass(frozen=True)
class Reader:
    """How the values of one dtype are read: `read` may raise BadValue. `fed` is what the graph takes for `missing`.

    `rows` are there where strings become rows of a table.
    """

    dtype: Any
    missing: Any
    read: Callable[[Any], Array]
    is_missing: Callable[[Array], NDArray[np.bool_]]
    fed: Any = None
    rows: "Rows | None" = None

    def feed(self, array: Array) -> Array:
        """What was read, as the graph takes it."""
        if self.fed is not None:
            array[array == self.missing] = self.fed
        return array


def reader(dtype: str, max_string_bytes: int, words: Words | None = None, *, tells_missing: bool = True) -> Reader:
    """The reader of "string", "int64" or "float32" values; with `words`, of strings as the rows of a table.

    A missing word may have the row of another: only a reader that `tells_missing` keeps them apart until `feed`.
    """
    if words is not None:
        missing = NO_WORD if tells_missing else words.missing
        rows = Rows({**words.rows, STRING_MISSING: missing, None: missing}, words.unknown, max_string_bytes)
        read = partial(read_words, rows=rows, plainly=plain.Words((rows,), (rows.unknown,), max_string_bytes))
        return Reader(np.int64, missing, read, lambda a: a == missing, words.missing if tells_missing else None, rows)
    if dtype == "string":
        return Reader(
            object, STRING_MISSING, partial(read_strings, max_bytes=max_string_bytes), lambda a: a == STRING_MISSING
        )
    if dtype == "int64":
        return Reader(np.int64, INT64_MISSING, read_integers, lambda a: a == INT64_MISSING)
    return Reader(np.float32, np.nan, read_numbers, np.isnan)


def read_strings(values: Any, max_bytes: int) -> Array:
    """Strings as an object array; None becomes "". Raises: BadValue."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if NoneType in _check_types(values, STRINGS, "must be a string"):
        values = [STRING_MISSING if value is None else value for value in values]
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        _refuse_first(values, _not_utf8, "cannot be written as UTF-8")
    longest = max(map(len, values), default=0)
    if longest * 4 > max_bytes:
        _refuse_first(values, lambda value: len(value.encode()) > max_bytes, f"is longer than {max_bytes} bytes")
    return np.array(values, dtype=object)


class Rows(dict[Any, int]):
    """The row of each word, and `unknown` for any other string that is fit to be sent; only those are looked at."""

    def __init__(self, rows: dict[Any, int], unknown: int, max_bytes: int) -> None:
        super().__init__(rows)
        self.unknown, self.max_bytes = unknown, max_bytes

    def __missing__(self, value: Any) -> int:
        if type(value) is not str or len(value) > self.max_bytes or not value.isascii():
            read_strings([value], self.max_bytes)
        return self.unknown


def read_words(values: Any, rows: Rows, plainly: plain.Words) -> Array:
    """Strings as rows. Raises: BadValue."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if (found := plainly.rows([values], len(values))) is not None:
        return found.reshape(-1)
    try:
        return np.fromiter(map(rows.__getitem__, values), np.int64, len(values))
    except (BadValue, TypeError):  # a list or an object cannot be looked up
        strangers = [None if type(value) is str and value in rows else value for value in values]
        read_strings(strangers, rows.max_bytes)
        raise


def read_integers(values: Any) -> Array:
    """Whole numbers as int64; None becomes INT64_MISSING. Raises: BadValue."""
    if isinstance(values, np.ndarray):
        if values.dtype.kind == "i":
            return values.astype(np.int64, copy=False)
        values = values.tolist()
    if (found := plain.integers([values], len(values))) is not None:
        return found.reshape(-1)
    if NoneType in _check_types(values, INTEGERS, "must be a whole number"):
        values = [INT64_MISSING if value is None else value for value in values]
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError:
        _refuse_first(values, lambda value: not -(2**63) <= value < 2**63, "does not fit in 64 bits")
        raise


def read_numbers(values: Any) -> Array:
    """Numbers as float32; None, and NaN in a numpy array, become NaN. Raises: BadValue."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
        array = values if values.dtype == np.float32 else _as_float32(values)
        if (infinite := np.isinf(array)).any():
            raise BadValue(int(infinite.argmax()), "must be a finite number that fits in 32 bits")
        return array
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if (found := plain.numbers([values], len(values))) is not None:
        return found.reshape(-1)
    types = _check_types(values, NUMBERS, "must be a number")
    try:
        if types <= FINITE:
            array = np.array(Floats("f", values), dtype=np.float32, copy=False)  # larger ones become infinite
            fits = bool(np.isfinite(array).all())
        else:
            array = _as_float32(np.array(values, dtype=np.float64))  # None becomes NaN
            fits = not np.isinf(array).any() and int(np.isnan(array).sum()) == values.count(None)
    except OverflowError:
        fits = False
    if not fits:
        _refuse_first(values, _not_finite, "must be a finite number that fits in 32 bits")
    return array


def _as_float32(array: Array) -> Array:
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _check_types(values: Any, allowed: frozenset[type], fact: str) -> set[type]:
    types = set(map(type, values))
    if not types <= allowed:
        _refuse_first(values, lambda value: type(value) not in allowed, fact)
    return types


def _refuse_first(values: Any, wrong: Callable[[Any], bool], fact: str) -> None:
    for index, value in enumerate(values):
        if wrong(value):
            raise BadValue(index, fact)


def _not_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False


def _not_finite(value: Any) -> bool:
    # written so that NaN, for which every comparison is false, counts as not finite
    return value is not None and not abs(value) <= LARGEST
