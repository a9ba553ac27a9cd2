"""What a decoded batch would take if every value stood there in full: the size by which tables are bounded.

A dictionary, a view or a list of nulls is small however much it stands for. Knows Arrow types. Does not know bounds.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.errors import ColumnTypeInvalid

VIEW_BYTES = 16


def check_kinds(schema: pa.Schema, names: Sequence[str], place: str) -> None:
    """Refuse what cannot be weighed, or not be written in every format. Raises: ColumnTypeInvalid."""
    for name in names:
        kind = schema.field(name).type
        if not _is_known(kind):
            raise ColumnTypeInvalid(
                f"columns of type {str(kind)[:80]} cannot be kept",
                place=f"{place}, column {name[:80]!r}",
                remedy="leave it out, or send another type",
            )


def expanded_bytes(batch: pa.RecordBatch) -> int:
    """The bytes of all values of a batch."""
    return sum(_size(column) for column in batch.columns)


def _is_known(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        return _is_known(kind.value_type) and not types.is_nested(kind.value_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_known(kind.value_type)
    if types.is_struct(kind):
        return kind.num_fields > 0 and all(_is_known(kind.field(i).type) for i in range(kind.num_fields))
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_binary(kind)
    return bool(text or types.is_primitive(kind) or types.is_null(kind) or types.is_decimal(kind))


def _size(column: pa.Array) -> int:
    kind, rows = column.type, len(column)
    types = pa.types
    if types.is_dictionary(kind):
        return _of_dictionary(column)
    if (lengths := _lengths(column)) is not None:
        return int(lengths.sum()) + 4 * rows
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return 8 * rows + _size(column.flatten())
    if types.is_struct(kind):
        return sum(_size(field) for field in column.flatten()) + rows
    if types.is_null(kind):
        return rows
    return max(int(column.nbytes), rows)


def _of_dictionary(column: pa.DictionaryArray) -> int:
    lengths = _lengths(column.dictionary)
    if lengths is None or not len(lengths):
        return 8 * len(column)
    codes = column.indices.drop_null().to_numpy(zero_copy_only=False)
    return int(lengths[codes].sum()) + 4 * len(column)


def _lengths(column: pa.Array) -> NDArray[np.int64] | None:
    """The bytes of each string; None where there are none."""
    types, kind = pa.types, column.type
    if types.is_string_view(kind) or types.is_binary_view(kind):
        views = np.frombuffer(column.buffers()[1] or b"", np.int32)[:: VIEW_BYTES // 4]
        lengths = views[column.offset : column.offset + len(column)].astype(np.int64)
        return np.where(column.is_valid().to_numpy(zero_copy_only=False), lengths, 0)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        found: NDArray[np.int64] = pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)
        return found.astype(np.int64)
    return None
