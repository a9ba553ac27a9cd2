"""Lists as flat values."""

import numpy as np
import pyarrow as pa
import pytest

from service.batch.lists import differing, differing_from_before, hashes, spans_of
from service.scoring import plain

ROWS: list[list[int] | None] = [[1, 2], None, [], [3], [1, 2], [2, 1], [1, 2, 3], [3]]


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.large_list(pa.int64())])
def test_the_values_of_chosen_rows_are_found_also_in_a_slice(kind: pa.DataType) -> None:
    column = pa.concat_arrays([pa.array([[9, 9]], kind), pa.array(ROWS, kind)]).slice(1)
    spans, values = spans_of(column)
    rows = np.array([5, 1, 3, 6])
    assert values.to_numpy()[spans.places(rows)].tolist() == [2, 1, 3, 1, 2, 3]
    assert spans.lengths.tolist() == [2, 0, 0, 1, 2, 2, 3, 1]


def test_lists_of_fixed_size_are_lists() -> None:
    spans, values = spans_of(pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2)))
    assert values.to_numpy(zero_copy_only=False)[spans.places(np.array([2, 0, 1]))].tolist() == [3, 4, 1, 2]


def test_lists_differ_in_length_value_and_order() -> None:
    spans, values = spans_of(pa.array(ROWS, pa.list_(pa.int64())))
    pairs = [(0, 4), (0, 5), (0, 6), (1, 2), (3, 7), (3, 2)]
    one, other = (np.array(side) for side in zip(*pairs, strict=True))
    assert differing(spans, values.to_numpy(), one, other).tolist() == [False, True, True, False, False, True]


def test_equal_lists_have_equal_hashes_and_permuted_ones_do_not() -> None:
    spans, values = spans_of(pa.array(ROWS, pa.list_(pa.int64())))
    found = hashes(spans, values.to_numpy(), np.arange(len(ROWS)))
    assert found[0] == found[4]
    assert found[3] == found[7]
    assert found[1] == found[2]
    assert len(set(found.tolist())) == 5


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("hidden", [False, True])
def test_rows_are_compared_with_those_before_as_any_two_rows_are(
    hidden: bool, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(plain, "_plain", None)
    draw = np.random.default_rng(0)
    lists: list[list[int] | None] = [draw.integers(0, 2, draw.integers(0, 3)).tolist() for _ in range(500)]
    column = pa.array(lists, pa.list_(pa.int64()))
    if hidden:  # null rows that have values all the same
        mask = pa.array(draw.random(500) < 0.3)
        column = pa.ListArray.from_arrays(column.offsets, column.values, mask=mask)
    spans, flat = spans_of(column)
    values, rows = flat.to_numpy(), np.arange(499)
    found = differing_from_before(spans, values)
    assert found.tolist() == differing(spans, values, rows + 1, rows).tolist()
    assert 0 < found.sum() < 499
