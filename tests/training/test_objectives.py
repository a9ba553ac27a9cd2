"""Losses equal their formulas, stay finite at the ends, and only the entire space learns conversion from no click."""

from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from contract.tasks import CLICK_AND_CONVERSION, Task, ancestry
from training.objectives import OBJECTIVES, Objective, entire_space, independent, objective
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


@pytest.mark.parametrize("chosen", [independent, entire_space])
def test_conversion_learns_from_clicked_rows(chosen: Objective) -> None:
    assert conversion_gradient(chosen, (1.0, 0.0)) > 0
    assert conversion_gradient(chosen, (1.0, 1.0)) < 0


@pytest.mark.parametrize("chosen", [independent, entire_space])
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
