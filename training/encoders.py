"""Fitting: from staged columns to vocabularies, tables and numeric encodings, on training rows only.

Knows counts and quantiles. Does not know the graph (`transforms` writes it) nor the encoded files (`tensors`).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import mmh3
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.errors import MixedTypes, RunInvalid, UselessFeature, ValueMissing
from contract.features import (
    FIRST_ROW,
    MISSING_ROW,
    UNKNOWN_ROW,
    Categorical,
    Dtype,
    Feature,
    Numeric,
    owner,
)
from contract.features import Sequence as SequenceFeature
from models.inputs import Inputs, Lookup, Number
from training.columns import ABSENT
from training.split import SPLITS, TRAIN
from training.staging import Codes, Staged

QUANTILE_SAMPLE = 1_000_000


@dataclass(frozen=True)
class Table:
    """A fitted vocabulary, most frequent value first, or a hash: value -> row of an embedding table."""

    offset: int
    rows: int
    dtype: Dtype
    vocabulary: pa.Array | None

    def hash_rows(self, values: pa.Array) -> NDArray[np.int64]:
        """Row of each value by MurmurHash3 (x86, 32 bits, seed 0) of its UTF-8 or little-endian bytes."""
        buckets = self.rows - FIRST_ROW
        texts = values.to_pylist()
        keys = [struct.pack("<q", x) for x in texts] if self.dtype == "int64" else texts
        return np.array([FIRST_ROW + mmh3.hash(key, 0, signed=False) % buckets for key in keys], np.int64)


@dataclass(frozen=True)
class Fitted:
    """All that was learned from the training rows before training.

    `rows_of`: for each categorical or sequence, what its codes of each batch become: tables' rows, the last entry
    (index -1) that of a missing value.
    """

    features: tuple[Feature, ...]
    inputs: Inputs
    tables: dict[str, Table]
    rows_of: dict[str, list[NDArray[np.int32]]]


def fit(staged: Staged, features: Sequence[Feature], split: NDArray[np.uint8]) -> Fitted:
    """Fit every feature.

    Raises: MixedTypes, RunInvalid, UselessFeature, ValueMissing.
    """
    features = tuple(
        f if isinstance(f, Numeric) else f.model_copy(update={"dtype": staged.dtypes[f.name]}) for f in features
    )
    _check_types(features)
    tables: dict[str, Table] = {}
    rows_of: dict[str, list[NDArray[np.int32]]] = {}
    end: dict[int, int] = {}
    for feature in features:
        if isinstance(feature, Numeric) or feature.share:
            continue
        sharing = [f for f in features if not isinstance(f, Numeric) and owner(f) == feature.name]
        table, rows = _fit_table(feature, sharing, staged, split, end.get(feature.dim, 0))
        tables[feature.name] = table
        rows_of |= rows
        end[feature.dim] = table.offset + table.rows
    lookups = tuple(
        Lookup(f.name, f.side, f.dim, tables[owner(f)].offset, f.max_length, f.along)
        if isinstance(f, SequenceFeature)
        else Lookup(f.name, f.side, f.dim, tables[owner(f)].offset)
        for f in features
        if not isinstance(f, Numeric)
    )
    numbers = [_fit_number(f, staged.floats[f.name].read(), split) for f in features if isinstance(f, Numeric)]
    return Fitted(features, Inputs(lookups, tuple(numbers), end), tables, rows_of)


def _check_types(features: Sequence[Feature]) -> None:
    """What could not be checked before the columns' types were known."""
    dtypes = {f.name: f.dtype for f in features if not isinstance(f, Numeric)}
    for feature in features:
        if isinstance(feature, Numeric):
            continue
        place, dtype = f"feature {feature.name!r}", feature.dtype
        if dtype != dtypes[owner(feature)]:
            raise MixedTypes(
                f"holds {dtype}, and {owner(feature)!r}, whose table it shares, {dtypes[owner(feature)]}",
                place=place,
                remedy='declare `dtype = "string"` for both',
            )
        default = feature.default if isinstance(feature, Categorical) else None
        if default is not None and isinstance(default, str) != (dtype == "string"):
            raise RunInvalid(
                f"`default = {default!r}` is no {dtype}, which its column holds",
                place=place,
                remedy="write the default as the column does",
            )


def _fit_table(
    feature: Categorical | SequenceFeature,
    sharing: Sequence[Categorical | SequenceFeature],
    staged: Staged,
    split: NDArray[np.uint8],
    offset: int,
) -> tuple[Table, dict[str, list[NDArray[np.int32]]]]:
    columns = [staged.codes[f.name] for f in sharing]
    values, maps = unify(columns)
    counts = [_count(codes, local, split, len(values)) for codes, local in zip(columns, maps, strict=True)]
    dtype = staged.dtypes[feature.name]
    if feature.buckets:
        table = Table(offset, FIRST_ROW + feature.buckets, dtype, None)
        row_of_value = table.hash_rows(values)
    else:
        total = np.sum(counts, axis=0)[:-1]
        order = np.argsort(-total, kind="stable")
        order = order[total[order] >= feature.min_count]
        table = Table(offset, FIRST_ROW + len(order), dtype, values.take(pa.array(order)))
        row_of_value = np.full(len(values), UNKNOWN_ROW, np.int64)
        row_of_value[order] = FIRST_ROW + np.arange(len(order))
    rows_of = {}
    for member, local, count in zip(sharing, maps, counts, strict=True):
        own = np.append(row_of_value, default_row(member, table))
        if isinstance(member, Categorical) and member.unknown == "missing":
            own[own == UNKNOWN_ROW] = own[-1]
        _check_use(member, own, count, staged.codes[member.name], split)
        rows_of[member.name] = [(offset + own[to_value]).astype(np.int32) for to_value in local]
    return table, rows_of


def unify(columns: Sequence[Codes]) -> tuple[pa.Array, list[list[NDArray[np.int64]]]]:
    """The distinct values of some columns, and for each column and batch the map from its codes to them.

    A map ends with one more entry, for code ABSENT (index -1): the number of distinct values.
    """
    dictionaries = [dictionary for codes in columns for dictionary in codes.dictionaries]
    parts = [pa.table({"value": dictionary}) for dictionary in dictionaries]
    column = pa.concat_tables(parts, promote_options="permissive").column(0)  # int32 in one file, int64 in another
    encoded = pa.concat_arrays(column.chunks).dictionary_encode()
    values, flat = encoded.dictionary, encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    maps, start = [], 0
    for codes in columns:
        own = []
        for dictionary in codes.dictionaries:
            own.append(np.append(flat[start : start + len(dictionary)], len(values)))
            start += len(dictionary)
        maps.append(own)
    return values, maps


def default_row(feature: Categorical | SequenceFeature, table: Table) -> int:
    """Row, within its table, of a missing value."""
    if not isinstance(feature, Categorical) or feature.missing != "default":
        return MISSING_ROW
    value = pa.array([feature.default], pa.string() if table.dtype == "string" else pa.int64())
    if table.vocabulary is None:
        return int(table.hash_rows(value)[0])
    index = table.vocabulary.index(value[0]).as_py()
    return FIRST_ROW + int(index) if index >= 0 else UNKNOWN_ROW


def _count(codes: Codes, maps: Sequence[NDArray[np.int64]], split: NDArray[np.uint8], values: int) -> NDArray[np.int64]:
    """Occurrences of each value in training rows; the last entry counts the missing ones."""
    total = np.zeros(values + 1, np.int64)
    row = 0
    for batch, to_value in zip(codes.batches(), maps, strict=True):
        train = split[row : row + len(batch)] == TRAIN
        chosen = batch if train.all() else batch[train]
        local = np.bincount(chosen.ravel() + 1, minlength=len(to_value))  # code -1 counts at 0
        np.add.at(total, to_value, np.append(local[1:], local[0]))
        row += len(batch)
    return total


def _check_use(
    feature: Categorical | SequenceFeature,
    own: NDArray[np.int64],
    count: NDArray[np.int64],
    codes: Codes,
    split: NDArray[np.uint8],
) -> None:
    place = f"feature {feature.name!r}"
    if not count[:-1].any():
        raise UselessFeature("missing in every training row", place=place, remedy="remove the feature")
    if isinstance(feature, SequenceFeature):
        return
    if len(np.unique(own[count > 0])) == 1:
        rare = own[count > 0][0] == UNKNOWN_ROW
        fact = f"no value occurs {feature.min_count} times" if rare else "the same value in every training row"
        raise UselessFeature(fact, place=place, remedy="lower min_count" if rare else "remove the feature")
    if feature.missing == "refuse":
        row = 0
        for batch in codes.batches():
            absent = np.flatnonzero(batch[:, 0] == ABSENT)
            if len(absent):
                raise _missing(place, row + int(absent[0]), split)
            row += len(batch)


def _fit_number(feature: Numeric, values: NDArray[np.float32], split: NDArray[np.uint8]) -> Number:
    place = f"feature {feature.name!r}"
    train = values[split == TRAIN]
    absent = np.isnan(train)
    present = train[~absent]
    if len(present) == 0:
        raise UselessFeature("missing in every training row", place=place, remedy="remove the feature")
    if present.min() == present.max() and not (absent.any() and feature.missing == "own"):
        raise UselessFeature("the same value in every training row", place=place, remedy="remove the feature")
    if feature.missing == "refuse" and np.isnan(values).any():
        raise _missing(place, int(np.flatnonzero(np.isnan(values))[0]), split)
    indicator = feature.missing == "own" and bool(absent.any())
    scaled = np.sign(present) * np.log1p(np.abs(present)) if feature.scale == "log1p" else present
    center, spread = float(scaled.mean(dtype=np.float64)), float(scaled.std(dtype=np.float64)) or 1.0
    edges = quantile_edges(present, feature.bins) if feature.scale in ("quantile", "piecewise") else ()
    fill = float(np.median(present)) if feature.default is None else feature.default
    return Number(feature.name, feature.side, feature.scale, fill, indicator, center, spread, edges)


def quantile_edges(values: NDArray[np.float32], bins: int) -> tuple[float, ...]:
    """Ascending edges of about `bins` bins of equal mass: every value when there are few.

    A value that alone holds two bins' mass (the zero of an amount) is an edge of its own, and the quantiles are
    those of the others, so that it does not use up the bins.
    """
    sample = values[:: max(1, len(values) // QUANTILE_SAMPLE)]
    distinct, counts = np.unique(sample, return_counts=True)
    if len(distinct) > bins + 1:
        atom = distinct[counts > 2 * len(sample) / bins]
        rest = sample[~np.isin(sample, atom)]
        quantiles = np.quantile(rest, np.linspace(0, 1, bins + 1)) if len(rest) else np.empty(0)
        distinct = np.unique(np.concatenate([atom, quantiles.astype(np.float32)]))
    edges = [float(edge) for edge in distinct]
    return tuple(edges) if len(edges) > 1 else (edges[0], edges[0] + 1.0)


def _missing(place: str, row: int, split: NDArray[np.uint8]) -> ValueMissing:
    return ValueMissing(
        f'missing in row {row} ({SPLITS[split[row]]}), but declared `missing = "refuse"`',
        place=place,
        remedy='give the value, or choose `missing = "own"` or `"default"`',
    )
