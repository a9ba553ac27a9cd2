"""Orthogonality: what two subspaces read in common costs, and costs less the longer it is trained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contract.errors import RunInvalid
from models.sluice import Sluice, SluiceOptions
from tests.models.learning import trained, untrained
from tests.models.small import TASKS, build
from tests.training import small
from training.regularisers.orthogonality import Orthogonality, OrthogonalityOptions
from training.run import parse_run

NAMES = ("click", "conversion")
SMALL: dict[str, Any] = {"trunk": (12, 12), "tower": (3,)}


def regulariser(sluice: Any, strength: float = 1.0) -> Orthogonality:
    return Orthogonality(OrthogonalityOptions(strength=strength), sluice, NAMES)


def dense(sluice: Sluice) -> float:
    """The paper's sum over tasks, layers and pairs of subspaces, from the parameters themselves."""
    first = np.concatenate([sluice.first.user.detach().numpy(), sluice.first.item.detach().numpy()], axis=1)
    layers = [np.stack(np.split(first, TASKS * 2)).transpose(0, 2, 1)]
    layers += [next(bank.parameters()).detach().numpy() for bank in sluice.layers]
    pairs = [(parts[2 * task], parts[2 * task + 1]) for parts in layers for task in range(TASKS)]
    return sum(float(np.linalg.norm(one.T @ other)) ** 2 for one, other in pairs)


def test_penalty_equals_the_dense_sum() -> None:
    sluice = build(Sluice, **SMALL)
    assert isinstance(sluice, Sluice)
    expected = dense(sluice)
    assert expected > 1.0
    for strength in (0.0, 0.3):
        assert regulariser(sluice, strength).penalty().item() == pytest.approx(strength * expected, rel=1e-5)


def test_one_subspace_overlaps_with_nothing() -> None:
    assert regulariser(build(Sluice, subspaces=1, **SMALL)).penalty().item() == 0.0


def test_every_layer_of_every_task_feels_the_penalty_and_nothing_else_does() -> None:
    sluice = build(Sluice, **SMALL)
    torch.autograd.backward(regulariser(sluice).penalty())
    felt = {"first.user", "first.item", "layers.0.weights.0"}
    for name, parameter in sluice.named_parameters():
        parts = [] if parameter.grad is None else [bool(part.any()) for part in parameter.grad.chunk(TASKS)]
        assert parts == ([True] * TASKS if name in felt else []), name


def overlap(strength: float | None) -> float:
    """The subspaces' overlap after training with this strength; before it without one."""
    options = SluiceOptions(**SMALL)
    if strength is None:
        return regulariser(untrained(options).architecture).penalty().item()
    ranker, _ = trained(options, regulariser={"kind": "orthogonality", "strength": strength})
    return regulariser(ranker.architecture).penalty().item()


def test_overlap_falls_in_training_the_more_the_stronger_the_penalty() -> None:
    start, free, weak, strong = (overlap(strength) for strength in (None, 0.0, 0.01, 1.0))
    assert strong < weak < free
    assert weak < 0.9 * start
    assert strong < 0.05 * start


def test_card_tells_the_overlap_before_and_after() -> None:
    _, history = trained(SluiceOptions(**SMALL), regulariser={"kind": "orthogonality"})
    (told,) = history.particulars
    assert [row[0] for row in told.rows] == [f"{task}, layer {n}" for task in NAMES for n in (1, 2)]
    assert all(float(row[1]) > float(row[2]) for row in told.rows)
    assert sum(float(row[1]) for row in told.rows) == pytest.approx(overlap(None), rel=1e-5)


def test_architecture_without_subspaces_is_refused_with_the_reason() -> None:
    run = small.document(Path("log.parquet"))
    run["training"] |= {"regulariser": {"kind": "orthogonality"}}
    with pytest.raises(
        RunInvalid, match=r"'orthogonality' does not go with .* 'separate_towers'.*subspaces.*\(sluice\)"
    ):
        parse_run(run)
