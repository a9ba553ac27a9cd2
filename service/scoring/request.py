"""Requests straight from JSON to arrays, by compiled code where it was built (`csrc/`).

Most requests are plain: nothing about their values has to be decided, and no value needs an object of its own. What is
not plain is left to whoever reads JSON and to `service.scoring.columns`, which say what is wrong with it, if it is.
Knows columns, and the one shape of a request. Does not know errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from contract.features import Sequence
from service.scoring.columns import Columns
from service.scoring.lookups import Words
from service.scoring.settings import ScoringSettings

try:
    from service.scoring import _request
except ImportError:
    _request = None  # type: ignore[assignment]


Array = NDArray[Any]
WORD, INTEGER, NUMBER, TEXT = range(4)  # as in csrc/request.h
DTYPES = {WORD: np.int64, INTEGER: np.int64, NUMBER: np.float32, TEXT: object}


def is_deeper(body: bytes, levels: int) -> bool | None:
    """Whether valid JSON is nested deeper than that; None where nothing was compiled."""
    return None if _request is None else _request.deeper(body, levels)


class Plain(Protocol):
    """A request that was read."""

    @property
    def count(self) -> int:
        """How many candidates it has."""

    @property
    def order(self) -> int:
        """The number of the output to sort by, or -1."""

    @property
    def top(self) -> int:
        """How many candidates are asked for, or 0."""


class Feature(NamedTuple):
    """What the compiled code knows of a feature."""

    side: int  # 0 for users, 1 for candidates
    kind: int
    sequence: bool
    refuses: bool  # that a value is missing
    table: _request.Table | None  # of words
    unknown: int
    missing: int
    fed: int  # what the graph takes for `missing`
    main: int  # of a sequence: the number of the one it runs along, perhaps its own
    most: int  # of a sequence: how many steps are kept


class Requests:
    """Reads plain requests for a model. Made by `of`."""

    def __init__(self, features: Mapping[str, Feature], outputs: Iterable[str], settings: ScoringSettings) -> None:
        self._max_cells = settings.max_cells
        self._reader = _request.Reader(
            _numbered(features), tuple(features.values()), _numbered(outputs), settings.max_string_bytes
        )
        singles = [(name, feature) for name, feature in features.items() if not feature.sequence]
        self._singles = [
            [[name for name, of in singles if (of.side, DTYPES[of.kind]) == (side, dtype)] for dtype in BLOCKS]
            for side in (0, 1)
        ]
        self._sequences = [(name, DTYPES[feature.kind]) for name, feature in features.items() if feature.sequence]

    @classmethod
    def of(
        cls,
        users: Columns,
        candidates: Columns,
        outputs: Iterable[str],
        words: Mapping[str, Words],
        settings: ScoringSettings,
    ) -> Self | None:
        """None where nothing was compiled, or where a vocabulary is out of the ordinary."""
        if _request is None:
            return None
        numbers = {name: number for number, name in enumerate(chain(users.features, candidates.features))}
        try:
            tables = {id(found): _request.Table(dict(found.rows)) for found in words.values()}
            features = {
                name: _feature(side, columns, name, numbers, words.get(name), tables)
                for side, columns in enumerate((users, candidates))
                for name in columns.features
            }
            return cls(features, outputs, settings)
        except ValueError:
            return None

    def read(self, body: bytes, max_candidates: int) -> Plain | None:
        """The request that a body is; None where it is not plain."""
        return self._reader.read(body, max_candidates)

    def tensors(self, body: bytes, length: int, max_candidates: int) -> tuple[Plain, bytes] | None:
        """The request that tensors of the Open Inference Protocol are, whose data lie behind `length` bytes of JSON.

        And the JSON, with an empty list in place of its inputs. None where it is not plain; where the rest of the JSON
        is at fault, so is all of it.
        """
        return self._reader.tensors(body, length, max_candidates)

    def arrays(self, requests: list[Plain]) -> tuple[dict[str, Array], NDArray[np.int64]] | None:
        """An array for each feature, [U] or [N], for a sequence [U or N, steps]; and the user of each candidate [N].

        Each request has one user. None where a sequence would have too many cells.
        """
        joined = self._reader.join(requests, self._max_cells)
        if joined is None:
            return None
        sides, sequences, owners = joined
        found: dict[str, Array] = {}
        for kinds, blocks in zip(self._singles, sides, strict=True):
            for names, dtype, block in zip(kinds, BLOCKS, blocks, strict=True):
                if names:
                    found.update(zip(names, _array(block, dtype).reshape(len(names), -1), strict=True))
        for (name, dtype), (cells, steps) in zip(self._sequences, sequences, strict=True):
            found[name] = _array(cells, dtype).reshape(-1, steps)
        return found, _array(owners, np.int64)


BLOCKS = (np.int64, np.float32, object)  # in which single features come


def _array(cells: Any, dtype: Any) -> Array:
    return np.array(cells, object) if dtype is object else np.frombuffer(cells, dtype)


def _numbered(names: Iterable[str]) -> _request.Table:
    return _request.Table({name: number for number, name in enumerate(names)})


def _feature(
    side: int,
    columns: Columns,
    name: str,
    numbers: Mapping[str, int],
    words: Words | None,
    tables: Mapping[int, _request.Table],
) -> Feature:
    """What the compiled code has to know of a feature, whose values it reads as `columns.readers` do."""
    feature, reads = columns.features[name], columns.readers[name]
    kind = WORD if reads.rows is not None else {np.int64: INTEGER, np.float32: NUMBER, object: TEXT}[reads.dtype]
    missing = int(reads.missing) if DTYPES[kind] is np.int64 else 0
    is_sequence = isinstance(feature, Sequence)
    return Feature(
        side,
        kind,
        is_sequence,
        dict(columns.singles).get(name, False),
        None if words is None else tables[id(words)],
        0 if words is None else words.unknown,
        missing,
        missing if reads.fed is None else int(reads.fed),
        numbers[(feature.along or name) if isinstance(feature, Sequence) else name],
        feature.max_length if isinstance(feature, Sequence) else 0,
    )
