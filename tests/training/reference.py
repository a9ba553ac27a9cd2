"""Encoding as the contract describes it, row by row in plain Python: slow, and nothing shared with the trainer."""

import math
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import mmh3
import numpy as np

from contract.features import FIRST_ROW, INT64_MISSING, MISSING_ROW, UNKNOWN_ROW, Categorical, Feature, Numeric
from contract.features import Sequence as SequenceFeature

Value = str | int | None


@dataclass
class Table:
    """Rows of one table: the vocabulary's, or the hash's."""

    offset: int
    dtype: str
    buckets: int | None
    rows: dict[Value, int] = field(default_factory=dict)

    def row(self, value: Value) -> int:
        """Of a value that is there."""
        if self.buckets is None:
            return self.rows.get(value, UNKNOWN_ROW)
        key = struct.pack("<q", value) if self.dtype == "int64" else str(value).encode()
        return FIRST_ROW + mmh3.hash(key, 0, signed=False) % self.buckets

    @property
    def size(self) -> int:
        return FIRST_ROW + (self.buckets or len(self.rows))


def plain(value: Any, dtype: str) -> Value:
    """A cell as the contract's type; None is missing."""
    if value is None or value == "" or value == INT64_MISSING or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, float):
        assert value == int(value)
        value = int(value)
    return str(value) if dtype == "string" else int(value)


def steps(log: dict[str, list[Any]], feature: SequenceFeature, row: int) -> list[Value]:
    """The last `max_length` steps of a row whose own value (or that of the sequence it runs along) is there."""
    own, main = log[feature.name][row] or [], log[feature.along or feature.name][row] or []
    kept = [x for x, step in zip(own, main, strict=True) if step is not None and step != ""]
    return [plain(x, feature.dtype or "") for x in kept[-feature.max_length :]]


def cells(log: dict[str, list[Any]], feature: Categorical | SequenceFeature, row: int) -> list[Value]:
    """What a row holds of a feature: one value, or the kept steps."""
    if isinstance(feature, SequenceFeature):
        return steps(log, feature, row)
    return [plain(log[feature.name][row], feature.dtype or "")]


def tables(log: dict[str, list[Any]], features: Sequence[Feature], train: Sequence[bool]) -> dict[str, Table]:
    """A table for every feature that has its own; of values seen equally often the one seen first comes first."""
    found: dict[str, Table] = {}
    end: Counter[int] = Counter()
    for owner in features:
        if isinstance(owner, Numeric) or owner.share:
            continue
        table = found[owner.name] = Table(end[owner.dim], owner.dtype or "", owner.buckets)
        if owner.buckets is None:
            seen: dict[Value, int] = {}
            for feature in features:
                if isinstance(feature, Numeric) or (feature.share or feature.name) != owner.name:
                    continue
                for cell in log[feature.name]:
                    for value in (cell or []) if isinstance(feature, SequenceFeature) else [cell]:
                        seen.setdefault(plain(value, table.dtype), 0)
                for row in np.flatnonzero(train).tolist():
                    for value in cells(log, feature, row):
                        seen[value] += 1
            frequent = [x for x, count in seen.items() if x is not None and count >= owner.min_count]
            frequent.sort(key=lambda x: -seen[x])
            table.rows = {value: FIRST_ROW + number for number, value in enumerate(frequent)}
        end[owner.dim] += table.size
    return found


def encoded(log: dict[str, list[Any]], feature: Feature, found: dict[str, Table], row: int) -> list[float]:
    """A row's cell as training reads it: one number, one table row, or `max_length` table rows."""
    if isinstance(feature, Numeric):
        value = log[feature.name][row]
        return [math.nan if value is None else float(value)]
    table = found[feature.share or feature.name]
    missing, unknown = MISSING_ROW, UNKNOWN_ROW
    if isinstance(feature, Categorical):
        if feature.missing == "default":
            missing = table.row(feature.default)
        if feature.unknown == "missing":
            unknown = missing
    rows = [missing if x is None else table.row(x) for x in cells(log, feature, row)]
    rows = [unknown if x == UNKNOWN_ROW else x for x in rows]
    if isinstance(feature, SequenceFeature):
        rows += [MISSING_ROW] * (feature.max_length - len(rows))
    return [table.offset + x for x in rows]
