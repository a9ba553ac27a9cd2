"""The loop trains any funnel: a chain of three steps, or three tasks side by side, with every objective."""

import numpy as np
import pytest
import torch

from models.ranker import Ranker
from tests.training import small, three_tasks
from training import loop
from training.calibration import identity, probabilities
from training.loop import predict_logits
from training.metrics import auc, pcoc
from training.objectives import OBJECTIVES
from training.run import TrainingOptions
from training.split import TEST, TRAIN, VALIDATION

FUNNELS = {"chain": three_tasks.CHAIN, "apart": three_tasks.APART}


@pytest.fixture(scope="module", params=FUNNELS)
def funnel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> small.Prepared:
    """A log whose rows have three labels, with the tasks in a chain or each for itself."""
    return three_tasks.prepare(tmp_path_factory.mktemp(request.param), FUNNELS[request.param], 8000)


@pytest.mark.parametrize("objective", [name for name, _ in OBJECTIVES])
def test_every_step_of_the_funnel_is_learned(objective: str, funnel: small.Prepared) -> None:
    torch.manual_seed(0)
    tasks, (rows, validation, test) = funnel.run.tasks, (funnel.tensors[i] for i in (TRAIN, VALIDATION, TEST))
    ranker = Ranker(funnel.fitted.inputs, funnel.run.model, len(tasks))
    options = TrainingOptions.model_validate(
        {"objective": objective, "epochs": 3, "batch_rows": 256, "embedding_learning_rate": 0.2, "learning_rate": 0.01}
    )
    history = loop.train(ranker, rows, validation, tasks, options, seed=0, on_progress=small.nothing)
    assert history.evaluations[history.best].validation_loss < history.evaluations[0].train_loss
    found = probabilities(tasks, predict_logits(ranker, test), identity(tasks))
    given = np.ones(len(test), dtype=bool)
    for k, task in enumerate(tasks):
        happened = test.labels[:, k] > 0
        assert auc(happened, found[f"p_{task.name}"]) > 0.6
        assert pcoc(happened, found[f"p_{task.name}"]) == pytest.approx(1, abs=0.2)
        if task.given:
            assert auc(happened[given], found[f"p_{task.name}_given_{task.given}"][given]) > 0.6
        given = happened
