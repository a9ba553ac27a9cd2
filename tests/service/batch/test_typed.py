"""Columns of any type as words, whole numbers and numbers."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from contract.errors import ColumnTypeInvalid
from service.batch.typed import check_type, integers, numbers, words

MISSING = -(2**63)
LARGEST, SMALLEST = 2**63 - 1, -(2**63)
DICTIONARY = pa.dictionary(pa.int8(), pa.string())


@pytest.mark.parametrize(
    ("kind", "dtypes"),
    [
        (pa.null(), {"string", "int64", "float32"}),
        (pa.bool_(), {"string", "int64", "float32"}),
        (pa.uint8(), {"string", "int64", "float32"}),
        (pa.float16(), {"string", "int64", "float32"}),
        (pa.decimal128(9, 2), {"float32"}),
        (pa.string(), {"string", "int64"}),
        (pa.large_string(), {"string", "int64"}),
        (pa.string_view(), {"string", "int64"}),
        (DICTIONARY, {"string", "int64"}),
        (pa.dictionary(pa.int8(), pa.float64()), {"string", "int64", "float32"}),
        (pa.binary(), set()),
        (pa.timestamp("us"), set()),
        (pa.struct([("a", pa.int64())]), set()),
        (pa.run_end_encoded(pa.int32(), pa.int64()), set()),
    ],
    ids=lambda value: "" if isinstance(value, set) else str(value),
)
def test_a_column_may_hold_what_can_be_cast_to_the_type_of_its_feature(kind: pa.DataType, dtypes: set[str]) -> None:
    lists = [pa.list_(kind), pa.large_list(kind), pa.list_(kind, 2)]
    for dtype in ("string", "int64", "float32"):
        assert _fits(kind, dtype, False) == (dtype in dtypes)
        assert not any(_fits(each, dtype, False) for each in lists)
        assert {_fits(each, dtype, True) for each in lists} == {dtype in dtypes}


def _fits(kind: pa.DataType, dtype: str, is_list: bool) -> bool:
    try:
        check_type(kind, dtype, is_list, "here")
    except ColumnTypeInvalid:
        return False
    return True


@pytest.mark.parametrize(
    ("kind", "dtype", "is_list", "fact"),
    [
        (pa.binary(), "int64", False, "holds binary, not whole numbers"),
        (pa.list_(pa.binary()), "string", True, "holds list<item: binary>, not lists of strings"),
        (pa.int64(), "int64", True, "holds int64, not lists"),
        (pa.list_view(pa.int64()), "int64", True, "holds list_view<item: int64>, not lists"),
        (
            pa.list_(pa.list_(pa.int64())),
            "int64",
            True,
            "holds list<item: list<item: int64>>, not lists of whole numbers",
        ),
    ],
)
def test_a_column_of_another_type_is_told_with_both_types(
    kind: pa.DataType, dtype: str, is_list: bool, fact: str
) -> None:
    with pytest.raises(ColumnTypeInvalid) as said:
        check_type(kind, dtype, is_list, "here")
    assert (said.value.fact, said.value.place) == (fact, "here")


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.large_list(pa.string())], ids=str)
def test_a_dictionary_of_lists_is_refused(kind: pa.DataType) -> None:
    with pytest.raises(ColumnTypeInvalid, match="not lists"):
        check_type(pa.dictionary(pa.int32(), kind), "int64", True, "here")


def test_a_column_of_nulls_holds_lists_too() -> None:
    check_type(pa.null(), "int64", True, "here")


# ---------------------------------------------------------------- words


def _words(column: pa.Array) -> tuple[list[str | None], list[int]]:
    """The word of each row, and the rows that are no words."""
    codes, dictionary, bad = words(column)
    assert codes.dtype == np.int32 and len(codes) == len(column)
    assert len(set(dictionary.to_pylist())) == len(dictionary)
    found = dictionary.to_pylist()
    assert all(found[code] is not None for code in codes if code >= 0)
    return [found[code] if code >= 0 else None for code in codes], _places(bad)


def _places(bad: Any) -> list[int]:
    return [] if bad is None else np.flatnonzero(bad).tolist()


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["a", None, "a", "", "ü"]), ["a", None, "a", "", "ü"]),
        (pa.array(["a", None, "b"], pa.large_string()), ["a", None, "b"]),
        (pa.array(["a", None, "b"], pa.string_view()), ["a", None, "b"]),
        (pa.array(["a", "b", None, "a"]).dictionary_encode().slice(1), ["b", None, "a"]),
        (
            pa.DictionaryArray.from_arrays(pa.array([2, 1, None, 0], pa.uint64()), ["a", None, "b"]),
            ["b", None, None, "a"],
        ),
        (pa.array([7, -7, None], pa.int8()), ["7", "-7", None]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array([True, None, False]), ["true", None, "false"]),
        (pa.array([3.0, -3.0, None, float("nan")]), ["3", "-3", None, None]),
        (pa.array([3.0, None], pa.float64()).dictionary_encode(), ["3", None]),
        (pa.array([3, None], pa.int64()).dictionary_encode(), ["3", None]),
        (pa.nulls(2), [None, None]),
        (pa.nulls(2, pa.list_(pa.int64())), [None, None]),
        (pa.array([], pa.string()), []),
        (pa.array([], pa.float64()), []),
        (pa.array([], DICTIONARY), []),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_values_are_the_words_that_training_makes_of_them(column: pa.Array, expected: list[str | None]) -> None:
    assert _words(column) == (expected, [])


def test_a_fraction_is_no_word_and_neither_is_what_is_too_large() -> None:
    column = pa.array([1.5, 2.0, None, float("inf"), 2.0**63, float("nan"), 2.0**53])
    expected = [None, "2", None, None, None, None, "9007199254740992"]
    assert _words(column) == (expected, [0, 3, 4])
    assert _words(column.dictionary_encode()) == (expected, [0, 3, 4])


# ---------------------------------------------------------------- whole numbers


@pytest.mark.parametrize(
    ("column", "expected", "bad"),
    [
        (pa.array([1, None, -1], pa.int8()), [1, MISSING, -1], []),
        (pa.array([1, None], pa.int64()).dictionary_encode(), [1, MISSING], []),
        (pa.array([True, False, None]), [1, 0, MISSING], []),
        (pa.nulls(2), [MISSING, MISSING], []),
        (pa.DictionaryArray.from_arrays(pa.array([0, None], pa.int8()), pa.nulls(1)), [MISSING, MISSING], []),
        (pa.array([LARGEST, None, 5], pa.uint64()), [LARGEST, MISSING, 5], []),
        (pa.array([5, 2**63, None, 2**64 - 1], pa.uint64()), [5, MISSING, MISSING, MISSING], [1, 3]),
        (pa.array([1.0, 1.5, None, float("nan")]), [1, MISSING, MISSING, MISSING], [1]),
        (
            pa.array([2.0**63 - 1024, 2.0**63, -(2.0**63), float("-inf")]),
            [2**63 - 1024, MISSING, MISSING, MISSING],
            [1, 2, 3],
        ),
        (pa.array(np.array([2, 2.5], np.float16)), [2, MISSING], [1]),
        (pa.array([], pa.uint64()), [], []),
        (pa.array([], pa.float32()), [], []),
        (pa.array([], pa.string()), [], []),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_numbers_are_whole_or_missing_or_refused(column: pa.Array, expected: list[int], bad: list[int]) -> None:
    values, wrong = integers(column, MISSING)
    assert values.dtype == np.int64
    assert (values.tolist(), _places(wrong)) == (expected, bad)


TEXTS: list[tuple[str, int | None]] = [
    ("12", 12),
    ("+12", 12),
    ("-012", -12),
    (str(LARGEST), LARGEST),
    (str(SMALLEST), SMALLEST),
    (str(LARGEST + 1), None),
    (str(SMALLEST - 1), None),
    ("0" * 19, 0),
    ("0" * 20, None),
    ("1.0", None),
    ("1e3", None),
    ("1_000", None),
    (" 1", None),
    ("1\n", None),
    ("-", None),
    ("\uff11", None),
    ("true", None),
]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), DICTIONARY], ids=str)
@pytest.mark.parametrize(("text", "value"), TEXTS)
def test_a_text_is_a_whole_number_when_it_is_written_as_one(kind: pa.DataType, text: str, value: int | None) -> None:
    values, bad = integers(pa.array(["7", text, None, "", text], pa.string()).cast(kind), -9)
    found = -9 if value is None else value
    assert values.tolist() == [7, found, -9, -9, found]
    assert _places(bad) == ([1, 4] if value is None else [])


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), DICTIONARY], ids=str)
def test_a_text_that_is_no_utf8_is_no_whole_number(kind: pa.DataType) -> None:
    texts = pa.array([b"7", b"\xff", None], pa.binary()).view(pa.string())
    values, bad = integers(texts.dictionary_encode() if kind == DICTIONARY else texts.cast(kind), -9)
    assert values.tolist() == [7, -9, -9]
    assert _places(bad) == [1]


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, 2], pa.int8()), [1, 2]),
        (pa.array([1, None], pa.int64()), [1, np.nan]),
        (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
        (pa.array([1.5, None, float("inf")], pa.float32()), [1.5, np.nan, np.inf]),
        (pa.array(np.array([1.5], np.float16)), [1.5]),
        (pa.array([True, None, False]), [1, np.nan, 0]),
        (pa.array([True, False]), [1, 0]),
        (pa.array([150, None, -7], pa.int64()).cast(pa.decimal128(21, 2)), [150, np.nan, -7]),
        (pa.array([0.25, None, 0.25]).dictionary_encode(), [0.25, np.nan, 0.25]),
        (pa.array([1, None]).cast(pa.decimal128(21, 2)).dictionary_encode(), [1, np.nan]),
        (pa.nulls(2), [np.nan, np.nan]),
        (pa.array([], pa.bool_()), []),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_numbers_are_themselves_and_missing_ones_are_no_number(column: pa.Array, expected: list[float]) -> None:
    found = numbers(column)
    assert found.dtype.kind in "iuf"
    np.testing.assert_array_equal(found, expected)
