"""Uncertainty weighting finds 1 / (2 loss), whatever the loss, and composes with the rest."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from contract.errors import RunInvalid
from contract.tasks import CLICK_AND_CONVERSION
from models.ranker import Ranker
from tests.training import small
from training.choices import entry_of
from training.loop import Optimiser, train
from training.run import TrainingOptions, parse_run
from training.schedules.registry import SCHEDULES
from training.split import TRAIN, VALIDATION
from training.weightings.uncertainty import Uncertainty, UncertaintyOptions


def weighting(base: tuple[float, ...] = (1.0, 1.0), **options: Any) -> Uncertainty:
    return Uncertainty(UncertaintyOptions(**options), torch.tensor(base), [f"task{k}" for k in range(len(base))])


def settled(found: Uncertainty, losses: Tensor) -> list[float]:
    """The weights after many steps on losses that stay as they are."""
    descent = torch.optim.Adam(found.parameters(), 0.05)
    for _ in range(600):
        found.backward(losses, None, [])
        descent.step()
        descent.zero_grad()
    return found.weights().tolist()


def test_frozen_losses_are_weighed_by_half_their_reciprocal() -> None:
    found = weighting((1.0, 1.0, 1.0))
    losses = torch.tensor([0.16, 0.004, 3.0])
    assert settled(found, losses) == pytest.approx([3.125, 125.0, 1 / 6], rel=1e-3)
    assert found.log_variance.tolist() == pytest.approx([math.log(2 * x) for x in losses.tolist()], abs=1e-3)


def test_weights_start_at_one_so_that_the_first_step_is_that_of_fixed_weights() -> None:
    x = torch.ones(2, requires_grad=True)
    value = weighting((1.0, 3.0)).backward(x * 2, x.sum(), [x])
    assert value.item() == 8.0, "comparable with the validation loss: neither s nor the penalty is in it"
    assert x.grad is not None and x.grad.tolist() == [3.0, 7.0]


def test_task_weights_multiply_what_is_learned_and_zero_leaves_a_task_alone() -> None:
    found = weighting((1.0, 4.0, 0.0))
    assert settled(found, torch.tensor([0.16, 0.16, 0.16])) == pytest.approx([3.125, 4 * 3.125, 0.0], rel=1e-3)
    assert found.log_variance[2].item() == 0.0


def test_a_cap_bounds_the_weight_and_lets_go_when_the_loss_rises() -> None:
    found = weighting(cap=10.0)
    assert settled(found, torch.tensor([0.004, 0.16])) == pytest.approx([10.0, 3.125], rel=1e-3)
    assert settled(found, torch.tensor([0.25, 0.16])) == pytest.approx([2.0, 3.125], rel=1e-3)


def test_learned_weights_have_a_step_size_of_their_own_and_no_decay(prepared: small.Prepared) -> None:
    for own, expected in ((None, 0.001), (0.5, 0.5)):
        found, ranker = weighting(learning_rate=own), Ranker(prepared.fitted.inputs, prepared.run.model, 2)
        optimiser = Optimiser(ranker, TrainingOptions(weight_decay=0.1, learning_rate=0.001), found)
        groups = {id(x): group for group in optimiser.adam.param_groups for x in group["params"]}
        assert (groups[id(found.log_variance)]["lr"], groups[id(found.log_variance)]["weight_decay"]) == (expected, 0)
        assert all((groups[id(x)]["lr"], groups[id(x)]["weight_decay"]) == (0.001, 0.1) for x in optimiser.dense)


def test_it_composes_with_ple_in_the_entire_space_and_tells_its_weights(prepared: small.Prepared) -> None:
    run = {"architecture": "ple", "levels": 2, "private": 1, "shared": 1, "expert": [8], "tower": [4]}
    options = {"epochs": 3, "batch_rows": 32, "weighting": {"kind": "uncertainty", "learning_rate": 0.1}}
    model = parse_run(small.document(prepared.run.target) | {"model": run}).model
    torch.manual_seed(0)
    ranker = Ranker(prepared.fitted.inputs, model, 2)
    chosen = TrainingOptions.model_validate(options)
    rows, validation = prepared.tensors[TRAIN], prepared.tensors[VALIDATION]
    history = train(ranker, rows, validation, CLICK_AND_CONVERSION, chosen, seed=0, on_progress=small.nothing)
    (told,) = history.particulars
    assert told.columns == ("", "click", "conversion")
    assert [row[0] for row in told.rows] == [*(f"before epoch {k}" for k in (1, 2, 3)), "at the end"]
    assert told.rows[0][1:] == (1.0, 1.0)
    click, conversion = told.rows[-1][1:]
    assert isinstance(click, float) and isinstance(conversion, float)
    assert conversion > 1.1 * click, "the joint loss is the smaller one"


def test_it_is_refused_where_one_task_is_trained_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = small.document(Path("log.parquet"))
    keys["training"]["weighting"] = {"kind": "uncertainty"}
    parse_run(keys)
    monkeypatch.setattr(entry_of(SCHEDULES, TrainingOptions().schedule), "one_task", True)
    with pytest.raises(RunInvalid, match="leaves the weighting 'uncertainty' nothing to weigh"):
        parse_run(keys)
