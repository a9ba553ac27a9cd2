"""What holds for every schedule of the registry."""

from models.registry import ARCHITECTURES
from training.schedules.joint import JointOptions
from training.schedules.registry import SCHEDULES


def test_every_schedule_has_an_architecture_to_work_on() -> None:
    for entry in SCHEDULES:
        assert any(issubclass(architecture, entry.needs) for architecture in ARCHITECTURES)


def test_joint_training_visits_the_rows_once_an_epoch() -> None:
    assert JointOptions().epochs(7, tasks=3) == 7
