"""The order of columns, on which training's arrays, the network and the graph agree."""

import pytest

from models.inputs import Inputs, Lookup, Number
from tests.models.small import INPUTS


def names(found: list[Lookup] | list[Number]) -> list[str]:
    return [entry.name for entry in found]


def test_columns_come_user_first_and_values_before_sequences() -> None:
    assert names(INPUTS.ordered(4)) == ["city", "device", "recent_items", "item"]
    assert names(INPUTS.ordered(3)) == ["user", "recent_actions", "brand", "tags"]
    assert names(INPUTS.ordered_numbers()) == ["age", "spend", "price", "stock"]


def test_what_ties_keeps_the_order_of_declaration() -> None:
    twins = tuple(Lookup(name, "user", 4, offset=0) for name in ("b", "a", "c"))
    assert names(Inputs(twins, (), {4: 10}).ordered(4)) == ["b", "a", "c"]


def test_a_value_takes_one_column_and_a_sequence_its_length() -> None:
    assert INPUTS.columns(4) == 1 + 1 + 5 + 1
    assert INPUTS.columns(3) == 1 + 5 + 1 + 3


def test_sides_part_the_features_and_share_the_tables() -> None:
    user, item = INPUTS.side("user"), INPUTS.side("item")
    assert names([*user.lookups]) == ["city", "recent_items", "device", "user", "recent_actions"]
    assert names([*user.numbers]) == ["age", "spend"]
    assert names([*item.lookups]) == ["item", "tags", "brand"]
    assert names([*item.numbers]) == ["price", "stock"]
    assert user.table_rows == item.table_rows == INPUTS.table_rows


def test_a_sequence_is_found_with_those_that_run_along_it() -> None:
    assert names([*INPUTS.parallel("recent_items")]) == ["recent_items", "recent_actions"]
    assert names([*INPUTS.parallel("tags")]) == ["tags"]
    with pytest.raises(KeyError, match="city"):
        INPUTS.parallel("city")
