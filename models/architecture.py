"""What an architecture is: the multi-task body between the embedded pair and one logit per task.

Knows the shape of the problem. Does not know which architectures exist (`models/registry.py` lists them).
"""

from abc import abstractmethod
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor, nn

from contract.features import Frozen
from models.layers import Pair, Widths

Layers = Annotated[tuple[Annotated[int, Field(ge=1, le=65536)], ...], Field(min_length=1, max_length=16)]


class Options(Frozen):
    """What a run file says under [model]. A subclass declares `architecture: Literal["its name"]`."""

    architecture: str
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)


class Architecture(nn.Module):
    """A body: Pair -> logits [N, T] of P(task | given), in the order of the tasks.

    A subclass lives in a file of its own, declares its `Options`, and takes them in its constructor together
    with the input's widths and the number of tasks. Its first linear layers are `PairLinear`.
    """

    options_type: ClassVar[type[Options]]

    def __init__(self, options: Options, widths: Widths, tasks: int) -> None:
        super().__init__()
        self.options, self.widths, self.tasks = options, widths, tasks

    @abstractmethod
    def forward(self, x: Pair) -> Tensor:
        """Pair -> logits [N, T]."""
