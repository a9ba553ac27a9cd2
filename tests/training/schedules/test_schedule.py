"""What a schedule is: by itself it asks nothing of the architecture or the weighting, and has nothing to tell."""

from typing import TYPE_CHECKING, Any, Literal

import pytest
from pydantic import ValidationError

from models.architecture import Levels
from models.joint_many_task import JointManyTaskOptions
from models.mmoe import MMoEOptions
from models.registry import ARCHITECTURES
from training import choices, run
from training.choices import check_choices, name_of
from training.run import TrainingOptions
from training.schedules.schedule import Schedule, ScheduleOptions
from training.weightings.registry import WEIGHTINGS

if TYPE_CHECKING:
    from training.loop import Trainer


class PlainOptions(ScheduleOptions):
    """The least that a schedule may have."""

    kind: Literal["plain"] = "plain"


class Plain(Schedule):
    """One epoch."""

    options_type = PlainOptions

    def run(self, trainer: "Trainer") -> None:
        trainer.epoch(0)


class Demanding(Plain):
    """Wants levels."""

    needs = Levels
    because = "it climbs"


class OneByOne(Plain):
    """Trains one task at a time."""

    one_task = True


@pytest.mark.parametrize("tasks", [1, 2, 5])
@pytest.mark.parametrize("epochs", [1, 7])
def test_rows_are_visited_once_an_epoch_however_many_tasks_there_are(epochs: int, tasks: int) -> None:
    assert PlainOptions().epochs(epochs, tasks) == epochs


def test_it_keeps_its_options_and_tells_nothing() -> None:
    options = PlainOptions()
    schedule = Plain(options)
    assert schedule.options is options
    assert schedule.tell() == ()


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name_of)
def test_it_goes_with_every_architecture(architecture: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "SCHEDULES", (Plain,))
    assert issubclass(architecture, Plain.needs)
    check_choices(architecture.options_type.model_construct(), PlainOptions(), None)


def test_what_it_needs_is_demanded_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "SCHEDULES", (Demanding,))
    check_choices(JointManyTaskOptions(), PlainOptions(), None)
    with pytest.raises(ValueError, match=r"training.schedule 'plain' does not go with .*'mmoe': it climbs"):
        check_choices(MMoEOptions(), PlainOptions(), None)


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=name_of)
def test_only_one_that_trains_one_task_at_a_time_leaves_a_weighting_nothing_to_do(
    weighting: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = weighting.options_type()
    monkeypatch.setattr(run, "SCHEDULES", (Plain,))
    assert TrainingOptions(schedule=PlainOptions(), weighting=options).weighting == options
    monkeypatch.setattr(run, "SCHEDULES", (OneByOne,))
    if options.kind == "fixed":
        assert TrainingOptions(schedule=PlainOptions(), weighting=options).weighting == options
    else:
        with pytest.raises(ValidationError, match="trains one task at a time"):
            TrainingOptions(schedule=PlainOptions(), weighting=options)


@pytest.mark.parametrize("wrong", [{}, {"kind": "plain", "epoch": 1}])
def test_options_without_a_kind_or_with_an_unknown_key_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ScheduleOptions.model_validate(wrong)
