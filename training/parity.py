"""The check before publishing: raw held-out rows through the exported graph, and the same rows through torch.

Knows onnxruntime and the trained network. Does not know how the bundle is laid out.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from contract.bundle import Golden, Input, Rows
from contract.errors import ParityBroken
from contract.features import (
    FIRST_ROW,
    INT64_MISSING,
    MISSING_ROW,
    STRING_MISSING,
    UNKNOWN_ROW,
    Categorical,
    Feature,
    Numeric,
    owner,
)
from contract.features import Sequence as SequenceFeature
from contract.manifest import ROW_USER
from training.columns import ABSENT, codes_of, floats_of
from training.encoders import Fitted, default_row
from training.export import Served, graph_inputs
from training.tensors import Tensors

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

TOLERANCE = 1e-6
GOLDEN_ROWS = 64
SIZES = ((1, 1), (1, 2), (2, 1), (1, 1000), (2, 1000), (1000, 1000), (37, 211))  # users, candidates
EDGE_ROWS = 1000
NEVER_SEEN: dict[str, Any] = {"string": "\x7fnever seen", "int64": 2**62 + 12345}

Raw = Mapping[str, list[Any]]
Encoded = Mapping[str, NDArray[Any]]
Index = NDArray[np.int64]


class Check:
    """An exported graph beside the network it was exported from."""

    def __init__(self, model: bytes, served: Served, fitted: Fitted) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.served, self.fitted = served.eval(), fitted
        self.inputs = graph_inputs(fitted.features)
        self.worst = 0.0

    def compare(self, raw: Raw, encoded: Encoded, users: Index, items: Index, row_user: Index) -> dict[str, Any]:
        """Score candidates `items` for users `users`, both rows of `raw` and `encoded`; returns torch's scores.

        Raises: ParityBroken.
        """
        rows = {"user": users, "item": items}
        chosen = {entry.name: [raw[entry.name][i] for i in rows[entry.side]] for entry in self.inputs}
        shaped = kept_steps(chosen, self.fitted.features)
        feed = {entry.name: as_input(shaped[entry.name], entry) for entry in self.inputs}
        tensors = [torch.from_numpy(encoded[f.name][rows[f.side]]) for f in self.fitted.features]
        with torch.no_grad():
            expected = [answer.numpy() for answer in self.served(*tensors, torch.from_numpy(row_user))]
        found = self.session.run(None, {**feed, ROW_USER: row_user})
        scores = {}
        for output, left, right in zip(self.served.outputs, expected, found, strict=True):
            place = f"output {output.name!r}, {len(items)} candidates of {len(users)} users"
            self.worst = max(self.worst, difference(left, np.asarray(right), place))
            scores[output.name] = left
        return scores


def check_parity(check: Check, held_out: pa.Table, tensors: Tensors, seed: int) -> Golden:
    """Compare on all held-out rows, on every size of SIZES, and on unknown, missing, empty and full values.

    `tensors` are the rows of `held_out` as training encoded them. Returns the golden rows.
    Raises: ParityBroken.
    """
    features = check.fitted.features
    raw = {f.name: plain_values(held_out.column(f.name), f) for f in features}
    encoded = columns_of(check.fitted, tensors)
    every = np.arange(len(tensors))
    check.compare(raw, encoded, every, every, every)
    random = np.random.default_rng(seed)
    for users, candidates in SIZES:
        chosen = random.integers(len(every), size=users), random.integers(len(every), size=candidates)
        check.compare(raw, encoded, *chosen, random.integers(users, size=candidates))
    edge = kept_steps(edges(raw, features, random), features)
    edge_rows = np.arange(EDGE_ROWS)
    check.compare(edge, {f.name: encode_values(edge[f.name], f, check.fitted) for f in features}, *[edge_rows] * 3)
    golden = every[:: max(1, len(every) // GOLDEN_ROWS)][:GOLDEN_ROWS]
    own = np.arange(len(golden))
    scores = check.compare(raw, encoded, golden, golden, own)
    columns = {f.name: [raw[f.name][i] for i in golden] for f in features}
    sides = {side: {f.name: columns[f.name] for f in features if f.side == side} for side in ("user", "item")}
    rows = Rows(user=sides["user"], candidates=sides["item"], row_user=own.tolist())
    return Golden(rows=rows, scores={name: [float(x) for x in values] for name, values in scores.items()})


def difference(left: NDArray[np.float32], right: NDArray[np.float32], place: str) -> float:
    """Largest absolute difference. Raises: ParityBroken if it exceeds TOLERANCE, or a score is not finite."""
    remedy = "this is a bug of the export: please report it with the run file"
    if left.shape != right.shape or not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise ParityBroken("the shapes differ, or a score is not finite", place=place, remedy=remedy)
    found = float(np.abs(left.astype(np.float64) - right).max(initial=0.0))
    if found > TOLERANCE:
        fact = f"the graph differs from the network by {found:.1e}, which is more than {TOLERANCE:.0e}"
        raise ParityBroken(fact, place=place, remedy=remedy)
    return found


def columns_of(fitted: Fitted, tensors: Tensors) -> Encoded:
    """Training's arrays taken apart: for each feature [rows], or [rows, L] for a sequence."""
    columns: dict[str, NDArray[Any]] = {
        number.name: tensors.numbers[:, i] for i, number in enumerate(fitted.inputs.ordered_numbers())
    }
    for dim, ids in tensors.ids.items():
        start = 0
        for lookup in fitted.inputs.ordered(dim):
            width = lookup.length or 1
            found = ids[:, start : start + width].astype(np.int64)
            columns[lookup.name] = found if lookup.length else found[:, 0]
            start += width
    return columns


def plain_values(column: pa.ChunkedArray, feature: Feature) -> list[Any]:
    """Raw values as a request would hold them, of the type that the bundle takes; None is missing."""
    values = column.combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks)
    if isinstance(feature, Numeric):
        return [None if x != x else x for x in floats_of(values, feature.name).tolist()]
    if isinstance(feature, Categorical):
        return _plain(values, feature)
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_pylist()
    steps = iter(_plain(values.flatten(), feature))
    return [list(itertools.islice(steps, length)) for length in lengths]


def _plain(values: pa.Array, feature: Categorical | SequenceFeature) -> list[Any]:
    codes, dictionary = codes_of(values, feature.dtype, feature.name)
    plain: list[Any] = dictionary.take(pa.array(codes, mask=codes == ABSENT)).to_pylist()
    return plain


def kept_steps(raw: Raw, features: Sequence[Feature]) -> Raw:
    """As a sequence reaches the graph: steps without a value dropped from it and from those that run along it,
    and the last `max_length` of the others kept. The rest stays as it is.
    """
    shaped = dict(raw)
    for feature in features:
        if isinstance(feature, SequenceFeature):
            rows = zip(raw[feature.name], raw[feature.along or feature.name], strict=True)
            present = [[x for x, step in zip(own, main, strict=True) if step is not None] for own, main in rows]
            shaped[feature.name] = [steps[-feature.max_length :] for steps in present]
    return shaped


def as_input(values: list[Any], entry: Input) -> NDArray[Any]:
    """Raw values as the graph takes them: [rows], or [rows, L] padded to the longest."""
    if entry.dtype == "float32":
        return np.array([np.nan if x is None else x for x in values], np.float32)
    missing: Any = STRING_MISSING if entry.dtype == "string" else INT64_MISSING
    kind = object if entry.dtype == "string" else np.int64
    if "length" not in entry.shape:
        return np.array([missing if x is None else x for x in values], kind)
    padded = np.full((len(values), max(map(len, values), default=1) or 1), missing, kind)
    for i, steps in enumerate(values):
        padded[i, : len(steps)] = [missing if x is None else x for x in steps]
    return padded


def edges(raw: Raw, features: tuple[Feature, ...], random: np.random.Generator) -> Raw:
    """Rows in which a third of the values are missing or never seen, and sequences are empty or full."""
    count = len(next(iter(raw.values())))
    drawn: dict[str, tuple[Index, Index]] = {}  # what runs in parallel is drawn together
    rows: dict[str, list[Any]] = {}
    for feature in features:
        group = (isinstance(feature, SequenceFeature) and feature.along) or feature.name
        if group not in drawn:
            drawn[group] = random.integers(count, size=EDGE_ROWS), random.integers(6, size=EDGE_ROWS)
        column = [raw[feature.name][i] for i in drawn[group][0]]
        for i, kind in enumerate(drawn[group][1]):
            if isinstance(feature, SequenceFeature):
                full = [*column[i], NEVER_SEEN[feature.dtype or ""]] * feature.max_length
                column[i] = [] if kind == 0 else full if kind == 1 else column[i]
            elif kind == 0:
                column[i] = None
            elif kind == 1:
                column[i] = 1e9 if isinstance(feature, Numeric) else NEVER_SEEN[feature.dtype or ""]
        rows[feature.name] = column
    return rows


def encode_values(values: list[Any], feature: Feature, fitted: Fitted) -> NDArray[Any]:
    """Raw values as training would encode them: [rows] or [rows, L]."""
    if isinstance(feature, Numeric):
        return np.array([np.nan if x is None else x for x in values], np.float32)
    table = fitted.tables[owner(feature)]
    if isinstance(feature, SequenceFeature):
        lengths = np.array([len(value) for value in values])
        padded = np.full((len(values), feature.max_length), table.offset + MISSING_ROW)
        flat = [x for value in values for x in value]
        padded[np.arange(feature.max_length) < lengths[:, None]] = _rows(flat, feature, fitted)
        return padded
    return _rows(values, feature, fitted)


def _rows(values: list[Any], feature: Categorical | SequenceFeature, fitted: Fitted) -> Index:
    table = fitted.tables[owner(feature)]
    missing = default_row(feature, table)
    array = pa.array(values, pa.string() if table.dtype == "string" else pa.int64())
    absent = pc.is_null(array).to_numpy(zero_copy_only=False)
    if table.vocabulary is None:
        rows = table.hash_rows(array.fill_null(STRING_MISSING if table.dtype == "string" else 0))
    else:
        found = pc.index_in(array, value_set=table.vocabulary).fill_null(-1).to_numpy(zero_copy_only=False)
        unknown = missing if isinstance(feature, Categorical) and feature.unknown == "missing" else UNKNOWN_ROW
        rows = np.where(found >= 0, FIRST_ROW + found, unknown)
    return table.offset + np.where(absent, missing, rows).astype(np.int64)
