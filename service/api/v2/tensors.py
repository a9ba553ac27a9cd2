"""Tensors of the Open Inference Protocol as columns of values, and arrays as raw bytes.

Knows datatypes, shapes and the raw layout: little-endian numbers, and strings behind four bytes of length. Does not
know models, JSON, HTTP or gRPC. A shape is believed only once the data are found to be as many.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from contract.errors import LengthMismatch, ValueInvalid
from service.scoring import plain

# datatype -> how numpy reads its raw bytes, and the dtype of the inputs that take it without loss
DATATYPES: dict[str, tuple[str, str]] = {
    "BYTES": ("", "string"),
    "INT8": ("<i1", "int64"),
    "INT16": ("<i2", "int64"),
    "INT32": ("<i4", "int64"),
    "INT64": ("<i8", "int64"),
    "UINT8": ("<u1", "int64"),
    "UINT16": ("<u2", "int64"),
    "UINT32": ("<u4", "int64"),
    "UINT64": ("<u8", "int64"),
    "FP16": ("<f2", "float32"),
    "FP32": ("<f4", "float32"),
    "FP64": ("<f8", "float32"),
}
# dtype of an input -> the datatype it is announced with
ANNOUNCED = {"string": "BYTES", "int64": "INT64", "float32": "FP32"}
LENGTH = struct.Struct("<I")  # of a string, before it


@dataclass(frozen=True, slots=True)
class Tensor:
    """`data` is raw bytes, or the values in row-major order; a list may also hold one list a row."""

    datatype: str
    shape: tuple[int, ...]
    data: memoryview | Sequence[Any] | NDArray[Any]

    @property
    def size(self) -> int:
        """How many values the shape speaks of."""
        return math.prod(self.shape)


def column(tensor: Tensor, place: str) -> Any:
    """What `service.scoring.columns` takes: one value for each row, or where there are two axes one list.

    Raises: ValueInvalid, LengthMismatch.
    """
    if len(tensor.shape) == 2 and isinstance(tensor.data, list) and any(type(row) is list for row in tensor.data):
        return _nested(tensor, tensor.data, place)
    values: Any
    if not isinstance(tensor.data, memoryview):
        values = tensor.data
        if len(values) != tensor.size:
            _differs(tensor, f"{len(values)} values", place)
    elif tensor.datatype == "BYTES":
        values = _strings(tensor, tensor.data, place)
    else:
        values = _numbers(tensor, tensor.data, place)
    if len(tensor.shape) == 1:
        return values
    rows, length = tensor.shape
    flat = values.tolist() if isinstance(values, np.ndarray) else values
    return [flat[row * length : (row + 1) * length] for row in range(rows)]


def raw(values: NDArray[np.float32]) -> bytes:
    """FP32 values as they are sent."""
    return values.astype("<f4", copy=False).tobytes()


def _nested(tensor: Tensor, rows: list[Any], place: str) -> list[Any]:
    count, length = tensor.shape
    if len(rows) != count:
        _differs(tensor, f"{len(rows)} rows", place)
    for index, row in enumerate(rows):
        if type(row) is not list:
            raise ValueInvalid("must be a list, like the other rows", place=f"{place}.data[{index}]")
        if len(row) != length:
            _differs(tensor, f"{len(row)} values in row {index}", place)
    return rows


def _numbers(tensor: Tensor, data: memoryview, place: str) -> NDArray[Any]:
    """A view of the bytes; a copy only where they do not lie on a boundary of their own size."""
    dtype = np.dtype(DATATYPES[tensor.datatype][0])
    if data.nbytes != tensor.size * dtype.itemsize:
        _differs(tensor, f"{data.nbytes} bytes", place)
    values = np.frombuffer(data, dtype)
    return values if values.flags.aligned else values.copy()


def _strings(tensor: Tensor, data: memoryview, place: str) -> list[str]:
    """Each length says where the next one stands, so this is the one loop over values; it does as little as it can.

    Where there is compiled code it is left to that, and what follows finds out what is wrong.
    """
    if (plainly := plain.strings(data, tensor.size)) is not None:
        return plainly
    content, count, length_at = bytes(data), tensor.size, LENGTH.unpack_from
    found: list[str] = []
    at = 0
    try:
        for _ in range(count if count * LENGTH.size <= len(content) else 0):
            (size,) = length_at(content, at)
            start = at + LENGTH.size
            at = start + size
            found.append(content[start:at].decode())
    except struct.error:
        pass  # the last string, or the length after it, ends beyond the data
    except UnicodeDecodeError:
        if at <= len(content):
            raise ValueInvalid("is not UTF-8", place=f"{place}[{len(found)}]") from None
    if len(found) != count or at != len(content):
        _differs(tensor, f"{len(content)} bytes, which are not its strings", place)
    return found


def _differs(tensor: Tensor, found: str, place: str) -> NoReturn:
    raise LengthMismatch(
        f"holds {found} where shape {list(tensor.shape)} of {tensor.datatype} is announced",
        place=place,
        remedy="send as many values as the shape says",
    )
