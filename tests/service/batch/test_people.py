"""Which rows are one user: compared with a dictionary of whole rows."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batch import people as module
from service.batch.lists import spans_of
from service.batch.people import people

VALUES = st.integers(0, 2)
ROWS = st.lists(st.tuples(VALUES, VALUES, st.none() | st.lists(VALUES, max_size=3)), max_size=12)


def _found(rows: list[tuple[int, int, list[int] | None]]) -> tuple[list[int], list[int]]:
    spans, values = spans_of(pa.array([row[2] for row in rows], pa.list_(pa.int64())))
    keys = [np.array([row[i] for row in rows], np.int64) for i in (0, 1)]
    firsts, row_user = people(keys, [(spans, values.to_numpy())], len(rows))
    return firsts.tolist(), row_user.tolist()


def _wanted(rows: list[tuple[int, int, list[int] | None]]) -> tuple[list[int], list[int]]:
    """A missing list is an empty one, to the model too."""
    numbers: dict[tuple[int, int, tuple[int, ...]], int] = {}
    firsts, row_user = [], []
    for place, (one, other, many) in enumerate(rows):
        key = (one, other, tuple(many or ()))
        if key not in numbers:
            numbers[key] = len(numbers)
            firsts.append(place)
        row_user.append(numbers[key])
    return firsts, row_user


@given(ROWS)
def test_rows_are_one_user_where_all_their_columns_are_equal(rows: list[tuple[int, int, list[int] | None]]) -> None:
    assert _found(rows) == _wanted(rows)


def test_rows_whose_hashes_collide_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "mix", lambda values: values * np.uint64(0))
    rows: list[tuple[int, int, list[int] | None]] = [(0, 1, [1]), (1, 0, [1]), (0, 1, [1]), (0, 1, [2])]
    firsts, row_user = _found(rows)
    for row, user in enumerate(row_user):
        assert rows[firsts[user]] == rows[row]


def test_no_number_is_equal_to_another_that_is_missing() -> None:
    firsts, row_user = people([np.array([np.nan, np.nan, 0.0, np.nan])], [], 4)
    assert firsts.tolist() == [0, 2]
    assert row_user.tolist() == [0, 0, 1, 0]


def test_rows_without_columns_of_a_user_are_one_user() -> None:
    assert [each.tolist() for each in people([], [], 3)] == [[0], [0, 0, 0]]
    assert [each.tolist() for each in people([], [], 0)] == [[], []]
