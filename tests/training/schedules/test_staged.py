"""Staged: task by task from low to high; what lies above stands still, what lies below is held as firmly as asked."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from contract.errors import RunInvalid
from models.ranker import Ranker
from tests.training import small, three_tasks
from training import loop
from training.choices import name_of
from training.loop import Trainer
from training.run import TrainingOptions, parse_run
from training.schedules.staged import Staged, StagedOptions
from training.split import TRAIN, VALIDATION
from training.tensors import Tensors
from training.weightings.registry import WEIGHTINGS

ORDER = ["click", "cart", "purchase"]
CART, PURCHASE = 1, 2
HUGE = 1e30
Values = dict[str, Tensor]


@pytest.fixture(scope="module")
def funnel(tmp_path_factory: pytest.TempPathFactory) -> small.Prepared:
    """A log with a click, a cart and a purchase, and a network with a level for each."""
    model = {"architecture": "joint_many_task", "level": [8, 6], "label_dim": 3, "tower": [4]}
    return three_tasks.prepare(tmp_path_factory.mktemp("funnel"), three_tasks.CHAIN, 2000, **model)


def options_of(schedule: dict[str, Any], **options: Any) -> TrainingOptions:
    quick = {"batch_rows": 256, "learning_rate": 0.01, "embedding_learning_rate": 0.2, "epochs": 2}
    return TrainingOptions.model_validate(quick | options | {"schedule": {"kind": "staged"} | schedule})


class Watched(Trainer):
    """Remembers the network before and after each stage."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.stages: list[tuple[Values, Values]] = []

    def epoch(self, number: int, **options: Any) -> bool:
        before = self.values()
        stop = super().epoch(number, **options)
        self.stages.append((before, self.values()))
        return stop

    def values(self) -> Values:
        return {name: value.clone() for name, value in self.ranker.state_dict().items()}


def watched(
    log: small.Prepared, schedule: dict[str, Any], rows: Tensors | None = None, **options: Any
) -> list[tuple[Values, Values]]:
    """The values before and after every stage of a training."""
    torch.manual_seed(0)
    ranker, chosen = Ranker(log.fitted.inputs, log.run.model, 3), options_of(schedule, **options)
    trainer = Watched(
        ranker,
        log.tensors[TRAIN] if rows is None else rows,
        log.tensors[VALIDATION],
        log.run.tasks,
        chosen,
        seed=0,
        on_progress=small.nothing,
    )
    Staged(cast(StagedOptions, chosen.schedule)).run(trainer)
    assert all(parameter.requires_grad for parameter in ranker.parameters())
    return trainer.stages


def moved(stage: tuple[Values, Values], prefix: str) -> list[bool]:
    before, after = stage
    return [not torch.equal(before[name], after[name]) for name in before if name.startswith(prefix)]


def level(k: int) -> str:
    return f"architecture.levels.{k}."


def test_the_log_and_the_card_show_task_after_task_in_every_epoch(funnel: small.Prepared) -> None:
    torch.manual_seed(0)
    ranker, told = Ranker(funnel.fitted.inputs, funnel.run.model, 3), [0]
    rows, validation = funnel.tensors[TRAIN], funnel.tensors[VALIDATION]
    options = options_of({}, evaluations_per_epoch=2, patience=9)
    history = loop.train(ranker, rows, validation, funnel.run.tasks, options, seed=0, on_progress=told.append)
    (card,) = history.particulars
    assert [row[:3] for row in card.rows] == [
        (f"stage {3 * epoch + k + 1}", f"epoch {epoch + 1}", task) for epoch in range(2) for k, task in enumerate(ORDER)
    ]
    assert [evaluation.rows_seen for evaluation in history.evaluations][1::2] == [3 * len(rows), 6 * len(rows)]
    assert len(history.evaluations) == 4
    assert told[-1] == 6 * len(rows) == options.schedule.epochs(2, 3) * len(rows)


@pytest.mark.parametrize("objective", ["independent", "entire_space"])
def test_levels_above_a_stage_stand_still_whatever_momentum_they_have(objective: str, funnel: small.Prepared) -> None:
    stages = watched(funnel, {"delta": 0.0}, objective=objective, weight_decay=0.1)
    assert len(stages) == 6
    for number, stage in enumerate(stages):
        for k in range(3):
            own = moved(stage, level(k))
            assert all(own) if k == number % 3 else k < number % 3 or not any(own), f"level {k} in stage {number}"


def test_a_huge_delta_freezes_what_lies_below_exactly(funnel: small.Prepared) -> None:
    stages = watched(funnel, {"delta": HUGE})
    assert all(moved(stages[0], "embeddings.")), "nothing has been learned before the first stage"
    for number, stage in enumerate(stages[1:], start=1):
        assert not any(moved(stage, "embeddings."))
        assert not any(found for k in range(number % 3) for found in moved(stage, level(k)))
        assert all(moved(stage, level(number % 3)))


@pytest.mark.parametrize("objective", ["independent", "entire_space"])
def test_without_delta_what_lies_below_drifts(objective: str, funnel: small.Prepared) -> None:
    for number, stage in enumerate(watched(funnel, {"delta": 0.0}, objective=objective)):
        assert all(moved(stage, "embeddings."))
        assert all(found for k in range(number % 3) for found in moved(stage, level(k)))


def test_the_drift_falls_as_delta_grows_and_the_card_tells_it(funnel: small.Prepared) -> None:
    drifts = []
    for delta in (0.0, 1.0, 100.0, HUGE):
        torch.manual_seed(0)
        ranker, chosen = Ranker(funnel.fitted.inputs, funnel.run.model, 3), options_of({"delta": delta}, epochs=1)
        rows, validation = funnel.tensors[TRAIN], funnel.tensors[VALIDATION]
        trainer = Trainer(ranker, rows, validation, funnel.run.tasks, chosen, seed=0, on_progress=small.nothing)
        schedule = Staged(cast(StagedOptions, chosen.schedule))
        schedule.run(trainer)
        assert schedule.log == [(0, task) for task in ORDER]
        drifts.append([float(row[3]) for row in schedule.tell()[0].rows][1:])
    for weaker, stronger in itertools.pairwise(drifts):
        assert all(more > less for more, less in zip(weaker, stronger, strict=True))
    assert drifts[-1] == [0.0, 0.0]


def one_step(funnel: small.Prepared, **schedule: float) -> list[tuple[Values, Values]]:
    """Stages of one step each."""
    return watched(funnel, schedule, batch_rows=10**6, epochs=1)


def test_what_lies_below_is_pulled_back_by_the_closed_form(funnel: small.Prepared) -> None:
    delta = 7.0
    free, held = one_step(funnel, delta=0.0, weight_decay=0.0), one_step(funnel, delta=delta, weight_decay=0.0)
    (before, loose), (same, found) = free[CART], held[CART]
    for name, value in before.items():
        assert torch.equal(value, same[name])
        rate = {"embeddings": 0.2, "architecture": 0.01}[name.split(".")[0]]
        below = name.startswith(("embeddings.", level(0)))
        expected = value + (loose[name] - value) / (1 + 2 * rate * delta if below else 1.0)
        assert torch.allclose(found[name], expected, atol=1e-7), name


def test_the_penalty_on_weights_shrinks_those_of_the_level_in_training(funnel: small.Prepared) -> None:
    free, held = one_step(funnel, delta=0.0, weight_decay=0.0), one_step(funnel, delta=0.0, weight_decay=3.0)
    for name, value in free[0][1].items():
        shrunk = name.startswith(level(0)) and "bias" not in name
        assert torch.allclose(held[0][1][name], value / (1 + 2 * 0.01 * 3.0 if shrunk else 1.0), atol=1e-7), name


@pytest.mark.parametrize("objective", ["independent", "entire_space"])
def test_labels_of_a_task_matter_in_its_own_stage_only(objective: str, funnel: small.Prepared) -> None:
    rows = funnel.tensors[TRAIN]
    labels = rows.labels.copy()
    labels[:, PURCHASE] = 0
    others = dataclasses.replace(rows, labels=np.ascontiguousarray(labels))
    pair = [watched(funnel, {}, used, objective=objective, epochs=1) for used in (rows, others)]
    for number, (one, other) in enumerate(zip(*pair, strict=True)):
        assert all(torch.equal(one[1][name], other[1][name]) for name in one[1]) == (number != PURCHASE)


def test_an_error_in_a_stage_leaves_no_parameter_behind_without_gradient(funnel: small.Prepared) -> None:
    ranker, chosen = Ranker(funnel.fitted.inputs, funnel.run.model, 3), options_of({}, learning_rate=1e30)
    rows, validation = funnel.tensors[TRAIN], funnel.tensors[VALIDATION]
    trainer = Trainer(ranker, rows, validation, funnel.run.tasks, chosen, seed=0, on_progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        Staged(StagedOptions()).run(trainer)
    assert all(parameter.requires_grad for parameter in ranker.parameters())


def interrupt(_: int) -> None:
    """Somebody presses Ctrl-C."""
    raise KeyboardInterrupt


def document(architecture: str, **training: Any) -> small.Document:
    run = small.document(Path("log.parquet"))
    run["model"] = {"architecture": architecture}
    run["training"] |= {"schedule": {"kind": "staged"}} | training
    return run


def test_another_architecture_is_refused_with_the_reason() -> None:
    assert isinstance(parse_run(document("joint_many_task")).training.schedule, StagedOptions)
    with pytest.raises(RunInvalid, match=r"'staged' does not go with the architecture 'mmoe'.*joint_many_task"):
        parse_run(document("mmoe"))
    with pytest.raises(RunInvalid, match="its stages are the levels of an architecture that has one per task"):
        parse_run(document("ple"))


@pytest.mark.parametrize("weighting", [name_of(entry) for entry in WEIGHTINGS if name_of(entry) != "fixed"])
def test_another_weighting_than_the_fixed_one_is_refused_with_the_reason(weighting: str) -> None:
    words = f"'staged' trains one task at a time, which leaves the weighting '{weighting}' nothing to weigh"
    with pytest.raises(RunInvalid, match=words):
        parse_run(document("joint_many_task", weighting={"kind": weighting}))
