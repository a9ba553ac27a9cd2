"""All tasks at once, epoch after epoch.

Knows the number of epochs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from training.schedules.schedule import Schedule, ScheduleOptions

if TYPE_CHECKING:
    from training.loop import Trainer


class JointOptions(ScheduleOptions):
    """The plain order."""

    kind: Literal["joint"] = "joint"


class Joint(Schedule):
    """Every step minimises the losses of all tasks."""

    options_type = JointOptions

    def run(self, trainer: Trainer) -> None:
        """Epochs until patience runs out."""
        for epoch in range(trainer.options.epochs):
            if trainer.epoch(epoch):
                return
