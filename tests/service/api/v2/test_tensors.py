"""Tensors as columns: layouts written here byte by byte, and shapes that lie."""

import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest

from contract.errors import LengthMismatch, RequestInvalid, ValueInvalid
from service.api.v2.tensors import DATATYPES, Tensor, column, raw

FORMATS = {
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}


def packed(*strings: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(string)) + string for string in strings)


def tensor(datatype: str, shape: tuple[Any, ...], data: Any) -> Tensor:
    return Tensor(datatype, shape, memoryview(data) if isinstance(data, bytes) else data)


def test_every_datatype_of_numbers_is_known_here() -> None:
    assert set(FORMATS) == set(DATATYPES) - {"BYTES"}


@pytest.mark.parametrize("datatype", FORMATS)
def test_raw_numbers_are_little_endian(datatype: str) -> None:
    values = [1, 2, 100]
    found = column(tensor(datatype, (3,), struct.pack(f"<3{FORMATS[datatype]}", *values)), "x")
    assert found.tolist() == values


def test_answers_are_little_endian() -> None:
    assert raw(np.array([0.25, 1.0], dtype=">f4")) == struct.pack("<2f", 0.25, 1.0)


def test_raw_numbers_are_looked_at_where_they_lie() -> None:
    body = struct.pack("<4q", 1, 2, 3, 4)
    found = column(tensor("INT64", (4,), body), "x")
    assert np.shares_memory(found, np.frombuffer(body, dtype=np.uint8))


def test_raw_numbers_off_their_boundary_are_moved_onto_it() -> None:
    body = b"{" + struct.pack("<2q", 5, -6)
    found = column(Tensor("INT64", (2,), memoryview(body)[1:]), "x")
    assert found.tolist() == [5, -6]
    assert found.flags.aligned


def test_raw_strings_stand_behind_their_length() -> None:
    found = column(tensor("BYTES", (4,), packed("ü".encode(), b"", b"i2", b"x" * 300)), "x")
    assert found == ["ü", "", "i2", "x" * 300]


def test_two_axes_are_rows_in_order() -> None:
    assert column(tensor("BYTES", (2, 2), packed(b"a", b"b", b"c", b"d")), "x") == [["a", "b"], ["c", "d"]]
    assert column(tensor("INT32", (2, 3), struct.pack("<6i", *range(6))), "x") == [[0, 1, 2], [3, 4, 5]]
    assert column(tensor("INT64", (2, 3), [0, 1, 2, 3, 4, 5]), "x") == [[0, 1, 2], [3, 4, 5]]
    assert column(tensor("INT64", (2, 3), [[0, 1, 2], [3, 4, 5]]), "x") == [[0, 1, 2], [3, 4, 5]]
    assert column(tensor("INT64", (2, 0), b""), "x") == [[], []]
    assert column(tensor("INT64", (2, 0), [[], []]), "x") == [[], []]
    assert column(tensor("INT64", (0, 2**62), b""), "x") == []


@pytest.mark.parametrize(
    "data",
    [
        packed(b"a", b"b", b"c"),  # one too many
        packed(b"a"),  # one too few
        packed(b"a", b"b")[:-1],  # the last is cut
        packed(b"a", b"b") + b"\0",  # a byte too many
        packed(b"a") + b"\x01\0\0",  # a length that is cut
        packed(b"a") + struct.pack("<I", 2**32 - 1) + b"b",  # a length far beyond
        struct.pack(">I", 1) + b"a" + struct.pack(">I", 1) + b"b",  # the other way round
        b"",
    ],
)
def test_raw_strings_that_are_not_as_announced_are_refused(data: bytes) -> None:
    with pytest.raises(LengthMismatch, match=r"x: holds .* shape \[2\] of BYTES"):
        column(tensor("BYTES", (2,), data), "x")


def test_raw_strings_that_are_no_utf8_are_named() -> None:
    with pytest.raises(ValueInvalid, match=r"x\[1\]: is not UTF-8"):
        column(tensor("BYTES", (2,), packed(b"a", b"\xff")), "x")


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ((3,), [1, 2]),
        ((1,), [1, 2]),
        ((2, 2), [1, 2, 3]),
        ((2, 2), [[1, 2], [3]]),
        ((2, 2), [[1, 2]]),
        ((2, 2), [[1, 2], 3]),
        ((2, 2), [[1, 2], None]),
    ],
)
def test_values_that_are_not_as_announced_are_refused(shape: tuple[int, ...], data: Any) -> None:
    with pytest.raises(RequestInvalid, match="x"):
        column(tensor("INT64", shape, data), "x")


@pytest.mark.parametrize("datatype", ["INT64", "FP32", "BYTES"])
@pytest.mark.parametrize("shape", [(2**62,), (2**40, 2**40), (1, 2**63)])
@pytest.mark.parametrize("data", [b"", b"\0" * 8, []])
def test_a_shape_beyond_the_data_costs_nothing(datatype: str, shape: tuple[int, ...], data: Any) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(LengthMismatch):
            column(tensor(datatype, shape, data), "x")
        assert tracemalloc.get_traced_memory()[1] < 2**16
    finally:
        tracemalloc.stop()
