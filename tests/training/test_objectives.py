"""Losses equal their formulas, stay finite at the ends, and only the entire space learns conversion from no click."""

from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from contract.tasks import CLICK_AND_CONVERSION, Task, ancestry
from models.separate_towers import SeparateTowers
from tests.models.small import build, own_pair
from training.loop import Loss
from training.objectives import (
    OBJECTIVES,
    Escm2Options,
    Objective,
    check_objective,
    entire_space,
    escm2_ips,
    independent,
    objective,
)
from training.run import TrainingOptions

Floats = NDArray[np.float64]
PAIR = ancestry(CLICK_AND_CONVERSION)
CHAIN = ancestry(
    (Task(name="a", label="a"), Task(name="b", label="b", given="a"), Task(name="c", label="c", given="b"))
)
FORK = ancestry((Task(name="a", label="a"), Task(name="b", label="b", given="a"), Task(name="c", label="c", given="a")))
trees = pytest.mark.parametrize("tree", [PAIR, CHAIN, FORK, ((0,), (1,))], ids=["pair", "chain", "fork", "apart"])


def rows(tree: Sequence[Sequence[int]], count: int = 200) -> tuple[Tensor, Tensor]:
    """Logits, and labels that hold only where those they are given do."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (count, len(tree)))
    happened = random.random(logits.shape) < 0.5
    labels = np.stack([happened[:, list(chain)].all(axis=1) for chain in tree], axis=1)
    return torch.tensor(logits), torch.tensor(labels, dtype=torch.float64)


def cross_entropy(p: Floats, y: Floats, weight: float) -> Floats:
    loss: Floats = -(weight * y * np.log(p) + (1 - y) * np.log1p(-p))
    return loss


def sigmoid(z: Tensor) -> Floats:
    p: Floats = 1 / (1 + np.exp(-z.numpy()))
    return p


@trees
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (2.0, 5.0, 0.5)])
def test_independent_is_cross_entropy_where_the_condition_holds(
    tree: Sequence[Sequence[int]], weights: tuple[float, ...]
) -> None:
    logits, labels = rows(tree)
    total, count = independent(logits, labels, tree, torch.tensor(weights[: len(tree)]))
    for k, chain in enumerate(tree):
        held = labels[:, chain[-2]].numpy() > 0 if len(chain) > 1 else np.ones(len(labels), bool)
        expected = cross_entropy(sigmoid(logits[:, k]), labels[:, k].numpy(), weights[k])[held]
        assert total[k].item() == pytest.approx(expected.sum())
        assert count[k].item() == held.sum()


@trees
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (2.0, 5.0, 0.5)])
def test_entire_space_is_cross_entropy_of_the_product_over_all_rows(
    tree: Sequence[Sequence[int]], weights: tuple[float, ...]
) -> None:
    logits, labels = rows(tree)
    total, count = entire_space(logits, labels, tree, torch.tensor(weights[: len(tree)]))
    for k, chain in enumerate(tree):
        product = np.prod([sigmoid(logits[:, i]) for i in chain], axis=0)
        assert total[k].item() == pytest.approx(cross_entropy(product, labels[:, k].numpy(), weights[k]).sum())
        assert count[k].item() == len(labels)


@trees
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (2.0, 5.0, 0.5)])
def test_escm2_adds_a_propensity_weighted_loss_and_a_joint_one(
    tree: Sequence[Sequence[int]], weights: tuple[float, ...]
) -> None:
    options = Escm2Options(counterfactual_weight=0.3, joint_weight=0.7, least_propensity=0.2)
    logits, labels = rows(tree)
    total, count = escm2_ips(logits, labels, tree, torch.tensor(weights[: len(tree)]), options)
    means, clipped = Loss.means(total, count), False
    for k, chain in enumerate(tree):
        y = labels[:, k].numpy()
        product = np.prod([sigmoid(logits[:, i]) for i in chain], axis=0)
        expected = cross_entropy(product, y, weights[k]).mean()
        if len(chain) > 1:
            held = labels[:, chain[-2]].numpy() > 0
            propensity = np.prod([sigmoid(logits[:, i]) for i in chain[:-1]], axis=0)[held]
            clipped = clipped or bool((propensity < 0.2).any())
            own = cross_entropy(sigmoid(logits[:, k]), y, weights[k])[held]
            expected = 0.3 * (own / np.maximum(propensity, 0.2)).mean() + 0.7 * expected
        assert means[k].item() == pytest.approx(expected)
    assert clipped == any(len(chain) > 1 for chain in tree)


def test_propensity_of_escm2_weighs_and_is_not_learned_through() -> None:
    options = Escm2Options(counterfactual_weight=1.0, joint_weight=0.0)
    logits = torch.tensor([[-1.0, 0.5], [-3.0, 0.5], [2.0, 0.5]], requires_grad=True)
    labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    total, _ = escm2_ips(logits, labels, PAIR, torch.ones(2), options)
    (gradient,) = torch.autograd.grad(total[:, 1].sum(), logits)
    assert gradient[:, 0].tolist() == [0.0, 0.0, 0.0]
    expected = torch.sigmoid(logits.detach()[:, 1]) / torch.sigmoid(logits.detach()[:, 0])
    assert gradient[:, 1].tolist() == pytest.approx([*expected[:2].tolist(), 0.0])


def test_escm2_without_its_propensity_term_is_the_entire_space() -> None:
    logits, labels = rows(CHAIN)
    ones, options = torch.ones(3), Escm2Options(counterfactual_weight=0.0)
    one = Loss.means(*escm2_ips(logits, labels, CHAIN, ones, options))
    assert torch.allclose(one, Loss.means(*entire_space(logits, labels, CHAIN, ones)))
    assert not torch.allclose(one, Loss.means(*escm2_ips(logits, labels, CHAIN, ones)), atol=1e-2)


def test_terms_of_two_batches_add_up_to_those_of_both() -> None:
    logits, labels = rows(CHAIN)
    ones = torch.ones(3)
    parts = [escm2_ips(logits[part], labels[part], CHAIN, ones) for part in (slice(0, 70), slice(70, 200))]
    total, count = (sum((part[i] for part in parts), torch.zeros(3)) for i in range(2))
    whole = Loss.means(*escm2_ips(logits, labels, CHAIN, ones))
    assert torch.allclose(Loss.means(total, count), whole)


def test_conversion_tower_of_esmm_learns_from_rows_without_a_click() -> None:
    """Ma et al. 2018, section 2.3; a model of clicked rows learns nothing from them."""
    for chosen, learns in ((entire_space, True), (independent, False)):
        network = build(SeparateTowers, tower=(8, 4))
        total, count = chosen(network(own_pair(64)), torch.zeros(64, 2), PAIR, torch.ones(2))
        torch.autograd.backward(Loss.means(total, count)[1])
        assert isinstance(network, SeparateTowers)
        for weight in (*network.towers.bank.weights, network.towers.weight):
            assert weight.grad is not None
            assert bool(weight.grad[1].any()) == learns


def test_each_task_has_its_own_rows_under_independent() -> None:
    """Tang et al. 2020, section 4.2.1, eq. 7: a task's loss is a mean over its own sample space."""
    logits, labels = rows(CHAIN)
    _, count = independent(logits, labels, CHAIN, torch.ones(3))
    assert count.tolist() == [200, labels[:, 0].sum(), labels[:, 1].sum()]
    logits.requires_grad_()
    means = Loss.means(*independent(logits, labels, CHAIN, torch.ones(3)))
    for k, held in enumerate((torch.ones(200), labels[:, 0], labels[:, 1])):
        (moved,) = torch.autograd.grad(means[k], logits, retain_graph=True)
        assert torch.equal(moved[:, k] != 0, held > 0)


def test_both_objectives_are_one_where_no_task_is_conditional() -> None:
    logits, labels = rows(((0,), (1,)))
    ones = torch.ones(2)
    for one, other in zip(
        independent(logits, labels, ((0,), (1,)), ones), entire_space(logits, labels, ((0,), (1,)), ones), strict=True
    ):
        assert torch.allclose(one, other)


def conversion_gradient(chosen: Objective, label: tuple[float, float]) -> float:
    """d loss / d conversion logit of one row."""
    logits = torch.zeros(1, 2, requires_grad=True)
    total, _ = chosen(logits, torch.tensor([label]), PAIR, torch.ones(2))
    total.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    return float(logits.grad[0, 1])


def test_conversion_learns_from_rows_without_a_click_in_the_entire_space_only() -> None:
    assert conversion_gradient(independent, (0.0, 0.0)) == 0.0
    assert conversion_gradient(entire_space, (0.0, 0.0)) == pytest.approx(
        1 / 6
    )  # p (1 - q) / (1 - p), p = 1/4, q = 1/2


@pytest.mark.parametrize("chosen", [independent, entire_space, escm2_ips])
def test_conversion_learns_from_clicked_rows(chosen: Objective) -> None:
    assert conversion_gradient(chosen, (1.0, 0.0)) > 0
    assert conversion_gradient(chosen, (1.0, 1.0)) < 0


@pytest.mark.parametrize("chosen", [independent, entire_space, escm2_ips])
@pytest.mark.parametrize("size", [20.0, 100.0, 1e4])
def test_losses_and_gradients_are_finite_at_the_ends(chosen: Objective, size: float) -> None:
    signs = torch.tensor([[a, b] for a in (-size, size) for b in (-size, size)], dtype=torch.float32)
    for label in ([0.0, 0.0], [1.0, 0.0], [1.0, 1.0]):
        logits = signs.clone().requires_grad_()
        total, _ = chosen(logits, torch.tensor([label] * 4), PAIR, torch.ones(2))
        total.sum().backward()  # type: ignore[no-untyped-call]
        assert torch.isfinite(total).all()
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()


def test_every_objective_of_the_run_file_is_listed() -> None:
    names = get_args(TrainingOptions.model_fields["objective"].annotation)
    assert [name for name, _ in OBJECTIVES] == list(names)
    assert objective("entire_space") is entire_space
    assert objective("independent") is independent
    assert objective("escm2_ips") is escm2_ips


def test_options_of_an_objective_reach_it_and_no_other_may_have_them() -> None:
    logits, labels = rows(PAIR)
    options = Escm2Options(counterfactual_weight=2.0)
    chosen = objective("escm2_ips", options)(logits, labels, PAIR, torch.ones(2))
    for one, other in zip(chosen, escm2_ips(logits, labels, PAIR, torch.ones(2), options), strict=True):
        assert torch.equal(one, other)
    check_objective("escm2_ips", options)
    check_objective("independent", None)
    with pytest.raises(ValueError, match="belongs to the objective"):
        check_objective("independent", options)
