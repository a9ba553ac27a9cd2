"""Deep relationship networks: the prior is the dense one, and its covariances say how tasks are related."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.architecture import TaskTowers
from models.ranker import Ranker
from models.shared_bottom import SharedBottom, SharedBottomOptions
from tests.models.small import build
from tests.training import small
from training import loop
from training.regularisers.tensor_normal import Covariances, TensorNormal, TensorNormalOptions, correlation, whitened
from training.run import TrainingOptions
from training.split import TRAIN, VALIDATION


def positive(size: int, seed: int) -> torch.Tensor:
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(seed))
    return root @ root.t() + torch.eye(size)


@pytest.fixture
def case() -> tuple[torch.Tensor, Covariances]:
    w = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(9))
    return w, Covariances(positive(3, 1), positive(2, 2), positive(2, 3))


def test_penalty_equals_the_dense_kronecker_value(case: tuple[torch.Tensor, Covariances]) -> None:
    w, c = case
    dense = np.kron(np.kron(c.s_in.numpy(), c.s_out.numpy()), c.s_task.numpy()).astype(np.float64)
    vector = w.numpy().astype(np.float64).ravel()
    assert c.energy(w).item() == pytest.approx(0.5 * vector @ np.linalg.solve(dense, vector), rel=1e-4)
    assert c.log_determinant().item() == pytest.approx(0.5 * np.linalg.slogdet(dense)[1], rel=1e-4)


def test_updates_are_the_closed_form(case: tuple[torch.Tensor, Covariances]) -> None:
    w, c = case
    found, eps = c.updated(w, eps=0.01), 0.01
    unfolded = [
        w.numpy().astype(np.float64).transpose(mode).reshape(n, -1)
        for mode, n in (((0, 1, 2), 3), ((1, 0, 2), 2), ((2, 0, 1), 2))
    ]
    s = [x.numpy().astype(np.float64) for x in (c.s_in, c.s_out, c.s_task)]
    for mode, others in ((0, (1, 2)), (1, (0, 2)), (2, (0, 1))):
        inverse = np.linalg.inv(np.kron(s[others[0]], s[others[1]]))
        sizes = s[others[0]].shape[0] * s[others[1]].shape[0]
        s[mode] = unfolded[mode] @ inverse @ unfolded[mode].T / sizes + eps * np.eye(len(s[mode]))
    for ours, expected in zip((found.s_in, found.s_out, found.s_task), s, strict=True):
        assert np.allclose(ours.numpy(), expected, rtol=1e-3)


def test_identities_make_it_weight_decay() -> None:
    network = build(SharedBottom)
    prior = TensorNormal(TensorNormalOptions(strength=0.3), network, ["a", "b"])
    expected = sum(0.15 * w.detach().square().sum().item() for w in network.tower_weights())  # type: ignore[operator]
    assert prior.penalty().item() == pytest.approx(expected, rel=1e-5)


def test_penalty_sums_energy_and_log_determinant_over_the_layers_of_the_towers() -> None:
    network = build(SharedBottom)
    prior = TensorNormal(TensorNormalOptions(strength=0.3, every=1), network, ["a", "b"])
    prior.after_step()
    weights = [w.detach().permute(1, 2, 0) for w in network.tower_weights()]  # type: ignore[operator]
    parts = [c.energy(w) + c.log_determinant() for c, w in zip(prior.covariances, weights, strict=True)]
    assert prior.penalty().item() == pytest.approx(0.3 * sum(part.item() for part in parts), rel=1e-5)
    assert len(parts) > 1 and all(c.log_determinant().abs() > 1 for c in prior.covariances)


def test_an_axis_without_a_covariance_is_left_as_it_is(case: tuple[torch.Tensor, Covariances]) -> None:
    w, c = case
    assert torch.equal(whitened(w, (None, None, None)), w)
    assert torch.allclose(
        whitened(w, (None, c.s_out, None)), torch.einsum("ab,ibk->iak", c.s_out.inverse(), w), atol=1e-5
    )


def test_covariances_are_updated_every_so_many_steps_only() -> None:
    prior = TensorNormal(TensorNormalOptions(every=3), build(SharedBottom), ["a", "b"])
    changed = []
    for _ in range(4):
        prior.after_step()
        changed.append(not torch.equal(prior.covariances[0].s_task, torch.eye(2)))
    assert changed == [False, False, True, True]


class Linear(torch.nn.Module, TaskTowers):
    """Three tasks, each a layer of linear units on the same inputs, and no trunk."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = torch.nn.Parameter(0.1 * torch.randn(3, 6, 4))

    def tower_weights(self) -> list[torch.Tensor]:
        return [self.weight]


def test_two_equal_tasks_correlate_and_a_random_one_does_not() -> None:
    network, random = Linear(), torch.Generator().manual_seed(1)
    prior = TensorNormal(TensorNormalOptions(strength=1e-4, every=5, eps=0.3), network, ["one", "same", "random"])
    x, truth = torch.randn(500, 6, generator=random), torch.randn(6, 4, generator=random)
    planted = ((x @ truth).sigmoid() > torch.rand(500, 4, generator=random)).float()
    labels = torch.stack([planted, planted, torch.randint(0, 2, (500, 4), generator=random).float()])
    optimiser = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(400):
        logits = torch.einsum("nd,kdo->kno", x, network.weight)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
        optimiser.zero_grad()
        torch.autograd.backward(loss + prior.penalty())
        optimiser.step()
        prior.after_step()
    found = correlation(prior.covariances[0].s_task)
    assert found[0, 1] > 0.9, found
    assert found[2, :2].abs().max() < 0.3, found


def test_card_of_a_run_tells_the_learned_correlation(tmp_path: Path) -> None:
    log = small.prepare(small.document(small.write(tmp_path / "log.parquet", small.columns())), tmp_path)
    keys = {"objective": "independent", "batch_rows": 64, "threads": 1, "regulariser": {"kind": "tensor_normal"}}
    ranker = Ranker(log.fitted.inputs, SharedBottomOptions(trunk=(8,), tower=(4,)), 2)
    rows, options = (log.tensors[TRAIN], log.tensors[VALIDATION]), TrainingOptions.model_validate(keys | {"epochs": 3})
    told = loop.train(ranker, *rows, log.run.tasks, options, seed=0, on_progress=small.nothing).particulars
    assert [one.title for one in told] == [f"Task correlation, tower layer {layer}" for layer in (1, 2)]
    assert [row[0] for row in told[0].rows] == ["click", "conversion"]
    assert 0 < abs(float(told[0].rows[0][2])) < 1


def test_card_is_of_the_weights_as_they_are_and_not_of_an_earlier_step() -> None:
    network = Linear()
    prior = TensorNormal(TensorNormalOptions(every=1000), network, ["one", "same", "random"])
    network.weight.data[1] = network.weight.data[0]
    (told,) = prior.tell()
    w = network.weight.detach().permute(1, 2, 0)
    expected = correlation(Covariances.identity(w.shape).updated(w, prior.options.eps).s_task)
    assert float(told.rows[0][2]) == pytest.approx(float(expected[0, 1]))
    assert float(told.rows[0][2]) > 0
    assert torch.equal(prior.covariances[0].s_task, torch.eye(3)), "telling changes nothing"


def test_correlation_of_a_covariance() -> None:
    found = correlation(positive(4, 5))
    assert torch.allclose(found.diagonal(), torch.ones(4))
    assert found.abs().max() <= 1 + 1e-6
