"""The compiled reading of plain values: what Python makes of them, or nothing."""

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contract.features import INT64_MISSING
from service.scoring import _plain, plain
from service.scoring.lookups import Words
from service.scoring.values import BadValue, Reader, reader

WORDS = Words({"": 7, "a": 3, "b": 4, "\u00e9": 5}, unknown=1, missing=7)
READERS = {dtype: reader(dtype, 16) for dtype in ("int64", "float32")} | {"words": reader("string", 16, WORDS)}
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**64), 2**64),
    st.floats(),
    st.floats(width=32),
    st.text(max_size=20),
    st.sampled_from(["a", "b", "", "\u00e9", "\ud800", [], [1], {}, 2**63, -(2**63), 10**400, 3.5e38]),
)


def read(reads: Reader, values: list[Any]) -> Any:
    try:
        return reads.read(values).tobytes()
    except BadValue as bad:
        return bad.index, bad.fact


PLAIN = st.one_of(
    st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(width=32), st.sampled_from(["a", "b", "q", ""])
)
EDGES: list[list[Any]] = [
    [1.5, None, 2, -0.0],
    [1, None, 2**63 - 1, -(2**63)],
    [1, 2**63],
    [1, -(2**63) - 1],
    [1.0, 3.5e38],
    [1, 10**400],
    [1, True],
    ["a", None, "zz", "\u00e9"],
    ["a", "\u00fc"],
    ["a", "\ud800"],
    ["a", "\u00fc" * 9],
    ["a", "x" * 16],
    ["a", "x" * 17],
]


def with_edges(test: Callable[..., None]) -> Callable[..., None]:
    for edge in EDGES:
        test = example(edge)(test)
    return test


@pytest.mark.parametrize("kind", READERS)
@with_edges
@given(values=st.lists(VALUES, max_size=6) | st.lists(PLAIN, max_size=6))
def test_compiled_or_not_the_values_are_the_same_and_so_are_the_refusals(kind: str, values: list[Any]) -> None:
    compiled = read(READERS[kind], values)
    with patch.object(plain, "_plain", None):
        assert read(READERS[kind], values) == compiled


def test_it_is_compiled_wherever_there_is_a_compiler() -> None:
    assert plain.compiled() or not shutil.which("cc")


@pytest.mark.parametrize(
    "source", sorted(Path(plain.__file__).with_name("csrc").glob("*.c")), ids=lambda path: path.name
)
def test_a_compiler_finds_nothing_to_warn_of(source: Path, tmp_path: Path) -> None:
    if (compiler := shutil.which("cc")) is not None:
        options = ["-O3", "-Wall", "-Wextra", "-Werror", "-fPIC", f"-I{sysconfig.get_path('include')}"]
        subprocess.run([compiler, *options, "-c", source, "-o", tmp_path / "compiled.o"], check=True)


def test_plain_columns_become_the_rows_of_one_array() -> None:
    found = plain.numbers([[1, 2.5], None, [None, -3]], 2)
    np.testing.assert_array_equal(found, np.array([[1, 2.5], [np.nan, np.nan], [np.nan, -3]], np.float32))
    assert plain.integers([[5, None], None], 2).tolist() == [[5, INT64_MISSING], [INT64_MISSING] * 2]  # type: ignore[union-attr]
    tables: tuple[dict[Any, int], ...] = ({"a": 3, None: 0}, {"a": 8, None: 9})
    words = plain.Words(tables, (1, 2), 16)
    assert words.rows([["a", "zz"], None], 2).tolist() == [[3, 1], [9, 9]]  # type: ignore[union-attr]
    assert words.rows([["q", None], ["q", "a"]], 2).tolist() == [[1, 0], [2, 8]]  # type: ignore[union-attr]


@pytest.mark.parametrize("column", [[1.0], [1.0, 2.0, 3.0], (1.0, 2.0), np.array([1.0, 2.0]), "ab", 3, [1.0, True]])
def test_a_column_that_is_no_list_of_so_many_plain_values_is_left_to_python(column: Any) -> None:
    assert plain.numbers([[1.0, 2.0], column], 2) is None


def spans(starts: list[int], lengths: list[int]) -> tuple[Any, Any, Any]:
    return np.array([1, 2, 1], np.int32), np.array(starts), np.array(lengths)


@pytest.mark.parametrize(
    ("starts", "lengths", "unlike"),
    [([], [], []), ([0], [3], []), ([0, 2, 0, 1], [1, 1, 2, 2], [False, True, True]), ([3, 0], [0, 0], [False])],
)
def test_rows_are_unlike_where_length_or_bytes_differ(
    starts: list[int], lengths: list[int], unlike: list[bool]
) -> None:
    values, begin, count = spans(starts, lengths)
    found = plain.unlike_before(values, begin.astype(np.int64), count.astype(np.int64))
    assert found is not None and found.tolist() == unlike


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize(
    ("value", "good"),
    [(0.0, True), (-0.0, True), (1.0, True), (1e-45, True), (-1e-45, False), (1.0000001, False), (np.nan, False)],
)
def test_probabilities_are_all_of_them_numbers_from_0_to_1(
    value: float, good: bool, column: int, compiled: bool
) -> None:
    scores = [np.full(3, 0.5, np.float32) for _ in range(2)]
    scores[column][1] = value
    with patch.object(plain, "_plain", _plain if compiled else None):
        assert plain.are_probabilities(scores) is good
        assert plain.are_probabilities([]) is True


@pytest.mark.parametrize(
    "call",
    [
        lambda: _plain.probabilities([np.zeros(2)]),
        lambda: _plain.probabilities([np.zeros(2, np.int32)]),
        lambda: _plain.probabilities([np.zeros(4, np.float32)[::2]]),
        lambda: _plain.probabilities((np.zeros(2, np.float32),)),  # type: ignore[arg-type]
        lambda: _plain.probabilities([0.5]),  # type: ignore[list-item]
        lambda: _plain.probabilities(),  # type: ignore[call-arg]
        lambda: _plain.numbers([[1.0]], np.empty((1, 1), np.float64)),
        lambda: _plain.numbers([[1.0]], np.empty((2, 1), np.float32)),
        lambda: _plain.numbers([[1.0]], np.empty(1, np.float32)),
        lambda: _plain.numbers(([1.0],), np.empty((1, 1), np.float32)),  # type: ignore[arg-type]
        lambda: _plain.numbers([[1.0, 2.0]], np.empty((1, 4), np.float32)[:, ::2]),
        lambda: _plain.numbers([[1.0] * 2] * 2, np.empty((2, 2), np.float32).T),
        lambda: _plain.integers([[1]], np.empty((1, 1), np.int64), 2**64),
        lambda: _plain.integers([[1]], np.empty((1, 1), np.int64)),  # type: ignore[call-arg]
        lambda: _plain.unlike_before(*spans([0, 2], [2, 2]), np.empty(1, np.bool_)),
        lambda: _plain.unlike_before(*spans([0, 4], [2, 0]), np.empty(1, np.bool_)),
        lambda: _plain.unlike_before(*spans([0, -1], [2, 1]), np.empty(1, np.bool_)),
        lambda: _plain.unlike_before(*spans([0, 1], [2, -1]), np.empty(1, np.bool_)),
        lambda: _plain.unlike_before(*spans([0, 2**62], [2, 2**62]), np.empty(1, np.bool_)),
        lambda: _plain.unlike_before(*spans([0, 1], [2]), np.empty(1, np.bool_)),
        lambda: _plain.unlike_before(*spans([0, 1], [2, 2]), np.empty(2, np.bool_)),
        lambda: _plain.unlike_before(*spans([0, 1], [2, 2]), np.empty(1, np.int64)),
        lambda: _plain.unlike_before(np.arange(6)[::2], *spans([0, 1], [2, 2])[1:], np.empty(1, np.bool_)),
        lambda: _plain.rows([["a"]], np.empty((1, 1), np.int64), ({},), (), 16),
        lambda: _plain.rows([["a"]], np.empty((1, 1), np.int64), ([],), (1,), 16),  # type: ignore[arg-type]
        lambda: _plain.rows([["a"]], np.empty((1, 1), np.int64), ({"a": "b"},), (1,), 16),  # type: ignore[dict-item]
    ],
)
def test_what_it_is_not_made_for_is_an_error_and_touches_no_memory(call: Callable[[], object]) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError, BufferError, SystemError)):
        call()


def test_no_reference_is_kept_or_dropped() -> None:
    value, word, row = 10.0**9 + 0.5, "w" * 9, 2**40
    table, array, rows = {word: row, None: 0}, np.empty((1, 2), np.float32), np.empty((1, 2), np.int64)
    columns: list[tuple[list[Any], Callable[[list[Any]], object]]] = [
        ([value, None], lambda column: _plain.numbers([column], array)),
        ([value, "not plain"], lambda column: _plain.numbers([column], array)),
        ([word, None], lambda column: _plain.rows([column], rows, (table,), (1,), 16)),
        ([word, 3], lambda column: _plain.rows([column], rows, (table,), (1,), 16)),
    ]
    held = (value, word, row, table, array, rows, *(column for column, _ in columns))
    before = list(map(sys.getrefcount, held))
    assert [fill(column) for column, fill in columns * 100] == [True, False] * 200
    assert list(map(sys.getrefcount, held)) == before


def packed(*words: bytes) -> bytes:
    return b"".join(len(word).to_bytes(4, "little") + word for word in words)


@pytest.mark.parametrize(
    "words", [(), ("",), ("a", "", "b" * 70_000), ("\u00e9", "\u6771\u4eac", "\U0001f600", "a\0b")]
)
def test_strings_come_out_of_their_raw_bytes(words: tuple[str, ...]) -> None:
    raw = packed(*(word.encode() for word in words))
    assert plain.strings(memoryview(b"?" + raw)[1:], len(words)) == list(words)


@pytest.mark.parametrize(
    ("raw", "count"),
    [
        (packed(b"a", b"b"), 1),
        (packed(b"a", b"b"), 3),
        (packed(b"a", b"b"), -1),
        (packed(b"a", b"b"), 2**62),
        (packed(b"a", b"b")[:-1], 2),
        (packed(b"a") + b"\1\0\0", 2),
        (b"\xff\xff\xff\xff" + b"a" * 8, 3),
        (b"\0\0\0\x80" + b"a" * 8, 1),
        (packed(b"a", b"\xff"), 2),
        (packed(b"\xed\xa0\x80"), 1),
        (b"", 1),
    ],
)
def test_raw_bytes_that_are_not_just_those_strings_are_left_to_python(raw: bytes, count: int) -> None:
    assert plain.strings(memoryview(raw), count) is None


@given(st.binary(max_size=40), st.integers(0, 8))
def test_whatever_bytes_there_are_they_are_those_strings_or_none(raw: bytes, count: int) -> None:
    found = plain.strings(memoryview(raw), count)
    assert found is None or (packed(*(word.encode() for word in found)) == raw and len(found) == count)
