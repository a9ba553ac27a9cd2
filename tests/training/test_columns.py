"""Any Arrow column that may be a feature comes out as the values it holds; any other is refused with a place."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from contract.errors import ColumnTypeInvalid, DataInvalid, LabelInvalid, LabelWithoutParent, MixedTypes
from contract.features import INT64_MISSING, Dtype
from contract.tasks import CLICK_AND_CONVERSION, Task
from training.columns import ABSENT, Coded, codes_of, dtype_of, floats_of, labels_of, sequences_of

PLACE = "log.parquet, column 'x'"


def values_of(coded: Coded) -> list[Any]:
    """What the codes stand for; None is missing."""
    codes, dictionary = coded
    assert codes.dtype == np.int32
    values: list[Any] = dictionary.to_pylist()
    if codes.ndim == 2:
        return [[None if code == ABSENT else values[code] for code in row] for row in codes.tolist()]
    return [None if code == ABSENT else values[code] for code in codes.tolist()]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (pa.string(), "string"),
        (pa.large_string(), "string"),
        (pa.bool_(), "string"),
        (pa.null(), "string"),
        (pa.dictionary(pa.int16(), pa.string()), "string"),
        (pa.int8(), "int64"),
        (pa.uint32(), "int64"),
        (pa.float64(), "int64"),
        (pa.list_(pa.string()), "string"),
        (pa.large_list(pa.int32()), "int64"),
        (pa.list_(pa.float32(), 3), "int64"),
    ],
)
def test_type_of_a_column_gives_the_type_of_the_feature(kind: pa.DataType, dtype: Dtype) -> None:
    assert dtype_of(kind, "x") == dtype


@pytest.mark.parametrize("kind", [pa.timestamp("s"), pa.binary(), pa.struct([("a", pa.int64())]), pa.decimal128(5, 2)])
def test_type_that_cannot_be_categorical_is_refused(kind: pa.DataType) -> None:
    with pytest.raises(ColumnTypeInvalid, match="cannot be categorical") as caught:
        dtype_of(kind, "x")
    assert (caught.value.place, caught.value.remedy) == ("column 'x'", "cast it to strings or integers")


@pytest.mark.parametrize("wrap", [lambda kind: kind, pa.list_])
def test_mixed_types_are_refused(wrap: Any) -> None:
    union = pa.dense_union([pa.field("a", pa.int64()), pa.field("b", pa.string())])
    with pytest.raises(MixedTypes, match="several types") as caught:
        dtype_of(wrap(union), "x")
    assert caught.value.place == "column 'x'"


@pytest.mark.parametrize(
    ("column", "dtype", "values"),
    [
        (pa.array(["b", None, "", "a", "b"]), "string", ["b", None, None, "a", "b"]),
        (pa.array(["b", None, "", "b"], pa.large_string()), "string", ["b", None, None, "b"]),
        (pa.array(["b", None, "", "b"]).dictionary_encode(), "string", ["b", None, None, "b"]),
        (pa.array([7, None, INT64_MISSING, -1]), "int64", [7, None, None, -1]),
        (pa.array([7, 200], pa.uint8()), "int64", [7, 200]),
        (pa.array([7.0, None, float("nan"), -0.0]), "int64", [7, None, None, 0]),
        (pa.array([7.0, None, float("nan")]), "string", ["7", None, None]),
        (pa.array([7, None]), "string", ["7", None]),
        (pa.array(["7", None, "-8"]), "int64", [7, None, -8]),
        (pa.array([True, None, False]), "string", ["true", None, "false"]),
        (pa.nulls(3), "string", [None, None, None]),
        (pa.array([], pa.string()), "string", []),
    ],
)
def test_codes_stand_for_the_values(column: pa.Array, dtype: Dtype, values: list[Any]) -> None:
    assert values_of(codes_of(column, dtype, PLACE)) == values


@pytest.mark.parametrize("column", [pa.array(["a", "b", None, "c", "b"]), pa.array([1, 2, None, 3, 2])])
def test_sliced_column_has_the_codes_of_its_own_rows(column: pa.Array) -> None:
    for whole in (column, column.dictionary_encode()):
        part = whole.slice(1, 3)
        assert values_of(codes_of(part, dtype_of(column.type, "x"), PLACE)) == column.to_pylist()[1:4]


def test_distinct_values_are_numbered_as_they_appear() -> None:
    codes, dictionary = codes_of(pa.array(["b", "a", "b", "c"]), "string", PLACE)
    assert codes.tolist() == [0, 1, 0, 2]
    assert dictionary.to_pylist() == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("column", "dtype"),
    [
        (pa.array([1.5, 2.0]), "int64"),
        (pa.array([1.5, 2.0]), "string"),
        (pa.array([float("inf")]), "int64"),
        (pa.array(["a"]), "int64"),
        (pa.array([2**63], pa.uint64()), "int64"),
        (pa.array([[1]]), "int64"),
        (pa.array([["a"]]), "string"),
        (pa.array([b"\xff"]), "string"),
        (pa.array([{"a": 1}]), "string"),
    ],
)
def test_values_that_are_not_of_the_type_are_refused(column: pa.Array, dtype: Dtype) -> None:
    with pytest.raises(ColumnTypeInvalid) as caught:
        codes_of(column, dtype, PLACE)
    assert caught.value.place == PLACE
    assert caught.value.remedy


def padded(rows: list[list[Any] | None], length: int) -> list[list[Any]]:
    """The last `length` members of each row that are there, padded with None: a slow reference."""
    kept = [[x for x in row or [] if x is not None and x != ""][-length:] for row in rows]
    return [row + [None] * (length - len(row)) for row in kept]


@given(
    st.lists(st.none() | st.lists(st.none() | st.sampled_from(["a", "b", "c", ""]), max_size=6), max_size=8),
    st.integers(1, 4),
    st.sampled_from([pa.list_(pa.string()), pa.large_list(pa.string()), pa.list_(pa.large_string())]),
    st.integers(0, 3),
)
def test_last_steps_that_are_there_are_kept(
    rows: list[list[str | None] | None], length: int, kind: pa.DataType, start: int
) -> None:
    column = pa.array(rows, kind).slice(start)
    (coded,) = sequences_of([column], ["string"], length, [PLACE])
    assert coded[0].shape == (len(column), length)
    assert values_of(coded) == padded(rows[start:], length)


def test_lists_of_one_length_are_sequences_too() -> None:
    column = pa.array([[1, 2, None], None, [4, 5, 6]], pa.list_(pa.int64(), 3))
    (coded,) = sequences_of([column], ["int64"], 2, [PLACE])
    assert values_of(coded) == [[1, 2], [None, None], [5, 6]]


def test_steps_that_run_along_are_kept_and_dropped_with_the_steps_they_belong_to() -> None:
    items = pa.array([["a", None, "b", "c"], None, [], ["d"]])
    actions = pa.array([[1, 2, None, 4], [], None, [None]])
    found = sequences_of([items, actions], ["string", "int64"], 3, [PLACE, PLACE])
    assert values_of(found[0]) == [["a", "b", "c"], [None] * 3, [None] * 3, ["d", None, None]]
    assert values_of(found[1]) == [[1, None, 4], [None] * 3, [None] * 3, [None] * 3]


def test_parallel_sequences_of_different_lengths_are_refused_with_their_row() -> None:
    columns = [pa.array([["a"], ["b", "c"]]), pa.array([[1], [2]])]
    with pytest.raises(DataInvalid, match="2 and 1 long \\(row 1 of these\\)") as caught:
        sequences_of(columns, ["string", "int64"], 3, ["first", "second"])
    assert (caught.value.place, caught.value.remedy) == ("second", "make them equally long")


@pytest.mark.parametrize("column", [pa.array(["a"]), pa.array([1]), pa.array(["a"]).dictionary_encode(), pa.nulls(1)])
def test_sequence_that_holds_no_lists_is_refused(column: pa.Array) -> None:
    with pytest.raises(ColumnTypeInvalid, match="not lists") as caught:
        sequences_of([column], ["string"], 3, [PLACE])
    assert caught.value.place == PLACE
    assert "store lists" in caught.value.remedy


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (pa.array([1.5, None, float("nan")]), [1.5, None, None]),
        (pa.array([1, None, 3], pa.int16()), [1.0, None, 3.0]),
        (pa.array([True, None, False]), [1.0, None, 0.0]),
        (pa.array([1.5, None, 1.5]).dictionary_encode(), [1.5, None, 1.5]),
        (pa.array([150, None], pa.decimal128(5, 2)), [150.0, None]),
        (pa.nulls(2), [None, None]),
        (pa.array([0.5, 1.5, 2.5]).slice(1), [1.5, 2.5]),
    ],
)
def test_numbers_are_read_with_nan_for_missing(column: pa.Array, values: list[float | None]) -> None:
    found = floats_of(column, PLACE)
    assert found.dtype == np.float32
    assert [None if x != x else x for x in found.tolist()] == values


@pytest.mark.parametrize("number", [float("inf"), -float("inf"), 1e39])
def test_infinite_number_is_refused_with_its_row(number: float) -> None:
    with pytest.raises(DataInvalid, match="an infinite number \\(row 1 of these\\)") as caught:
        floats_of(pa.array([0.0, number]), PLACE)
    assert (caught.value.place, caught.value.remedy) == (PLACE, "remove it, or make it null")


@pytest.mark.parametrize("column", [pa.array(["1"]), pa.array([[1.0]]), pa.array([0], pa.timestamp("s"))])
def test_numeric_feature_of_another_type_is_refused(column: pa.Array) -> None:
    with pytest.raises(ColumnTypeInvalid, match="not numbers") as caught:
        floats_of(column, PLACE)
    assert caught.value.place == PLACE


def labels(click: Any, conversion: Any, tasks: tuple[Task, ...] = CLICK_AND_CONVERSION) -> NDArray[np.uint8]:
    return labels_of(pa.record_batch({"click": click, "conversion": conversion}), tasks, "log.parquet", 100)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([0, 1, 1], pa.int8()),
        pa.array([0.0, 1.0, 1.0]),
        pa.array([False, True, True]),
        pa.array([0, 1, 1]).dictionary_encode(),
    ],
)
def test_labels_are_read_from_any_type_that_holds_0_and_1(column: pa.Array) -> None:
    found = labels(column, pa.array([0, 0, 1]))
    assert found.dtype == np.uint8
    assert found.tolist() == [[0, 0], [1, 0], [1, 1]]


def test_listed_values_count_as_positive() -> None:
    tasks = (Task(name="rich", label="click", positive=(" 50000+.", "yes")), Task(name="b", label="conversion"))
    for column in (pa.array(["-", "yes", " 50000+."]), pa.array(["-", "yes", " 50000+."]).dictionary_encode()):
        assert labels(column, pa.array([1, 0, 1]), tasks).tolist() == [[0, 1], [1, 0], [1, 1]]


def test_positive_values_of_another_type_are_refused() -> None:
    tasks = (Task(name="rich", label="click", positive=("yes",)),)
    with pytest.raises(LabelInvalid, match="cannot be compared with") as caught:
        labels(pa.array([1, 2]), pa.array([0, 0]), tasks)
    assert caught.value.place == "log.parquet, label column 'click'"


@pytest.mark.parametrize("wrong", [2, -1, 0.5, float("nan"), 257, 256])
def test_label_outside_0_and_1_is_refused_with_its_row(wrong: float) -> None:
    with pytest.raises(LabelInvalid, match=r"in row 102 is neither 0 nor 1") as caught:
        labels(pa.array([0, 1, wrong, 1]), pa.array([0, 0, 0, 0]))
    assert caught.value.place == "log.parquet, label column 'click'"
    assert caught.value.remedy


@pytest.mark.parametrize(
    "column", [pa.array([0, None]), pa.array([True, None]), pa.array([0, None]).dictionary_encode()]
)
def test_missing_label_is_refused_with_its_row(column: pa.Array) -> None:
    with pytest.raises(LabelInvalid, match="missing in row 101") as caught:
        labels(column, pa.array([0, 0]))
    assert caught.value.place == "log.parquet, label column 'click'"


@pytest.mark.parametrize("column", [pa.array(["0", "1"]), pa.array([[0], [1]]), pa.array([0, 1], pa.timestamp("s"))])
def test_label_of_another_type_is_refused(column: pa.Array) -> None:
    with pytest.raises(LabelInvalid, match="not 0 and 1") as caught:
        labels(column, pa.array([0, 0]))
    assert "`positive` values" in caught.value.remedy


def test_conversion_without_a_click_is_refused_with_its_row() -> None:
    with pytest.raises(
        LabelWithoutParent, match=r"conversion without click in row 101 \(2 such rows among 4\)"
    ) as caught:
        labels(pa.array([1, 0, 0, 0]), pa.array([1, 1, 0, 1]))
    assert caught.value.place == "log.parquet, label column 'conversion'"
    assert "set click to 1 there" in caught.value.remedy
