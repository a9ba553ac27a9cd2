"""Joint training: all tasks in every epoch, one epoch after another, until patience runs out."""

import dataclasses
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from contract.tasks import CLICK_AND_CONVERSION
from models.ranker import Ranker
from tests.training import small
from training.loop import Trainer
from training.run import TrainingOptions
from training.schedules.joint import Joint, JointOptions
from training.split import TRAIN, VALIDATION
from training.tensors import Tensors


@dataclass
class Patient:
    """A trainer of so many epochs whose patience runs out in the epoch `stops_in`, and that notes what it is told."""

    epochs: int
    stops_in: int | None = None
    told: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    @property
    def options(self) -> SimpleNamespace:
        return SimpleNamespace(epochs=self.epochs)

    def epoch(self, number: int, **options: Any) -> bool:
        self.told.append((number, options))
        return number == self.stops_in


def numbers(epochs: int, stops_in: int | None) -> list[int]:
    """The epochs that are trained."""
    trainer = Patient(epochs, stops_in)
    Joint(JointOptions()).run(cast(Trainer, trainer))
    return [number for number, _ in trainer.told]


@pytest.mark.parametrize(
    ("epochs", "stops_in", "expected"),
    [(1, None, [0]), (4, None, [0, 1, 2, 3]), (4, 0, [0]), (4, 2, [0, 1, 2]), (4, 3, [0, 1, 2, 3]), (2, 5, [0, 1])],
)
def test_epochs_count_from_zero_and_end_with_the_last_or_with_patience(
    epochs: int, stops_in: int | None, expected: list[int]
) -> None:
    assert numbers(epochs, stops_in) == expected


def test_every_epoch_is_of_all_tasks_and_judged() -> None:
    trainer = Patient(epochs=3)
    Joint(JointOptions()).run(cast(Trainer, trainer))
    defaults = {"only": None, "judged": True, "after_step": None}
    assert [defaults | options for _, options in trainer.told] == [defaults] * 3


def test_a_second_run_begins_anew() -> None:
    schedule, trainer = Joint(JointOptions()), Patient(epochs=2)
    for _ in range(2):
        schedule.run(cast(Trainer, trainer))
    assert [number for number, _ in trainer.told] == [0, 1, 0, 1]


def after(log: small.Prepared, rows: Tensors, epochs: int) -> tuple[Trainer, dict[str, Tensor]]:
    """A trainer at the end of the schedule, and its network."""
    torch.manual_seed(0)
    ranker, options = Ranker(log.fitted.inputs, log.run.model, 2), TrainingOptions(epochs=epochs, batch_rows=128)
    validation = log.tensors[VALIDATION]
    trainer = Trainer(ranker, rows, validation, CLICK_AND_CONVERSION, options, seed=0, on_progress=small.nothing)
    Joint(JointOptions()).run(trainer)
    return trainer, ranker.state_dict()


def test_every_row_is_visited_once_an_epoch_and_every_epoch_judged_once(prepared: small.Prepared) -> None:
    rows = prepared.tensors[TRAIN]
    trainer, _ = after(prepared, rows, epochs=3)
    assert (trainer.visits, trainer.seen) == (3, 3 * len(rows))
    assert [evaluation.rows_seen for evaluation in trainer.keeper.evaluations] == [
        visits * len(rows) for visits in (1, 2, 3)
    ]


@pytest.mark.parametrize("task", [0, 1])
def test_the_labels_of_every_task_move_the_network(task: int, prepared: small.Prepared) -> None:
    rows = prepared.tensors[TRAIN]
    labels = rows.labels.copy()
    labels[:, task] = 1 - labels[:, task]
    (_, one), (_, other) = (
        after(prepared, used, epochs=1) for used in (rows, dataclasses.replace(rows, labels=labels))
    )
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_it_tells_the_card_nothing() -> None:
    assert Joint(JointOptions()).tell() == ()


@pytest.mark.parametrize("wrong", [{"kind": "staged"}, {"kind": "joint", "delta": 1.0}])
def test_options_of_another_schedule_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        JointOptions.model_validate(wrong)
