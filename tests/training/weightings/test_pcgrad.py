"""PCGrad equals a dense version in numpy, and is the plain sum where nothing conflicts."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from contract.tasks import CLICK_AND_CONVERSION
from models.ranker import Ranker
from models.shared_bottom import SharedBottomOptions
from tests.training import small
from training.loop import train
from training.run import TrainingOptions
from training.split import TRAIN, VALIDATION
from training.weightings.pcgrad import PCGrad, PCGradOptions, project

Floats = NDArray[np.float64]


def dense(gradients: Floats, orders: list[list[int]]) -> Floats:
    """Algorithm 1, coordinate by coordinate."""
    found = []
    for i, order in enumerate(orders):
        own = gradients[i].copy()
        for j in order:
            product = float(np.dot(own, gradients[j]))
            if j != i and product < 0:
                own = own - product / float(np.dot(gradients[j], gradients[j])) * gradients[j]
        found.append(own)
    return np.array(found)


def leaves() -> list[Tensor]:
    """A matrix, a vector that the first task does not read, and one that nobody does."""
    random = torch.Generator().manual_seed(3)
    return [torch.randn(size, generator=random, dtype=torch.float64).requires_grad_() for size in ((2, 3), (4,), (2,))]


def losses(found: list[Tensor]) -> Tensor:
    matrix, vector, _ = found
    return torch.stack([matrix.square().sum(), (vector - 1).square().sum() - 3 * matrix.sum(), -matrix.sum()])


def weighting(tasks: int = 3) -> PCGrad:
    torch.manual_seed(5)
    base = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)[:tasks]
    return PCGrad(PCGradOptions(), base, ["a", "b", "c"][:tasks])


@pytest.mark.parametrize("seed", range(5))
def test_projections_are_those_of_a_dense_version(seed: int) -> None:
    gradients = np.random.default_rng(seed).normal(size=(4, 3))
    again = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(4, generator=again).tolist() for _ in range(4)]
    found = project(torch.tensor(gradients), torch.Generator().manual_seed(seed)).numpy()
    assert np.allclose(found, dense(gradients, orders), atol=1e-12)
    assert not np.allclose(found, gradients, atol=1e-3), "something conflicts"


def test_gradients_of_all_leaves_are_one_vector() -> None:
    found, pcgrad = leaves(), weighting()
    again = torch.Generator().manual_seed(5)
    orders = [torch.randperm(3, generator=again).tolist() for _ in range(3)]
    rows = []
    for k in range(3):
        gradients = torch.autograd.grad(pcgrad.base[k] * losses(found)[k], found[:2], materialize_grads=True)
        rows.append(torch.cat([part.flatten() for part in gradients]).numpy())
    value = pcgrad.backward(losses(found), found[0].sum(), found)
    expected = dense(np.array(rows), orders).sum(axis=0)
    expected[:6] += 1.0  # the penalty's, which is projected on nothing
    assert found[0].grad is not None and found[1].grad is not None and found[2].grad is None
    assert np.allclose(torch.cat([found[0].grad.flatten(), found[1].grad]).numpy(), expected, atol=1e-12)
    assert value.item() == pytest.approx((pcgrad.base * losses(found)).sum().item())


def test_without_conflict_it_is_the_plain_sum() -> None:
    found = leaves()
    aligned = torch.stack([found[0].sum(), found[0].sum() + found[1].sum(), found[1].sum()])
    weighting().backward(aligned, None, found)
    assert found[0].grad is not None and found[1].grad is not None
    assert torch.allclose(found[0].grad, torch.full((2, 3), 1.5, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(found[1].grad, torch.full((4,), 2.5, dtype=torch.float64), atol=1e-12)


def test_a_projected_gradient_does_no_harm_to_the_other_of_two_tasks() -> None:
    gradients = torch.tensor([[1.0, 0.2], [-1.0, 1.0]])
    one, other = project(gradients, torch.Generator())
    assert one @ gradients[1] == pytest.approx(0.0, abs=1e-6)
    assert other @ gradients[0] == pytest.approx(0.0, abs=1e-6)


def test_a_task_without_rows_changes_nothing() -> None:
    gradients = torch.tensor([[1.0, 0.2], [0.0, 0.0]])
    assert torch.equal(project(gradients, torch.Generator()), gradients)


def test_the_order_is_random_and_follows_the_seed() -> None:
    gradients = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    one, again, other = (project(gradients, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other, atol=1e-3)


def test_it_trains_and_tells_how_often_tasks_were_in_conflict(prepared: small.Prepared) -> None:
    keys = {"objective": "independent", "epochs": 4, "batch_rows": 64, "weighting": {"kind": "pcgrad"}}
    options = TrainingOptions.model_validate(keys)
    torch.manual_seed(0)
    ranker = Ranker(prepared.fitted.inputs, SharedBottomOptions(trunk=(8,), tower=(4,)), 2)
    rows, validation = prepared.tensors[TRAIN], prepared.tensors[VALIDATION]
    history = train(ranker, rows, validation, CLICK_AND_CONVERSION, options, seed=0, on_progress=small.nothing)
    assert history.evaluations[1].train_loss < history.evaluations[0].train_loss
    (told,) = history.particulars
    (_, click, share), (_, mirrored, conversion) = told.rows
    assert (click, conversion) == (0.0, 0.0)
    assert share == mirrored and isinstance(share, float) and 0 < share < 1
