"""What a weighting is: from the tasks' losses to the gradients of one step.

Knows losses and leaves. Does not know which weightings exist (`training/weightings/registry.py` lists them).
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from contract.features import Frozen
from models.architecture import Particular


class WeightingOptions(Frozen):
    """What a run file says under [training.weighting]. A subclass declares `kind: Literal["its name"]`."""

    kind: str


class Weighting(nn.Module):
    """Its parameters, if it has any, learn beside the network's, without decay.

    `base` [T] are the run's `task_weights`; `tasks` their names.
    """

    options_type: ClassVar[type[WeightingOptions]]
    base: Tensor

    def __init__(self, options: WeightingOptions, base: Tensor, tasks: Sequence[str]) -> None:
        super().__init__()
        self.options, self.tasks = options, tuple(tasks)
        self.register_buffer("base", base)

    @abstractmethod
    def backward(self, losses: Tensor, penalty: Tensor | None, leaves: Sequence[Tensor]) -> Tensor:
        """Leave gradients in `leaves` (the dense parameters and the looked-up rows); return the loss, penalty apart.

        losses [T]: the tasks' mean losses of a batch. penalty: a regulariser's scalar, in no task's account.
        """

    def learning_rate(self, dense: float) -> float:
        """The step size of its own parameters; `dense` is that of the network's dense parameters."""
        return dense

    def start_epoch(self, epoch: int) -> None:
        """Told before each epoch, from 0."""

    def tell(self) -> tuple[Particular, ...]:
        """What the card should say of it."""
        return ()
