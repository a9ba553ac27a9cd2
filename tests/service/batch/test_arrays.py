"""Arrow batches as the arrays of the scorer: the same as from Python lists, and the same refusals."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from contract.errors import RequestInvalid
from service.batch import arrays as module
from service.batch.arrays import Arrays, TooWide
from service.scoring.scorer import Scorer
from tests.service.batch.tables import ITEM, USER, expected, toy_table


def _batch(table: pa.Table) -> pa.RecordBatch:
    (batch,) = table.combine_chunks().to_batches()
    return batch


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_the_same_rows_as_lists(scorer: Scorer, seed: int, in_order: bool) -> None:
    table = toy_table(200, seed, users=7, in_order=in_order)
    ready = Arrays(scorer).read(_batch(table))
    found = scorer.run(ready.feeds)
    assert ready.refused is None
    assert len(ready.per_user) <= 7 and ready.per_user.sum() == 200
    for name, values in expected(scorer, table).items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-6)


CASTS = [
    {"category": pa.int8()},
    {"category": pa.float64()},
    {"category": pa.string()},
    {"age": pa.float32()},
    {"age": pa.decimal128(12, 6)},
    {"user_id": pa.large_string(), "city": pa.string_view()},
    {"user_id": pa.dictionary(pa.int8(), pa.string()), "item_id": pa.dictionary(pa.int32(), pa.string())},
    {"tags": pa.large_list(pa.int16()), "recent_items": pa.large_list(pa.large_string())},
    {"tags": pa.list_(pa.float32())},
]


@pytest.mark.parametrize("types", CASTS, ids=str)
def test_other_types_of_the_same_values_give_the_same_scores(scorer: Scorer, types: dict[str, pa.DataType]) -> None:
    table = toy_table(64, 3)
    table = table.set_column(3, "age", pa.array([None if v is None or v != v else v for v in table["age"].to_pylist()]))
    for name, kind in types.items():
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(kind, safe=False))
    found = scorer.run(Arrays(scorer).read(_batch(table)).feeds)
    rounded = toy_table(64, 3).set_column(3, "age", table["age"].cast(pa.float64()))
    for name, values in expected(scorer, rounded).items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-6)


BAD: list[tuple[str, Any]] = [
    ("age", float("inf")),
    ("price", 1e300),
    ("item_id", None),
    ("item_id", ""),
    ("user_id", "x" * 1025),
    ("city", "x" * 2000),
    ("recent_items", ["x" * 2000]),
    ("recent_actions", ["view"] * 9),
    ("item_id", "x" * 3000),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_row_is_refused_where_the_scorer_refuses_it_and_the_others_are_not(
    scorer: Scorer, name: str, value: Any
) -> None:
    rows = toy_table(40, 5).to_pylist()
    rows[17][name] = value
    table = pa.Table.from_pylist(rows, toy_table(0).schema)
    arrays, batch = Arrays(scorer), _batch(table)
    ready = arrays.read(batch)
    assert ready.refused is not None
    assert np.flatnonzero(ready.refused).tolist() == [17]
    one = {column: [rows[17][column]] for column in (*USER, *ITEM)}
    with pytest.raises(RequestInvalid) as said:
        scorer.score({column: one[column] for column in USER}, {column: one[column] for column in ITEM})
    assert said.value.fact in arrays.reason(batch, 17)
    assert name in arrays.reason(batch, 17)
    found = scorer.run(arrays.without(ready))
    left = table.filter(pa.array([row != 17 for row in range(40)]))
    for output, values in expected(scorer, left).items():
        np.testing.assert_allclose(found[output], values, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kind", "value"), [(pa.float64(), 1.5), (pa.string(), "two"), (pa.uint64(), 2**63)])
def test_what_is_no_whole_number_is_refused(scorer: Scorer, kind: pa.DataType, value: Any) -> None:
    table = toy_table(6, 1)
    column = pa.array([1, 2, 3, None, 1, 1], pa.int64()).cast(kind).to_pylist()
    column[2] = value
    table = table.set_column(table.schema.get_field_index("category"), "category", pa.array(column, kind))
    arrays, batch = Arrays(scorer), _batch(table)
    ready = arrays.read(batch)
    assert ready.refused is not None and ready.refused.tolist() == [row == 2 for row in range(6)]
    assert arrays.reason(batch, 2)


def test_bytes_that_are_no_utf8_are_refused(scorer: Scorer) -> None:
    table = toy_table(3, 1)
    column = pa.array([b"i1", b"\xff\xfe", b"i2"]).view(pa.string())
    table = table.set_column(table.schema.get_field_index("item_id"), "item_id", column)
    arrays, batch = Arrays(scorer), _batch(table)
    ready = arrays.read(batch)
    assert ready.refused is not None and ready.refused.tolist() == [False, True, False]
    assert arrays.reason(batch, 1) == "a string is not UTF-8"


def test_what_was_missing_and_unknown_is_counted_in_rows(scorer: Scorer) -> None:
    table = toy_table(100, 2)
    seen = Arrays(scorer).read(_batch(table)).seen
    cities = table["city"].to_pylist()
    assert seen["city"].missing == sum(city is None for city in cities)
    assert seen["city"].unknown == cities.count("Atlantis")
    assert seen["city"].present == 100 - seen["city"].missing
    assert seen["item_id"].unknown == table["item_id"].to_pylist().count("new")
    assert seen["age"].missing == sum(age is None or age != age for age in table["age"].to_pylist())
    assert seen["age"].unknown is None
    lists = [[item for item in row or [] if item][-4:] for row in table["recent_items"].to_pylist()]
    assert seen["recent_items"].missing == sum(not row for row in lists)
    assert seen["recent_items"].present == sum(map(len, lists))
    assert seen["recent_items"].unknown == sum(row.count("i99") for row in lists)


def test_a_batch_whose_padded_sequences_would_be_too_large_is_sent_back(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CELLS", 3)
    with pytest.raises(TooWide):
        Arrays(scorer).read(_batch(toy_table(20, 2)))
