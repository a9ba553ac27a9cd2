"""One Arrow column at a time: values to codes, numbers and labels.

Knows Arrow types and missing values. Does not know vocabularies, files or batches.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.errors import ColumnTypeInvalid, DataInvalid, LabelInvalid, LabelWithoutParent, MixedTypes
from contract.features import INT64_MISSING, STRING_MISSING, Dtype
from contract.tasks import Task

ABSENT = -1

Coded = tuple[NDArray[np.int32], pa.Array]


def dtype_of(kind: pa.DataType, feature: str) -> Dtype:
    """The contract's type for an Arrow type of a categorical column, or of a list's values.

    Raises: ColumnTypeInvalid, MixedTypes.
    """
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return dtype_of(kind.value_type, feature)
    if pa.types.is_union(kind):
        raise MixedTypes(
            f"holds values of several types ({kind})", place=f"column {feature!r}", remedy="give it one type"
        )
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):  # a float column must hold whole numbers
        return "int64"
    if (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_null(kind)
    ):
        return "string"
    raise ColumnTypeInvalid(
        f"holds {kind}, which cannot be categorical",
        place=f"column {feature!r}",
        remedy="cast it to strings or integers",
    )


def codes_of(column: pa.Array, dtype: Dtype | None, place: str) -> Coded:
    """Codes [B] into the distinct values of this batch, as strings or int64; without a `dtype`, as they are.

    Raises: ColumnTypeInvalid.
    """
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    words = {"int64": "whole numbers", "string": "strings", None: "single values"}[dtype]
    try:
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        dictionary = encoded.dictionary
        if dtype is not None:
            if pa.types.is_floating(dictionary.type):
                dictionary = dictionary.cast(pa.int64())
            dictionary = dictionary.cast(pa.string() if dtype == "string" else pa.int64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # what pyarrow raises where a type has no such cast
        raise ColumnTypeInvalid(
            f"holds values that are not {words} (their type is {column.type})",
            place=place,
            remedy='store strings or integers, or make the feature `kind = "numeric"` or `"sequence"`',
        ) from None
    codes: NDArray[np.int32] = pc.fill_null(encoded.indices.cast(pa.int32()), ABSENT).to_numpy(zero_copy_only=False)
    if dtype is not None:
        missing = STRING_MISSING if dtype == "string" else INT64_MISSING
        index = pc.index(dictionary, pa.scalar(missing, dictionary.type)).as_py()
        if index >= 0:
            codes = np.where(codes == index, np.int32(ABSENT), codes)
    return codes, dictionary


def sequences_of(
    columns: Sequence[pa.Array], dtypes: Sequence[Dtype], length: int, places: Sequence[str]
) -> list[Coded]:
    """Codes [B, length] of a sequence and of those that run along it, right-padded; the last steps are kept.

    A step whose own value (that of the first column) is missing is dropped from all of them.
    Raises: ColumnTypeInvalid, DataInvalid.
    """
    keep: NDArray[np.bool_] | None = None
    lengths: NDArray[np.int64] | None = None
    result: list[Coded] = []
    for column, dtype, place in zip(columns, dtypes, places, strict=True):
        if not (
            pa.types.is_list(column.type)
            or pa.types.is_large_list(column.type)
            or pa.types.is_fixed_size_list(column.type)
        ):
            raise ColumnTypeInvalid(
                f"holds {column.type}, not lists", place=place, remedy="store lists, in Parquet or Arrow"
            )
        own: NDArray[np.int64] = (
            pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        )
        codes, dictionary = codes_of(column.flatten(), dtype, place)
        if keep is None or lengths is None:
            keep, lengths = codes != ABSENT, own
        elif not np.array_equal(own, lengths):
            row = int(np.flatnonzero(own != lengths)[0])
            raise DataInvalid(
                f"sequences that run in parallel are {lengths[row]} and {own[row]} long (row {row} of these)",
                place=place,
                remedy="make them equally long",
            )
        result.append((_last(codes, keep, lengths, length), dictionary))
    return result


def _last(
    codes: NDArray[np.int32], keep: NDArray[np.bool_], lengths: NDArray[np.int64], length: int
) -> NDArray[np.int32]:
    """The last `length` kept codes of each row, from flat codes: [B, length], padded with ABSENT."""
    kept_before = np.concatenate([[0], np.cumsum(keep)])
    bounds = kept_before[np.concatenate([[0], np.cumsum(lengths)])]
    end, count = bounds[1:], np.minimum(np.diff(bounds), length)
    step = np.arange(length)
    present = step < count[:, None]
    padded = np.full((len(lengths), length), ABSENT, np.int32)
    padded[present] = codes[keep][((end - count)[:, None] + step)[present]]
    return padded


def floats_of(column: pa.Array, place: str) -> NDArray[np.float32]:
    """Numbers as float32 [B]; NaN is missing.

    Raises: ColumnTypeInvalid, DataInvalid.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        column = column.cast(pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise ColumnTypeInvalid(
            f"holds {kind}, not numbers", place=place, remedy="make the feature categorical, or store numbers"
        )
    with np.errstate(over="ignore"):
        values: NDArray[np.float32] = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False).astype(np.float32)
    if np.isinf(values).any():
        row = int(np.flatnonzero(np.isinf(values))[0])
        raise DataInvalid(f"an infinite number (row {row} of these)", place=place, remedy="remove it, or make it null")
    return values


def labels_of(batch: pa.RecordBatch, tasks: Sequence[Task], path: str, first_row: int) -> NDArray[np.uint8]:
    """Labels of all tasks: uint8 [B, T].

    Raises: LabelInvalid, LabelWithoutParent.
    """
    labels = np.empty((batch.num_rows, len(tasks)), np.uint8)
    for k, task in enumerate(tasks):
        place = f"{path}, label column {task.label!r}"
        labels[:, k] = _label(batch.column(task.label), task, place, first_row)
    for k, task in enumerate(tasks):
        if task.given is None:
            continue
        parent = next(i for i, other in enumerate(tasks) if other.name == task.given)
        orphans = np.flatnonzero(labels[:, k] > labels[:, parent])
        if len(orphans):
            raise LabelWithoutParent(
                f"{task.name} without {task.given} in row {first_row + orphans[0]} ({len(orphans)} such rows among "
                f"{batch.num_rows})",
                place=f"{path}, label column {task.label!r}",
                remedy=f"set {task.given} to 1 there, drop the rows, or remove `given` from the task",
            )
    return labels


def _label(column: pa.Array, task: Task, place: str, first_row: int) -> NDArray[np.uint8]:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.null_count:
        row = first_row + int(np.flatnonzero(pc.is_null(column).to_numpy(zero_copy_only=False))[0])
        raise LabelInvalid(f"missing in row {row}", place=place, remedy="drop such rows, or set 0 or 1")
    if task.positive is not None:
        return _positives(column, task.positive, place)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise LabelInvalid(
            f"holds {column.type}, not 0 and 1",
            place=place,
            remedy="store 0 and 1, or list the task's `positive` values",
        )
    values = column.to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero((values != 0) & (values != 1))
    if len(wrong):
        raise LabelInvalid(
            f"{values[wrong[0]]} in row {first_row + wrong[0]} is neither 0 nor 1",
            place=place,
            remedy="clean the column, or list the task's `positive` values",
        )
    return np.asarray(values, np.uint8)


def _positives(column: pa.Array, positive: Sequence[int | str], place: str) -> NDArray[np.uint8]:
    try:
        found = pc.is_in(column, value_set=pa.array(list(positive)).cast(column.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):  # where a type has no such cast
        raise LabelInvalid(
            f"holds {column.type}, which `positive` values cannot be compared with",
            place=place,
            remedy="match the types",
        ) from None
    return np.asarray(found.to_numpy(zero_copy_only=False), np.uint8)
