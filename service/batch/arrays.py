"""An Arrow batch as the arrays the graph takes: each distinct word looked up once, each user read once.

Values are read and refused by the scorer's own readers (`service.scoring.columns`), a column at a time. Knows Arrow,
features and sides. Does not know files, nor where the batch comes from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.errors import RequestInvalid, SeveralInvalid
from contract.features import INT64_MISSING, Sequence
from service.batch.dictionaries import Dictionaries
from service.batch.lists import Spans, spans_of
from service.batch.people import people
from service.batch.typed import integers, numbers, words
from service.scoring.columns import Columns, layout
from service.scoring.scorer import Feeds, Scorer
from service.scoring.values import BadValue, Reader

MAX_CELLS = 2**21  # of one padded array
Array = NDArray[Any]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Raw:
    """A column before it is looked up: `values` are numbers, or codes into `words`; of a list, flat with `spans`."""

    values: Array
    words: pa.Array | None
    spans: Spans | None = None


@dataclass(frozen=True)
class Seen:
    """How often a feature was missing in a row, and of its present values how many, and how many unknown."""

    missing: int
    present: int
    unknown: int | None = None


@dataclass(frozen=True, eq=False)
class Ready:
    """What the graph takes for a batch of B rows, and which of them it cannot take (None: it can take all)."""

    feeds: Feeds
    refused: Mask | None
    seen: Mapping[str, Seen]
    per_user: NDArray[np.int64]  # rows of each user


class TooWide(Exception):
    """The sequences of these rows, padded to the longest, would fill too much memory. Never leaves this package."""


class Arrays:
    """Reads batches for one scorer."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._dtypes = {entry.name: entry.dtype for entry in scorer.manifest.inputs}
        self.unknown = {name: found.unknown for name, found in scorer.session.words.items()}
        self.dictionaries = Dictionaries()

    def read(self, batch: pa.RecordBatch) -> Ready:
        """A batch that has a column for every feature, of a type that `typed.check_type` lets pass.

        Raises: TooWide, where half the batch may not be.
        """
        users, items = self._scorer.users, self._scorer.candidates
        refused = np.zeros(batch.num_rows, np.bool_)
        raw = {name: self._raw(batch, name, refused) for name in (*users.features, *items.features)}
        of_users = [raw[name] for name in users.features]
        firsts, row_user = people(
            [one.values for one in of_users if one.spans is None],
            [(one.spans, one.values) for one in of_users if one.spans is not None],
            batch.num_rows,
        )
        if not users.features:
            row_user = np.zeros(batch.num_rows, np.int64)
        user_refused = np.zeros(len(firsts), np.bool_)
        per_user = np.bincount(row_user, minlength=len(firsts))
        of_user = _Side(users, raw, firsts, per_user, user_refused, self)
        every = np.arange(batch.num_rows)
        of_item = _Side(items, raw, every, None, refused, self)
        feeds = of_user.arrays() | of_item.arrays()
        if user_refused.any():
            refused |= user_refused[row_user]
        seen = {**of_user.seen, **of_item.seen}
        feeds[self._scorer.manifest.row_user] = row_user
        return Ready(feeds, refused if refused.any() else None, seen, per_user)

    def without(self, ready: Ready) -> Feeds:
        """The arrays for the rows that are not refused; users of refused rows stay, unused."""
        if ready.refused is None:
            return ready.feeds
        kept = np.flatnonzero(~ready.refused)
        mine = {*self._scorer.candidates.features, self._scorer.manifest.row_user}
        return {name: array[kept] if name in mine else array for name, array in ready.feeds.items()}

    def reason(self, batch: pa.RecordBatch, row: int) -> str:
        """Why the scorer refuses a row, in its own words."""
        tables: list[dict[str, Any]] = []
        for side in (self._scorer.users, self._scorer.candidates):
            try:
                tables.append({name: [_plain(batch.column(name)[row].as_py())] for name in side.features})
            except UnicodeDecodeError:
                return "a string is not UTF-8"
        try:
            self._scorer.read(tables[0], tables[1])
        except RequestInvalid as error:
            each = error.errors if isinstance(error, SeveralInvalid) else (error,)
            return "; ".join(f"{_column(one.place)}: {one.fact}" for one in each)
        return "a value does not fit its feature's type"

    def _raw(self, batch: pa.RecordBatch, name: str, refused: Mask) -> Raw:
        column, dtype = batch.column(name), self._dtypes[name]
        spans = None
        side = self._scorer.users if name in self._scorer.users.features else self._scorer.candidates
        if isinstance(side.features[name], Sequence):
            spans, column = spans_of(column)
        found: pa.Array | None = None
        bad: Mask | None = None
        values: Array
        if dtype == "string":
            values, found, bad = words(column)
        elif dtype == "int64":
            values, bad = integers(column, INT64_MISSING)
        else:
            values = numbers(column)
        if bad is not None:
            refused |= bad if spans is None else _any_in(spans, bad)
        return Raw(values, found, spans)


class _Side:
    """One side's columns, at `rows` of the batch, which stand for `weights` rows each."""

    def __init__(
        self,
        columns: Columns,
        raw: Mapping[str, Raw],
        rows: NDArray[np.int64],
        weights: NDArray[np.int64] | None,
        refused: Mask,
        arrays: Arrays,
    ) -> None:
        self._columns, self._raw, self._rows, self._weights = columns, raw, rows, weights
        self._refused, self._of = refused, arrays
        self.seen: dict[str, Seen] = {}

    def arrays(self) -> dict[str, Array]:
        """An array for every feature of the side. Rows that cannot be taken are marked, and hold missing values."""
        found = {name: self._single(name, refuse) for name, refuse in self._columns.singles}
        for main, names in self._columns.groups:
            found.update(self._group(main, names))
        return found

    def _single(self, name: str, refuse: bool) -> Array:
        raw, reads = self._raw[name], self._columns.readers[name]
        values = raw.values if len(raw.values) == len(self._rows) else raw.values[self._rows]
        if raw.words is not None:
            table, bad, absent = self._of.dictionaries.read(name, reads, raw.words, values)
            self._count_words(name, values, table, absent)
            wrong = (bad | absent) if refuse else bad
            if wrong.any():
                self._refused |= wrong[values]
            return np.asarray(reads.feed(table)[values])
        array, infinite = _numbers(reads, values)
        absent = reads.is_missing(array)
        missing = self._sum(absent)
        self.seen[name] = Seen(missing, self._total() - missing)
        if refuse and missing:
            self._refused |= absent
        if infinite is not None:
            self._refused |= infinite
        return array

    def _group(self, main: Sequence, names: list[str]) -> dict[str, Array]:
        """A sequence and those along it, as `Columns` does it: the same steps are dropped, kept and padded."""
        raw = {name: self._raw[name] for name in names}
        spans = {name: one.spans for name, one in raw.items() if one.spans is not None}
        lengths = spans[main.name].lengths[self._rows]
        for name in names[1:]:
            unlike = spans[name].lengths[self._rows] != lengths
            if unlike.any():
                self._refused |= unlike
                lengths = np.where(unlike, 0, lengths)
        flat: dict[str, Array] = {}
        for name in names:
            reads = self._columns.readers[name]
            own = Spans(spans[name].starts[self._rows], lengths)
            values = raw[name].values[own.places(np.arange(len(lengths)))]
            flat[name], bad = self._members(name, reads, raw[name], values)
            if bad is not None and bad.any():
                self._refused |= _any_in(Spans(np.cumsum(lengths) - lengths, lengths), bad)
        present = ~self._columns.readers[main.name].is_missing(flat[main.name])
        source, row, column, width = layout(present, lengths, main.max_length)
        if len(lengths) * width > MAX_CELLS and len(lengths) > 1:
            raise TooWide
        padded: dict[str, Array] = {}
        for name in names:
            reads = self._columns.readers[name]
            padded[name] = np.full((len(lengths), width), reads.missing, dtype=reads.dtype)
            padded[name][row, column] = flat[name][source]
            self._count_steps(name, reads, padded[name], padded[main.name])
            reads.feed(padded[name])
        return padded

    def _members(self, name: str, reads: Reader, raw: Raw, values: Array) -> tuple[Array, Mask | None]:
        if raw.words is None:
            return _numbers(reads, values)
        table, bad, _ = self._of.dictionaries.read(name, reads, raw.words, values)
        return table[values], bad[values] if bad.any() else None

    def _count_words(self, name: str, codes: Array, table: Array, absent: Mask) -> None:
        counts = np.bincount(codes + 1, weights=self._weights, minlength=len(table))
        counts = np.concatenate([counts[1:], counts[:1]])  # code -1 is the last entry of the table
        missing = int(counts[absent].sum())
        unknown = self._of.unknown.get(name)
        strange = None if unknown is None else int(counts[(table == unknown) & ~absent].sum())
        self.seen[name] = Seen(missing, self._total() - missing, strange)

    def _count_steps(self, name: str, reads: Reader, padded: Array, main: Array) -> None:
        absent = reads.is_missing(padded)
        steps = (~absent).sum(axis=1)
        unknown = self._of.unknown.get(name)
        strange = None if unknown is None else self._sum((padded == unknown).sum(axis=1))
        self.seen[name] = Seen(self._sum(steps == 0), self._sum(steps), strange)

    def _total(self) -> int:
        return len(self._rows) if self._weights is None else int(self._weights.sum())

    def _sum(self, values: Array) -> int:
        return int(values.sum() if self._weights is None else (values * self._weights).sum())


def _numbers(reads: Reader, values: Array) -> tuple[Array, Mask | None]:
    try:
        return reads.read(values), None
    except BadValue:
        with np.errstate(over="ignore"):
            bad = np.isinf(values.astype(np.float32))
        return reads.read(np.where(bad, np.nan, values)), bad


def _any_in(spans: Spans, flags: Mask) -> Mask:
    """Which rows have a flag among their values."""
    before = np.concatenate([[0], np.cumsum(flags)])
    return np.asarray(before[spans.starts + spans.lengths] > before[spans.starts])


def _column(place: str) -> str:
    """Where in a row something is, from where in a request of one row it would be.

    >>> _column("candidates.tags[0][2]"), _column("user.tags[2]")
    ('tags[2]', 'tags[2]')
    """
    side, _, rest = place.partition(".")
    return rest if side == "user" else rest.replace("[0]", "", 1)


def _plain(value: Any) -> Any:
    """A raw value as JSON would hold it: NaN is missing."""
    return None if isinstance(value, float) and value != value else value
