"""Tables, pooling, and the two ways to a side's vector: training's matrices and serving's columns."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from contract.features import MISSING_ROW, UNKNOWN_ROW
from models.embeddings import Embeddings, pool
from models.inputs import Inputs, Lookup
from models.layers import Steps, Widths
from tests.models.small import INPUTS, columns, encoded

SEQUENCE = Lookup("recent", "user", 4, offset=10, length=5)
PADDING = SEQUENCE.offset + MISSING_ROW
MAIN, ALONG = "recent_items", "recent_actions"  # of INPUTS


def embeddings(seed: int = 0, steps: str | None = None) -> Embeddings:
    """With tables that differ in every row, the missing and unknown ones too."""
    torch.manual_seed(seed)
    found = Embeddings(INPUTS, steps=steps)
    with torch.no_grad():
        for table in found.tables.values():
            table.normal_()
    return found


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("steps", [None, MAIN])
def test_serving_computes_what_training_does(rows: int, steps: str | None) -> None:
    network, (found, user, item) = embeddings(steps=steps), columns(rows, rows)
    trained = network.from_rows(batch := encoded(found, user, item), network.look_up(batch.ids))
    served = network.from_columns("user", found, user), network.from_columns("item", found, item)
    for one, other, width in zip(trained[:2], served, network.widths[:2], strict=True):
        assert one.shape == other.shape == (rows, width)
        assert torch.allclose(one, other, rtol=0, atol=1e-6)


def test_a_sides_vector_holds_values_and_means_by_width_then_numbers() -> None:
    network, (found, user, item) = embeddings(), columns(1, 1)
    three, four = (network.tables[str(dim)].detach() for dim in (3, 4))
    recent = [row for row in found["recent_items"][0].tolist() if row != 0]
    mean = torch.stack([four[row] for row in recent]).mean(dim=0)
    actions = torch.stack([three[row] for row in found["recent_actions"][0].tolist() if row != 50]).mean(dim=0)
    values = [three[found["user"][0]], actions, four[found["city"][0]], four[found["device"][0]]]
    expected = torch.cat([*values, mean, network.user_numbers(user)[0]])
    assert torch.allclose(network.from_columns("user", found, user)[0], expected, atol=1e-6)
    assert torch.equal(network.from_columns("item", found, item)[0, :3], three[found["brand"][0]])


def test_shared_features_read_one_table() -> None:
    network, (found, user, item) = embeddings(), columns(1, 1)
    found["item"], found["recent_items"] = torch.tensor([7]), torch.tensor([[7]])
    as_user, as_item = network.from_columns("user", found, user), network.from_columns("item", found, item)
    assert torch.equal(as_user[0, 14:18], network.tables["4"][7])
    assert any(torch.equal(as_item[0, i : i + 4], network.tables["4"][7]) for i in range(as_item.shape[1] - 3))


def test_missing_and_unknown_rows_start_neutral_and_all_others_do_not() -> None:
    network = Embeddings(INPUTS)
    for dim, table in network.tables.items():
        offsets = {lookup.offset for lookup in INPUTS.lookups if lookup.dim == int(dim)}
        neutral = {offset + row for offset in offsets for row in (MISSING_ROW, UNKNOWN_ROW)}
        assert {row for row in range(len(table)) if not table[row].any()} == neutral


def test_tables_of_one_width_are_one_parameter() -> None:
    network = Embeddings(INPUTS)
    assert {name: tuple(table.shape) for name, table in network.tables.items()} == {"3": (60, 3), "4": (50, 4)}
    assert len(list(network.parameters())) == 2


def test_gradient_touches_the_rows_looked_up_and_no_padding() -> None:
    network, (found, user, _) = embeddings(), columns(7, 7)
    found["recent_items"][:, 3:] = MISSING_ROW  # the table's own padding
    torch.autograd.backward(network.from_columns("user", found, user).sum())
    values = {*found["city"].tolist(), *found["device"].tolist()}
    touched = values | {*found["recent_items"].flatten().tolist()} - {MISSING_ROW}
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
    found["recent_items"] = torch.cat([found["recent_items"], padding], dim=1)
    assert torch.allclose(network.from_columns("user", found, user), before, atol=1e-6)


def both_steps(rows: int) -> tuple[Embeddings, dict[str, Tensor], Steps, Steps]:
    network, (found, user, item) = embeddings(steps=MAIN), columns(rows, rows)
    trained = network.from_rows(batch := encoded(found, user, item), network.look_up(batch.ids)).steps
    served = network.steps_from_columns(found)
    assert trained is not None and served is not None
    return network, found, trained, served


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_steps_are_the_table_rows_of_the_sequence_and_of_those_along_it(rows: int) -> None:
    network, found, trained, served = both_steps(rows)
    for steps in (trained, served):
        assert torch.equal(steps.values, network.tables["4"][found[MAIN]])
        assert torch.equal(steps.properties, network.tables["3"][found[ALONG]])
        assert torch.equal(steps.present, found[MAIN] != MISSING_ROW)


def test_a_missing_property_does_not_take_its_step_away() -> None:
    network, found, _, _ = both_steps(7)
    found[ALONG][:] = 50  # all are missing
    steps = network.steps_from_columns(found)
    assert steps is not None
    assert torch.equal(steps.present, found[MAIN] != MISSING_ROW)


def test_what_is_given_in_steps_is_not_pooled_into_the_users_vector() -> None:
    network, found, user, _ = embeddings(steps=MAIN), *columns(7, 7)
    whole, widths = embeddings().widths, network.widths
    assert widths == Widths(whole.user - 7, whole.item, 4, 3)
    before = network.from_columns("user", found, user)
    assert before.shape == (7, widths.user)
    others = found | {name: found[name].flip(0) for name in (MAIN, ALONG)}
    assert torch.equal(network.from_columns("user", others, user), before)


def test_sequence_without_properties_has_steps_of_its_own_only() -> None:
    network = Embeddings(Inputs((Lookup("recent", "user", 4, offset=0, length=5),), (), {4: 10}), steps="recent")
    assert network.widths == Widths(0, 0, 4, 0)
    steps = network.steps_from_columns({"recent": torch.ones(2, 3, dtype=torch.int64)})
    assert steps is not None
    assert [part.shape for part in steps] == [(2, 3, 4), (2, 3, 0), (2, 3)]


def test_without_a_sequence_to_give_in_steps_there_are_none() -> None:
    network, (found, user, item) = embeddings(), columns(2, 2)
    batch = encoded(found, user, item)
    assert network.from_rows(batch, network.look_up(batch.ids)).steps is None
    assert network.steps_from_columns(found) is None


@pytest.mark.parametrize("length", [1, 2, 90])
def test_steps_of_any_number_are_served(length: int) -> None:
    network, (found, _, _) = embeddings(steps=MAIN), columns(2, 2)
    cut = {name: torch.cat([found[name]] * 18, dim=1)[:, :length] for name in (MAIN, ALONG)}
    steps = network.steps_from_columns(found | cut)
    assert steps is not None
    assert [part.shape for part in steps] == [(2, length, 4), (2, length, 3), (2, length)]


def test_steps_are_given_in_one_copy_only_and_of_a_sequence_there_is() -> None:
    with pytest.raises(ValueError, match="one copy only"):
        Embeddings(INPUTS, 2, steps=MAIN)
    for name in ("city", "nothing"):
        with pytest.raises(KeyError, match=name):
            Embeddings(INPUTS, steps=name)


def test_a_side_without_features_is_zero_wide() -> None:
    network = Embeddings(Inputs((Lookup("item", "item", 4, offset=0),), (), {4: 10}))
    assert network.widths == Widths(0, 4)
    assert network.from_columns("user", {}, torch.empty(3, 0)).shape == (3, 0)
