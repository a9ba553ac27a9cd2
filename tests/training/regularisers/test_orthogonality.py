"""The overlap of two subspaces, and that training with the penalty makes it smaller."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contract.tasks import CLICK_AND_CONVERSION
from models.ranker import Ranker
from models.sluice import Sluice, SluiceOptions
from tests.models.small import build
from tests.training import small
from training import loop
from training.regularisers.orthogonality import Orthogonality, OrthogonalityOptions, overlap
from training.run import TrainingOptions
from training.split import TRAIN, VALIDATION


def test_penalty_equals_numpy() -> None:
    network = build(Sluice, trunk=(8, 8))
    assert isinstance(network, Sluice)
    expected = 0.0
    for layer in network.subspace_weights():
        for one, other in layer.detach().numpy().astype(np.float64):
            expected += float(np.linalg.norm(one.T @ other)) ** 2
    prior = Orthogonality(OrthogonalityOptions(strength=0.25), network, ["a", "b"])
    assert prior.penalty().item() == pytest.approx(0.25 * expected, rel=1e-5)


def test_one_subspace_has_no_overlap() -> None:
    assert overlap(torch.ones(2, 1, 3, 4)).item() == 0


def test_overlap_falls_with_the_penalty(tmp_path: Path) -> None:
    log = small.prepare(small.document(small.write(tmp_path / "log.parquet", small.columns())), tmp_path)

    def trained(strength: float) -> float:
        torch.manual_seed(0)
        ranker = Ranker(log.fitted.inputs, SluiceOptions(trunk=(8, 8), tower=(4,)), 2)
        keys: dict[str, Any] = {"batch_rows": 64, "epochs": 4, "learning_rate": 0.01, "threads": 1}
        options = TrainingOptions.model_validate(
            keys | {"regulariser": {"kind": "orthogonality", "strength": strength}}
        )
        rows = log.tensors[TRAIN], log.tensors[VALIDATION]
        loop.train(ranker, *rows, CLICK_AND_CONVERSION, options, seed=0, on_progress=small.nothing)
        assert isinstance(ranker.architecture, Sluice)
        return sum(float(overlap(w.detach())) for w in ranker.architecture.subspace_weights())

    assert trained(0.1) < 0.5 * trained(0.0)
