"""Branching: a tree that computes what it says, and is split without changing its output."""

from typing import Any

import pytest
import torch
from torch import Tensor

from models.architecture import Partition
from models.branching import Branching
from models.layers import Bank, Pair
from models.shared_bottom import SharedBottom
from tests.models.small import build, own_pair, repeated, shared_pair

TRUNK = (7, 6, 5)
ONE, TWO, EACH = ((0, 1, 2, 3),), ((0, 2), (1, 3)), ((0,), (1,), (2,), (3,))
STEPS: tuple[tuple[int, Partition], ...] = ((2, ((0, 2), (1,), (3,))), (1, TWO), (0, TWO))


def network(tasks: int = 4, **options: Any) -> Branching:
    found = build(Branching, tasks=tasks, **{"trunk": TRUNK, "tower": (3,)} | options)
    assert isinstance(found, Branching)
    return found


def grown() -> Branching:
    tree = network()
    for layer, partition in STEPS:
        tree.branch(layer, partition)
    return tree


def bank(tree: Branching, layer: int) -> Bank:
    found = tree.trunk[layer - 1]
    assert isinstance(found, Bank)
    return found


def reference(tree: Branching, x: Pair, task: int) -> Tensor:
    """A task's way through the tree: in each layer, the branch that has it. -> logits [N]."""

    def own(layer: int) -> int:
        return next(i for i, group in enumerate(tree.branches(layer)) if task in group)

    first = slice(own(0) * TRUNK[0], (own(0) + 1) * TRUNK[0])
    joined = torch.cat([tree.first.user, tree.first.item], dim=1)[first]
    h = (torch.cat(repeated(x)[:2], dim=1) @ joined.t() + tree.first.bias[first]).relu()
    for layer in range(1, tree.layers()):
        h = (h @ bank(tree, layer).weights[0][own(layer)] + bank(tree, layer).biases[0][own(layer)]).relu()
    tower = tree.towers
    h = (h @ tower.bank.weights[0][task] + tower.bank.biases[0][task]).relu()
    logits: Tensor = h @ tower.weight[task] + tower.bias[task]
    return logits.squeeze(1)


def shaken(tree: Branching) -> Branching:
    """With weights that differ between branches, as training makes them."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in tree.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return tree


def test_one_trunk_is_a_shared_bottom() -> None:
    tree, bottom, x = network(), build(SharedBottom, tasks=4, seed=1, trunk=TRUNK, tower=(3,)), own_pair(9)
    names = {"first.user", "first.item", "first.bias"} | {n for n, _ in tree.named_parameters() if "towers" in n}
    state = {name: value for name, value in tree.state_dict().items() if name in names}
    for layer in (1, 2):
        state |= {f"trunk.weights.{layer - 1}": bank(tree, layer).weights[0].detach()}
        state |= {f"trunk.biases.{layer - 1}": bank(tree, layer).biases[0].detach()}
    bottom.load_state_dict(state)
    assert torch.equal(tree(x), bottom(x))


def test_each_split_leaves_the_output_as_it_was() -> None:
    tree, x = shaken(network()), shared_pair(3, 9)
    before = tree(x)
    for layer, partition in STEPS:
        tree.branch(layer, partition)
        assert tree.branches(layer) == partition
        assert torch.allclose(tree(x), before, rtol=0, atol=1e-6)


def test_branches_split_again_from_what_they_have_become() -> None:
    tree, x = network(), shared_pair(3, 9)
    tree.branch(2, TWO)
    before = shaken(tree)(x)
    tree.branch(2, EACH)
    assert torch.allclose(tree(x), before, rtol=0, atol=1e-6)


def test_every_task_takes_its_own_way_through_the_tree() -> None:
    tree, x = shaken(grown()), shared_pair(3, 9)
    found = tree(x)
    for task in range(4):
        assert torch.allclose(found[:, task], reference(tree, x, task), rtol=0, atol=1e-6)


@pytest.mark.parametrize("task", range(4))
def test_a_task_moves_the_branches_on_its_way_and_no_other(task: int) -> None:
    tree = shaken(grown())
    torch.autograd.backward(tree(own_pair(256))[:, task].sum())
    for parameter in tree.first.parameters():
        assert parameter.grad is not None
        moved = [bool(part.any()) for part in torch.split(parameter.grad, TRUNK[0])]
        assert moved == [task in group for group in tree.branches(0)]
    for layer in (1, 2):
        for parameter in bank(tree, layer).parameters():
            assert parameter.grad is not None
            assert [bool(part.any()) for part in parameter.grad] == [task in group for group in tree.branches(layer)]


@pytest.mark.parametrize(
    ("layer", "partition"),
    [
        (2, ((0, 1), (2,))),  # a task is lost
        (2, ((0, 1), (1, 2), (3,))),  # a task is in two
        (1, TWO),  # the layer above has one branch, which cannot grow from two
        (2, ((0, 1, 2, 3, 4),)),
    ],
)
def test_what_is_no_tree_is_refused_and_changes_nothing(layer: int, partition: Partition) -> None:
    tree, x = network(), own_pair(5)
    before = tree(x)
    with pytest.raises(ValueError, match="do not grow"):
        tree.branch(layer, partition)
    assert tree.branches(layer) == ONE
    assert torch.equal(tree(x), before)


def test_branches_never_merge() -> None:
    tree = grown()
    for layer, partition in ((1, ONE), (2, TWO), (2, ((0, 1), (2,), (3,)))):
        with pytest.raises(ValueError, match="do not grow"):
            tree.branch(layer, partition)


def test_a_wide_net_has_wide_layers_and_the_same_towers() -> None:
    wide = network().wide(3)
    assert wide.options.trunk == tuple(3 * width for width in TRUNK)
    assert wide.options.tower == (3,)
    assert wide(own_pair(5)).shape == (5, 4)


def test_a_thin_net_has_the_units_chosen_of_the_wide_one_in_every_layer() -> None:
    """Units that are not chosen are silenced in the wide net: then both compute the same."""
    thin, wide, x = network(), shaken(network().wide(2)), own_pair(9)
    chosen = [list(range(1, 2 * width, 2)) for width in TRUNK]
    answers, asked = iter(chosen), []

    def choose(weight: Tensor, kept: int) -> list[int]:
        asked.append((tuple(weight.shape), kept))
        return next(answers)

    thin.thin_from(wide, choose)
    assert asked == [((14, 12), 7), ((12, 7), 6), ((10, 6), 5)]
    with torch.no_grad():
        for parameter in wide.first.parameters():
            parameter[0::2] = 0
        for layer in (1, 2):
            bank(wide, layer).weights[0][:, :, 0::2] = 0
            bank(wide, layer).biases[0][:, 0::2] = 0
    assert torch.allclose(thin(x), wide(x), rtol=0, atol=1e-6)


def test_the_card_tells_the_tree_from_the_towers_down() -> None:
    (told,) = grown().tell(own_pair(3), ["click", "cart", "buy", "share"])
    assert told.rows == (
        ("layer 3", 3, "click, buy | cart | share"),
        ("layer 2", 2, "click, buy | cart, share"),
        ("layer 1", 2, "click, buy | cart, share"),
    )
