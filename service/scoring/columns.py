"""Raw columns as the arrays the graph takes.

Knows features, dtypes, sentinels, padding, and which values are refused. Does not know vocabularies, scaling or
unknown values: those live in the graph. Nothing here loops over candidates in Python unless a value is wrong.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, filterfalse, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.bundle import Manifest
from contract.errors import (
    FeatureMissing,
    LengthMismatch,
    RequestInvalid,
    SeveralInvalid,
    TooManyCandidates,
    UnknownFeature,
    ValueInvalid,
)
from contract.features import Feature, Sequence, Side
from service.scoring import plain
from service.scoring.lookups import Words
from service.scoring.settings import ScoringSettings
from service.scoring.values import BadValue, Reader, reader

Table = Mapping[str, Any]
Array = NDArray[Any]
Place = Callable[..., str]
Block = Callable[[list[Any], int], Array | None]
SIDES: dict[Side, str] = {"user": "users", "item": "candidates"}
COLUMN = (list, tuple, np.ndarray)
LISTS: frozenset[type] = frozenset({list})
MAX_ERRORS = 20


class Columns:
    """The columns of one side.

    A table maps feature names to columns: a list with one raw value per row, `None` for missing, or a numpy array
    (where NaN, INT64_MISSING and "" are the missing values). A column that is not given is missing in every row.
    """

    def __init__(
        self, manifest: Manifest, side: Side, settings: ScoringSettings, words: Mapping[str, Words] | None = None
    ) -> None:
        dtypes = {entry.name: entry.dtype for entry in manifest.inputs}
        self.side = side
        self.features: dict[str, Feature] = {f.name: f for f in manifest.features if f.side == side}
        self._elsewhere = frozenset(f.name for f in manifest.features if f.side != side)
        self.readers: dict[str, Reader] = {
            name: reader(
                dtypes[name],
                settings.max_string_bytes,
                (words or {}).get(name),
                tells_missing=isinstance(feature, Sequence) or feature.missing == "refuse",
            )
            for name, feature in self.features.items()
        }
        self._max_cells = settings.max_cells
        sequences = [feature for feature in self.features.values() if isinstance(feature, Sequence)]
        along = {f.name: [f.name, *(g.name for g in sequences if g.along == f.name)] for f in sequences}
        self.groups = [(f, along[f.name]) for f in sequences if f.along is None]
        self.singles = [(f.name, f.missing == "refuse") for f in self.features.values() if not isinstance(f, Sequence)]
        self._kinds = list(self._plain_kinds(settings.max_string_bytes))

    def is_sequence(self, name: str) -> bool:
        """Whether a feature of this side has a list in each row."""
        return isinstance(self.features[name], Sequence)

    def unknown(self, names: Iterable[str]) -> list[RequestInvalid]:
        """An UnknownFeature for each name that is no feature of this side (the first 20)."""
        strangers = filterfalse(self.features.__contains__, names)
        return [self._unknown(name) for name in islice(strangers, MAX_ERRORS)]

    def arrays(self, table: Table, rows: int, faults: list[RequestInvalid]) -> dict[str, Array]:
        """One array for every feature of the side: [rows], or for a sequence [rows, longest kept, at least 1].

        Every column must have `rows` values (see `count_rows`). What is wrong is appended to `faults`, at most one
        for each feature; that feature is then left out of the answer.
        """
        place = self._place(rows)
        found: dict[str, Array] = {}
        for names, read in self._kinds:
            if (block := read(list(map(table.get, names)), rows)) is not None:
                found.update(zip(names, block, strict=True))
        for name, refuse in self.singles:
            if name in found:
                continue
            try:
                found[name] = self._single(name, refuse, table.get(name), rows, place)
            except RequestInvalid as fault:
                faults.append(fault)
        for main, names in self.groups:
            try:
                found.update(self._group(main, names, table, rows, place))
            except RequestInvalid as fault:
                faults.append(fault)
        return found

    def padding(self, name: str) -> Any:
        """What the graph takes for a value that is missing."""
        reads = self.readers[name]
        return reads.missing if reads.fed is None else reads.fed

    def _plain_kinds(self, max_bytes: int) -> Iterator[tuple[list[str], Block]]:
        """Features that are read together, as columns of plain values, and what reads them."""
        kinds: dict[Any, list[str]] = {}
        for name, refuse in self.singles:
            if not refuse:
                reads = self.readers[name]
                kinds.setdefault("words" if reads.rows is not None else reads.dtype, []).append(name)
        if names := kinds.get("words"):
            tables = tuple(rows for name in names if (rows := self.readers[name].rows) is not None)
            yield names, plain.Words(tables, tuple(rows.unknown for rows in tables), max_bytes).rows
        if names := kinds.get(np.int64):
            yield names, plain.integers
        if names := kinds.get(np.float32):
            yield names, plain.numbers

    def _single(self, name: str, refuse: bool, column: Any, rows: int, place: Place) -> Array:
        reads = self.readers[name]
        if column is None:
            if refuse and rows:
                raise FeatureMissing("must be given", place=place(name), remedy="send a value for each row")
            return reads.feed(np.full(rows, reads.missing, dtype=reads.dtype))
        try:
            array = reads.read(column)
        except BadValue as bad:
            raise ValueInvalid(bad.fact, place=place(name, bad.index)) from None
        if refuse and (absent := reads.is_missing(array)).any():
            raise FeatureMissing(
                "the value is missing, and the model was trained without missing values here",
                place=place(name, int(absent.argmax())),
                remedy="send a value",
            )
        return reads.feed(array)

    def _group(self, main: Sequence, names: list[str], table: Table, rows: int, place: Place) -> dict[str, Array]:
        """A sequence and those that run along it: the same steps of each are dropped, kept and padded."""
        steps = {name: _steps(table.get(name), rows, name, place) for name in names}
        lengths = list(map(len, steps[main.name]))
        for name in names[1:]:
            _check_parallel(steps[name], lengths, name, main.name, place)
        members = {name: self._members(name, steps[name], lengths, place) for name in names}
        present = ~self.readers[main.name].is_missing(members[main.name])
        source, row, column, width = layout(present, lengths, main.max_length)
        if rows * width > self._max_cells:
            raise TooManyCandidates(
                f"{rows} rows of up to {width} steps are more than {self._max_cells} values",
                place=place(main.name),
                remedy="send fewer candidates at once",
            )
        padded: dict[str, Array] = {}
        for name in names:
            reads = self.readers[name]
            padded[name] = np.empty((rows, width), reads.dtype)
            padded[name].fill(reads.missing if reads.fed is None else reads.fed)
            padded[name][row, column] = reads.feed(members[name])[source]
        return padded

    def _members(self, name: str, steps: list[Any], lengths: list[int], place: Place) -> Array:
        try:
            return self.readers[name].read(list(chain.from_iterable(steps)))
        except BadValue as bad:
            ends = np.cumsum(lengths)
            row = int(np.searchsorted(ends, bad.index, side="right"))
            member = bad.index - int(ends[row] - lengths[row])
            raise ValueInvalid(bad.fact, place=place(name, row, member)) from None

    def _place(self, rows: int) -> Place:
        side = "user" if self.side == "user" and rows == 1 else SIDES[self.side]

        def place(name: str, row: int | None = None, member: int | None = None) -> str:
            at = "" if row is None or side == "user" else f"[{row}]"
            return f"{side}.{name}{at}" + ("" if member is None else f"[{member}]")

        return place

    def _unknown(self, name: str) -> RequestInvalid:
        side, other = ("user", "candidates") if self.side == "user" else ("candidates", "user")
        if name in self._elsewhere:
            fact, remedy = "the model takes this feature on the other side", f"send it with `{other}`"
        else:
            near = difflib.get_close_matches(name[:128], self.features, n=1)
            fact, remedy = "the model has no such feature", f"did you mean {near[0]!r}" if near else "leave it out"
        return UnknownFeature(fact, place=f"{side}.{shown(name)}", remedy=remedy)


def count_rows(table: Table, side: Side, rows: int | None = None) -> int | None:
    """How many rows the columns have; None without columns. All must agree, with each other and with `rows`.

    Raises: ValueInvalid, LengthMismatch.
    """
    if set(map(type, table.values())) <= LISTS:
        lengths = set(map(len, table.values()))
        if len(lengths) == 1 and (rows is None or rows in lengths):
            return lengths.pop()
    for name, column in table.items():
        if not isinstance(column, COLUMN):
            raise ValueInvalid("must be a list with one value per row", place=f"{SIDES[side]}.{shown(name)}")
        if rows is None:
            rows = len(column)
        elif len(column) != rows:
            raise LengthMismatch(
                f"has {len(column)} values where {rows} are expected",
                place=f"{SIDES[side]}.{shown(name)}",
                remedy="give every column one value per row, null where it is missing",
            )
    return rows


def shown(name: str) -> str:
    """A name that came from outside, fit to be shown in a message."""
    return "".join(character for character in name[:64] if character.isprintable())


def raise_all(faults: list[RequestInvalid]) -> None:
    """Raise what there is: nothing, the one fault, or SeveralInvalid."""
    each = [one for fault in faults for one in (fault.errors if isinstance(fault, SeveralInvalid) else (fault,))]
    if each:
        raise each[0] if len(each) == 1 else SeveralInvalid(each)


def _steps(column: Any, rows: int, name: str, place: Place) -> list[Any]:
    """The rows of a sequence column as lists; a missing sequence is an empty one."""
    if column is None:
        return [()] * rows
    kinds = set(map(type, column))
    if kinds <= {list}:
        return list(column)
    for index, value in enumerate(column):
        if value is not None and not isinstance(value, COLUMN):
            raise ValueInvalid("must be a list", place=place(name, index))
    return [() if value is None else value for value in column]


def layout(present: NDArray[np.bool_], lengths: Any, max_length: int) -> tuple[Array, Any, Any, int]:
    """Which steps of all rows are kept, the row and column each goes to, and how many columns there are, at least 1.

    The last `max_length` present steps of a row are kept.
    """
    source = np.flatnonzero(present)
    if len(lengths) == 1:
        source = source[-max_length:]
        return source, 0, slice(len(source)), max(1, len(source))
    row = np.repeat(np.arange(len(lengths)), lengths)[source]
    found = np.bincount(row, minlength=len(lengths))
    before = np.cumsum(found) - found + np.maximum(found - max_length, 0)
    column = np.arange(len(source)) - before[row]
    kept = column >= 0
    return source[kept], row[kept], column[kept], int(column.max(initial=0)) + 1


def _check_parallel(steps: list[Any], lengths: list[int], name: str, main: str, place: Place) -> None:
    own = list(map(len, steps))
    if own != lengths:
        row = next(row for row, (one, other) in enumerate(zip(own, lengths, strict=True)) if one != other)
        raise LengthMismatch(
            f"has {own[row]} members where {main!r} has {lengths[row]}",
            place=place(name, row),
            remedy=f"give one member for each of {main!r}, null where it is missing",
        )
