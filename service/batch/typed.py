"""Arrow columns as the type that their feature takes, cast as training casts them.

Knows Arrow types. Does not know vocabularies, sides or what is refused for other reasons than its type.
"""

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.errors import ColumnTypeInvalid

Bad = NDArray[np.bool_] | None
WORDS = {"string": "strings", "int64": "whole numbers", "float32": "numbers"}
WHOLE = re.compile(rb"[+-]?[0-9]{1,19}")


def check_type(kind: pa.DataType, dtype: str, is_list: bool, place: str) -> None:
    """Whether a column of this type can hold a feature's values. Raises: ColumnTypeInvalid."""
    inner = plain(kind)
    if is_list and not pa.types.is_null(inner):
        if not is_list_type(kind):  # nor a dictionary of lists, which stands for more than it holds
            raise ColumnTypeInvalid(f"holds {kind}, not lists", place=place, remedy="store lists")
        inner = plain(inner.value_type)
    types = pa.types
    fits = types.is_null(inner) or types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner)
    fits = fits or (dtype == "float32" and types.is_decimal(inner)) or (dtype != "float32" and is_text(inner))
    if not fits:
        raise ColumnTypeInvalid(
            f"holds {kind}, not {'lists of ' if is_list else ''}{WORDS[dtype]}",
            place=place,
            remedy="store the type the model was trained on, which `fullfunnel inspect` shows",
        )


def plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values of a dictionary; any other as it is."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_list_type(kind: pa.DataType) -> bool:
    """Whether values are lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_text(kind: pa.DataType) -> bool:
    """Whether values are strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def words(column: pa.Array) -> tuple[NDArray[np.int32], pa.Array, Bad]:
    """A column of categorical values: codes [B] (-1 is missing) into an array of distinct strings.

    Where a value is no string and has no casting, the third is true [B], and the code is -1.
    """
    column, bad = _unfractional(column)
    if is_list_type(column.type) or pa.types.is_null(column.type):
        column = pa.nulls(len(column), pa.string())
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()) if pa.types.is_string_view(column.type) else column
        column = column.dictionary_encode()
    codes = column.indices
    if codes.null_count:
        codes = pc.fill_null(codes.cast(pa.int32()), -1)
    found: NDArray[np.int32] = codes.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
    dictionary = column.dictionary
    if not is_text(dictionary.type):
        dictionary = dictionary.cast(pa.string())
    if dictionary.null_count:  # a dictionary may hold null as a value
        found = np.where(pc.is_null(dictionary).to_numpy(zero_copy_only=False)[found], np.int32(-1), found)
    return found, dictionary, bad


def integers(column: pa.Array, missing: int) -> tuple[NDArray[np.int64], Bad]:
    """A column of whole numbers as int64 [B]; what is none is true in the second, and missing in the first."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type):
        return np.full(len(column), missing, np.int64), None
    if is_text(column.type):
        return _parsed(column, missing)
    column, bad = _unfractional(column)
    if pa.types.is_uint64(column.type) and len(column):
        large = pc.fill_null(pc.greater(column, pa.scalar(2**63 - 1, pa.uint64())), False).to_numpy(
            zero_copy_only=False
        )
        if large.any():
            column, bad = pc.if_else(pa.array(large), None, column), large
    column = column.cast(pa.int64())
    if column.null_count:
        column = pc.fill_null(column, missing)
    return column.to_numpy(zero_copy_only=False), bad


def numbers(column: pa.Array) -> NDArray[Any]:
    """A column of numbers [B], as integers or floats; NaN is missing."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan, np.float32)
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _unfractional(column: pa.Array) -> tuple[pa.Array, Bad]:
    """A column of floats as the whole numbers it must hold; NaN is missing. Any other column as it is."""
    if pa.types.is_dictionary(column.type) and pa.types.is_floating(column.type.value_type):
        column = column.dictionary_decode()
    if not pa.types.is_floating(column.type):
        return column, None
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    absent = np.isnan(values)
    bad = ~absent & ~((np.floor(values) == values) & (np.abs(values) < 2.0**63))
    whole = np.where(absent | bad, 0.0, values).astype(np.int64)
    return pa.array(whole, mask=absent | bad), bad if bad.any() else None


def _parsed(column: pa.Array, missing: int) -> tuple[NDArray[np.int64], Bad]:
    encoded = column.cast(pa.string()).dictionary_encode()
    values = np.full(len(encoded.dictionary) + 1, missing, np.int64)
    wrong = np.zeros(len(values), np.bool_)
    for index, text in enumerate(encoded.dictionary.cast(pa.binary()).to_pylist()):  # which may be no UTF-8
        if WHOLE.fullmatch(text) and -(2**63) <= int(text) < 2**63:
            values[index] = int(text)
        elif text:
            wrong[index] = True
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    return values[codes], wrong[codes] if wrong.any() else None
