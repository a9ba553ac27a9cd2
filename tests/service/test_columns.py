"""Raw columns as the arrays of the graph."""

from typing import Any

import numpy as np
import pytest

from contract.errors import (
    FeatureMissing,
    LengthMismatch,
    RequestInvalid,
    SeveralInvalid,
    TooManyCandidates,
    ValueInvalid,
)
from contract.features import INT64_MISSING
from service.scoring.columns import Columns, count_rows, raise_all
from service.scoring.settings import ScoringSettings
from tests.service.toy_bundle import toy_manifest

USER = Columns(toy_manifest(), "user", ScoringSettings())
ITEM = Columns(toy_manifest(), "item", ScoringSettings())


def read(columns: Columns, table: dict[str, Any], rows: int) -> dict[str, Any]:
    faults: list[RequestInvalid] = []
    arrays = columns.arrays(table, rows, faults)
    raise_all(faults)
    return {name: array.tolist() for name, array in arrays.items()}


def fault(columns: Columns, table: dict[str, Any], rows: int) -> tuple[type, str]:
    with pytest.raises(RequestInvalid) as caught:
        read(columns, table, rows)
    return type(caught.value), caught.value.place


def test_every_feature_of_the_side_gets_an_array_given_or_not() -> None:
    arrays = read(ITEM, {"item_id": ["i1", "i2"], "price": [1, None]}, 2)
    assert arrays.keys() == {"item_id", "category", "price", "tags"}
    assert arrays["item_id"] == ["i1", "i2"]
    assert arrays["category"] == [INT64_MISSING, INT64_MISSING]
    assert arrays["price"][0] == 1.0
    assert np.isnan(arrays["price"][1])
    assert arrays["tags"] == [[INT64_MISSING], [INT64_MISSING]]


def test_sequences_are_padded_on_the_right_to_the_longest() -> None:
    arrays = read(ITEM, {"item_id": ["a", "b", "c"], "tags": [[1], None, [1, 2]]}, 3)
    assert arrays["tags"] == [[1, INT64_MISSING], [INT64_MISSING] * 2, [1, 2]]


def test_sequences_keep_their_last_steps() -> None:
    arrays = read(ITEM, {"item_id": ["a", "b"], "tags": [[1, 2, 3, 4, 5], [6]]}, 2)
    assert arrays["tags"] == [[3, 4, 5], [6, INT64_MISSING, INT64_MISSING]]
    assert read(USER, {"recent_items": [list("abcdef")], "recent_actions": [list("uvwxyz")]}, 1)["recent_items"] == [
        list("cdef")
    ]


def test_missing_members_are_dropped_before_the_cut() -> None:
    arrays = read(ITEM, {"item_id": ["a", "b"], "tags": [[1, None, 2, None, 3, None], [None]]}, 2)
    assert arrays["tags"] == [[1, 2, 3], [INT64_MISSING] * 3]


@pytest.mark.parametrize("others", [0, 1])
def test_parallel_sequences_lose_the_steps_whose_main_member_is_missing(others: int) -> None:
    """Alone and beside another user: the two go different ways through the code."""
    users = {
        "recent_items": [["a", None, "b", "", "c"], *[["z"]] * others],
        "recent_actions": [["1", "2", None, "4", "5"], *[["9"]] * others],
    }
    arrays = read(USER, users, 1 + others)
    assert arrays["recent_items"][0] == ["a", "b", "c"]
    assert arrays["recent_actions"][0] == ["1", "", "5"]


def test_parallel_sequences_must_be_equally_long_even_beyond_the_cut() -> None:
    users = {"recent_items": [list("abcdef")], "recent_actions": [list("cdef")]}
    assert fault(USER, users, 1) == (LengthMismatch, "user.recent_actions")
    assert fault(USER, {"recent_items": [[], ["a"]], "recent_actions": [None, None]}, 2) == (
        LengthMismatch,
        "users.recent_actions[1]",
    )
    assert fault(USER, {"recent_items": [["a"]]}, 1) == (LengthMismatch, "user.recent_actions")


@pytest.mark.parametrize(
    ("table", "kind", "place"),
    [
        ({"item_id": ["a", 3]}, ValueInvalid, "candidates.item_id[1]"),
        ({"item_id": ["a", "b"], "price": ["9", 1]}, ValueInvalid, "candidates.price[0]"),
        ({"item_id": ["a", "b"], "category": [1, 1.0]}, ValueInvalid, "candidates.category[1]"),
        ({"item_id": ["a", "b"], "tags": [[1], 2]}, ValueInvalid, "candidates.tags[1]"),
        ({"item_id": ["a", "b"], "tags": [[], [1, "x"]]}, ValueInvalid, "candidates.tags[1][1]"),
        ({"item_id": ["a", None]}, FeatureMissing, "candidates.item_id[1]"),
        ({"item_id": ["", "b"]}, FeatureMissing, "candidates.item_id[0]"),
        ({}, FeatureMissing, "candidates.item_id"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(table: dict[str, Any], kind: type, place: str) -> None:
    assert fault(ITEM, table, 2) == (kind, place)


def test_a_single_user_has_no_row_in_the_place() -> None:
    assert fault(USER, {"city": [3]}, 1) == (ValueInvalid, "user.city")
    assert fault(USER, {"recent_items": [["a", 3]], "recent_actions": [["b", "c"]]}, 1) == (
        ValueInvalid,
        "user.recent_items[1]",
    )
    assert fault(USER, {"city": ["a", 3]}, 2) == (ValueInvalid, "users.city[1]")


def test_an_integer_that_is_the_sentinel_counts_as_missing() -> None:
    assert read(ITEM, {"item_id": ["a"], "tags": [[1, INT64_MISSING, 2]]}, 1)["tags"] == [[1, 2]]


def test_every_feature_that_is_wrong_is_reported_at_once() -> None:
    with pytest.raises(SeveralInvalid) as caught:
        read(ITEM, {"item_id": [1], "price": ["x"], "category": [1]}, 1)
    assert [error.place for error in caught.value.errors] == ["candidates.item_id[0]", "candidates.price[0]"]


def test_unknown_names_are_told_apart_from_those_of_the_other_side() -> None:
    typo, other, strange = ITEM.unknown(["prise", "city", "zzzzzzzz"])
    assert (typo.place, typo.remedy) == ("candidates.prise", "did you mean 'price'")
    assert (other.fact, other.remedy) == ("the model takes this feature on the other side", "send it with `user`")
    assert strange.remedy == "leave it out"


def test_however_many_names_are_unknown_only_twenty_are_looked_at() -> None:
    assert len(ITEM.unknown(f"x{i}" for i in range(100_000))) == 20


def test_an_unknown_name_is_shown_short_and_without_control_characters() -> None:
    (found,) = ITEM.unknown(["a\x1b[31m\n" + "b" * 100_000])
    assert found.place == "candidates.a[31m" + "b" * 57


def test_columns_must_agree_on_the_number_of_rows() -> None:
    assert count_rows({"a": [1, 2], "b": np.zeros(2)}, "item") == 2
    assert count_rows({}, "item") is None
    with pytest.raises(LengthMismatch, match=r"candidates\.b: has 1 values where 2 are expected"):
        count_rows({"a": [1, 2], "b": [1]}, "item")
    with pytest.raises(LengthMismatch):
        count_rows({"a": [1, 2]}, "item", 3)
    with pytest.raises(ValueInvalid, match=r"candidates\.a: must be a list"):
        count_rows({"a": "xy"}, "item")


def test_padding_is_bounded() -> None:
    columns = Columns(toy_manifest(), "item", ScoringSettings(max_cells=10))
    table = {"item_id": list("abcd"), "tags": [[1, 2, 3], [], [], []]}
    with pytest.raises(TooManyCandidates, match=r"candidates\.tags"):
        read(columns, table, 4)
    read(columns, {"item_id": list("abc"), "tags": [[1, 2, 3], [], []]}, 3)


def test_no_rows_are_read_too() -> None:
    assert read(ITEM, {"item_id": [], "tags": []}, 0) == {"item_id": [], "category": [], "price": [], "tags": []}
