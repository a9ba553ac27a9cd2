"""Lists of raw values as arrays."""

from typing import Any

import numpy as np
import pytest

from contract.features import INT64_MISSING
from service.scoring import plain
from service.scoring.lookups import Words
from service.scoring.values import NO_WORD, BadValue, read_integers, read_numbers, read_strings, reader

LARGEST = float(np.finfo(np.float32).max)


@pytest.fixture(autouse=True, params=["compiled code", "Python alone"])
def _either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "Python alone":
        monkeypatch.setattr(plain, "_plain", None)


def bad(read: Any, *arguments: Any) -> tuple[int, str]:
    with pytest.raises(BadValue) as caught:
        read(*arguments)
    return caught.value.index, caught.value.fact


def test_strings_keep_their_text_and_none_becomes_the_empty_string() -> None:
    array = read_strings(["a", None, "é", "", "a\0b"], 1024)
    assert array.dtype == object
    assert array.tolist() == ["a", "", "é", "", "a\0b"]


@pytest.mark.parametrize("value", [3, 1.5, True, b"a", ["a"], {"a": 1}])
def test_what_is_no_string_is_refused_where_it_stands(value: object) -> None:
    assert bad(read_strings, ["a", "b", value], 1024) == (2, "must be a string")


def test_a_lone_surrogate_is_refused() -> None:
    assert bad(read_strings, ["a", "\ud800"], 1024) == (1, "cannot be written as UTF-8")


def test_a_string_may_have_so_many_bytes_and_no_more() -> None:
    assert len(read_strings(["é" * 512], 1024)[0]) == 512
    assert bad(read_strings, ["a", "é" * 512 + "x"], 1024) == (1, "is longer than 1024 bytes")


def test_integers_fill_64_bits_and_none_becomes_the_sentinel() -> None:
    array = read_integers([0, None, 2**63 - 1, -(2**63) + 1])
    assert array.dtype == np.int64
    assert array.tolist() == [0, INT64_MISSING, 2**63 - 1, -(2**63) + 1]


@pytest.mark.parametrize("value", [1.0, True, "1", [1]])
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    assert bad(read_integers, [1, value]) == (1, "must be a whole number")


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**400])
def test_an_integer_beyond_64_bits_is_refused(value: int) -> None:
    assert bad(read_integers, [1, None, value]) == (2, "does not fit in 64 bits")


def test_numbers_may_be_whole_and_none_becomes_nan() -> None:
    array = read_numbers([1, 2.5, None, -0.0, LARGEST])
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.array([1, 2.5, np.nan, -0.0, LARGEST], dtype=np.float32))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e39, -1e300, 10**39, 10**400])
def test_a_number_that_is_not_finite_in_32_bits_is_refused(value: float) -> None:
    assert bad(read_numbers, [1.0, None, value]) == (2, "must be a finite number that fits in 32 bits")


@pytest.mark.parametrize("value", [True, "1", [1.0]])
def test_what_is_no_number_is_refused(value: object) -> None:
    assert bad(read_numbers, [1.0, value]) == (1, "must be a number")


def test_numpy_columns_are_taken_with_their_own_missing_values() -> None:
    np.testing.assert_array_equal(read_numbers(np.array([1.5, np.nan])), np.array([1.5, np.nan], dtype=np.float32))
    assert read_numbers(np.array([1, 2])).tolist() == [1.0, 2.0]
    assert read_integers(np.array([1, INT64_MISSING])).tolist() == [1, INT64_MISSING]
    assert read_integers(np.array([7], dtype=np.uint8)).tolist() == [7]
    assert read_strings(np.array(["a", "b"]), 1024).tolist() == ["a", "b"]
    assert read_strings(np.array(["a", None], dtype=object), 1024).tolist() == ["a", ""]


def test_numpy_columns_of_the_wrong_type_are_refused() -> None:
    assert bad(read_numbers, np.array([True]))[1] == "must be a number"
    assert bad(read_numbers, np.array([1.0, np.inf])) == (1, "must be a finite number that fits in 32 bits")
    assert bad(read_integers, np.array([1.0]))[1] == "must be a whole number"
    assert bad(read_integers, np.array([2**64 - 1], dtype=np.uint64))[1] == "does not fit in 64 bits"
    assert bad(read_strings, np.array([1]), 1024)[1] == "must be a string"


@pytest.mark.parametrize("dtype", ["string", "int64", "float32"])
def test_every_dtype_reads_no_values_and_knows_its_missing_one(dtype: str) -> None:
    reads = reader(dtype, 1024)
    assert len(reads.read([])) == 0
    assert reads.is_missing(reads.read([None])).tolist() == [True]
    assert reads.is_missing(np.full(1, reads.missing, dtype=reads.dtype)).tolist() == [True]


WORDS = Words({"": 7, "a": 3, "b": 4}, unknown=1, missing=7)


def test_words_are_rows_and_others_the_unknown_row() -> None:
    read = reader("string", 16, WORDS)
    array = read.read(["b", "a", None, "zz", "", "a"])
    assert array.tolist() == [4, 3, NO_WORD, 1, NO_WORD, 3]
    assert read.is_missing(array).tolist() == [False, False, True, False, True, False]
    assert read.feed(array).tolist() == [4, 3, 7, 1, 7, 3]
    assert read.read(np.array(["b", "q"])).tolist() == [4, 1]


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        (3, "must be a string"),
        (True, "must be a string"),
        (["a"], "must be a string"),
        ({}, "must be a string"),
        ("\ud800", "cannot be written as UTF-8"),
        ("é" * 9, "is longer than 16 bytes"),
    ],
)
def test_what_is_no_word_must_still_be_a_string_that_could_be_one(value: object, fact: str) -> None:
    assert bad(reader("string", 16, WORDS).read, ["a", "zz", value]) == (2, fact)
