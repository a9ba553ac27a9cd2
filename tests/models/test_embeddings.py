"""Tables, pooling, and the two ways to a side's vector: training's matrices and serving's columns."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from contract.features import MISSING_ROW, UNKNOWN_ROW
from models.embeddings import Embeddings, pool
from models.inputs import Inputs, Lookup
from tests.models.small import INPUTS, columns, encoded

SEQUENCE = Lookup("recent", "user", 4, offset=10, length=5)
PADDING = SEQUENCE.offset + MISSING_ROW


def embeddings(seed: int = 0) -> Embeddings:
    """With tables that differ in every row, the missing and unknown ones too."""
    torch.manual_seed(seed)
    found = Embeddings(INPUTS)
    with torch.no_grad():
        for table in found.tables.values():
            table.normal_()
    return found


def both_ways(rows: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    network, (found, user, item) = embeddings(), columns(rows, rows)
    trained = network.from_rows(batch := encoded(found, user, item), network.look_up(batch.ids))
    return trained, (network.from_columns("user", found, user), network.from_columns("item", found, item))


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_serving_computes_what_training_does(rows: int) -> None:
    trained, served = both_ways(rows)
    widths = embeddings().widths
    for one, other, width in zip(trained, served, widths, strict=True):
        assert one.shape == other.shape == (rows, width)
        assert torch.allclose(one, other, rtol=0, atol=1e-6)


def test_a_sides_vector_holds_values_and_means_by_width_then_numbers() -> None:
    network, (found, user, item) = embeddings(), columns(1, 1)
    three, four = (network.tables[str(dim)].detach() for dim in (3, 4))
    recent = [row for row in found["recent"][0].tolist() if row != 0]
    mean = torch.stack([four[row] for row in recent]).mean(dim=0)
    values = [three[found["user"][0]], four[found["city"][0]], four[found["device"][0]]]
    expected = torch.cat([*values, mean, network.user_numbers(user)[0]])
    assert torch.allclose(network.from_columns("user", found, user)[0], expected, atol=1e-6)
    assert torch.equal(network.from_columns("item", found, item)[0, :3], three[found["brand"][0]])


def test_shared_features_read_one_table() -> None:
    network, (found, user, item) = embeddings(), columns(1, 1)
    found["item"], found["recent"] = torch.tensor([7]), torch.tensor([[7]])
    as_user, as_item = network.from_columns("user", found, user), network.from_columns("item", found, item)
    assert torch.equal(as_user[0, 11:15], network.tables["4"][7])
    assert any(torch.equal(as_item[0, i : i + 4], network.tables["4"][7]) for i in range(as_item.shape[1] - 3))


def test_missing_and_unknown_rows_start_neutral_and_all_others_do_not() -> None:
    network = Embeddings(INPUTS)
    for dim, table in network.tables.items():
        offsets = {lookup.offset for lookup in INPUTS.lookups if lookup.dim == int(dim)}
        neutral = {offset + row for offset in offsets for row in (MISSING_ROW, UNKNOWN_ROW)}
        assert {row for row in range(len(table)) if not table[row].any()} == neutral


def test_tables_of_one_width_are_one_parameter() -> None:
    network = Embeddings(INPUTS)
    assert {name: tuple(table.shape) for name, table in network.tables.items()} == {"3": (50, 3), "4": (50, 4)}
    assert len(list(network.parameters())) == 2


def test_gradient_touches_the_rows_looked_up_and_no_padding() -> None:
    network, (found, user, _) = embeddings(), columns(7, 7)
    found["recent"][:, 3:] = MISSING_ROW  # the table's own padding
    torch.autograd.backward(network.from_columns("user", found, user).sum())
    values = {*found["city"].tolist(), *found["device"].tolist()}
    touched = values | {*found["recent"].flatten().tolist()} - {MISSING_ROW}
    gradient = network.tables["4"].grad
    assert gradient is not None
    assert {row for row in range(50) if gradient[row].any()} == touched


@given(st.lists(st.integers(1, 20), max_size=6), st.integers(0, 5))
def test_masked_mean_is_the_mean_of_what_is_there_however_it_is_padded(steps: list[int], padding: int) -> None:
    table = torch.randn(40, 4, generator=torch.Generator().manual_seed(4))
    present = [SEQUENCE.offset + step for step in steps]
    ids = torch.tensor([[*present, *[PADDING] * padding]], dtype=torch.int64)
    pooled = pool(table[ids], ids, SEQUENCE)
    expected = table[present].mean(dim=0) if present else torch.zeros(4)
    assert torch.allclose(pooled[0], expected, atol=1e-6)


def test_empty_sequence_is_zero_with_any_table() -> None:
    for length in (1, 5):
        ids = torch.full((2, length), PADDING)
        assert torch.equal(pool(torch.randn(2, length, 4), ids, SEQUENCE), torch.zeros(2, 4))


def test_padding_between_steps_and_the_order_of_steps_change_nothing() -> None:
    table = torch.randn(40, 4)
    orders = torch.tensor([[12, 13, PADDING, PADDING], [PADDING, 13, PADDING, 12]])
    one, other = pool(table[orders], orders, SEQUENCE)
    assert torch.allclose(one, other, atol=1e-6)


def test_lengths_beyond_those_of_training_are_served() -> None:
    network, (found, user, _) = embeddings(), columns(2, 2)
    before = network.from_columns("user", found, user)
    padding = torch.zeros(2, 90, dtype=torch.int64)
    found["recent"] = torch.cat([found["recent"], padding], dim=1)
    assert torch.allclose(network.from_columns("user", found, user), before, atol=1e-6)


def test_a_side_without_features_is_zero_wide() -> None:
    network = Embeddings(Inputs((Lookup("item", "item", 4, offset=0),), (), {4: 10}))
    assert network.widths == (0, 4)
    assert network.from_columns("user", {}, torch.empty(3, 0)).shape == (3, 0)
