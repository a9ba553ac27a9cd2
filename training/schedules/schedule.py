"""What a schedule is: the order of a training's epochs.

Knows what a trainer can do. Does not know which schedules exist (`registry` lists them).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from contract.features import Frozen
from models.architecture import Architecture, Particular

if TYPE_CHECKING:
    from training.loop import Trainer


class ScheduleOptions(Frozen):
    """What a run file says under [training.schedule]. A subclass declares `kind: Literal["its name"]`."""

    kind: str

    def epochs(self, epochs: int, tasks: int) -> int:
        """How many times the training rows are visited at most, for a run of `epochs` epochs: for the progress bar."""
        return epochs


class Schedule:
    """A run whose architecture is not of the type `needs` is refused, saying `because`.

    A schedule that trains one task at a time leaves a weighting nothing to do: `one_task` has runs with another
    than the fixed one refused.
    """

    options_type: ClassVar[type[ScheduleOptions]]
    needs: ClassVar[type[Any]] = Architecture
    because: ClassVar[str] = ""
    one_task: ClassVar[bool] = False

    def __init__(self, options: ScheduleOptions) -> None:
        self.options = options

    @abstractmethod
    def run(self, trainer: Trainer) -> None:
        """Train, until `trainer.epoch` says that patience has run out or all epochs are done."""

    def tell(self) -> tuple[Particular, ...]:
        """What the card should say of it."""
        return ()
