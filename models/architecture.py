"""What an architecture is: the multi-task body between the embedded pair and one logit per task.

Knows the shape of the problem. Does not know which architectures exist (`models/registry.py` lists them).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

from pydantic import Field
from torch import Tensor, nn

from contract.features import Frozen
from models.layers import Pair, Widths

Width = Annotated[int, Field(ge=1, le=65536)]
Layers = Annotated[tuple[Width, ...], Field(min_length=1, max_length=16)]


@dataclass(frozen=True)
class Particular:
    """What a part of the model has to tell on the card: a table, `shaded` by its numbers if they are shares."""

    title: str
    text: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]
    shaded: bool = False


class Options(Frozen):
    """What a run file says under [model]. A subclass declares `architecture: Literal["its name"]`."""

    architecture: str
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)

    def copies(self, tasks: int) -> int:
        """How many embeddings of each value the architecture reads: 1, or one a task."""
        return 1

    @property
    def steps(self) -> str | None:
        """Name of the user's sequence whose steps the architecture reads one by one; it reads one copy then."""
        return None


class Architecture(nn.Module):
    """A body: Pair -> logits [N, T] of P(task | given), in the order of the tasks.

    A subclass lives in a file of its own, declares its `Options`, and takes them in its constructor together
    with the input's widths and the number of tasks. Its first linear layers are `PairLinear`. Where it asks for
    several copies of the embeddings, they stand side by side in the pair (`models.layers.split_pair`).
    """

    options_type: ClassVar[type[Options]]

    def __init__(self, options: Options, widths: Widths, tasks: int) -> None:
        super().__init__()
        self.options, self.widths, self.tasks = options, widths, tasks

    @abstractmethod
    def forward(self, x: Pair) -> Tensor:
        """Pair -> logits [N, T]."""

    def rates(self) -> list[tuple[nn.Parameter, float]]:
        """Parameters whose learning rate is a multiple of the others', with that multiple."""
        return []

    def tell(self, x: Pair, tasks: Sequence[str]) -> tuple[Particular, ...]:
        """What the card should say of this network on these rows, which are some of the validation split."""
        return ()


class TaskNetworks(ABC):
    """An architecture with a network of one shape per task, below the towers."""

    @abstractmethod
    def network_weights(self) -> list[Tensor]:
        """For each layer of the networks, the tasks' weights [T, in, out]."""


class TaskTowers(ABC):
    """An architecture with a tower of one shape per task."""

    @abstractmethod
    def tower_weights(self) -> list[Tensor]:
        """For each layer of the towers, the logit's included, the tasks' weights [T, in, out]."""


Partition = tuple[tuple[int, ...], ...]
Choose = Callable[[Tensor, int], Sequence[int]]


class Growing(ABC):
    """An architecture whose layers are branches in a tree, each of some tasks, which can be split while it is trained.

    Layers count from the input. A layer's branches are a partition of the tasks, finer than that of the layer below.
    """

    tasks: int

    @abstractmethod
    def layers(self) -> int:
        """How many layers can be branched."""

    @abstractmethod
    def branches(self, layer: int) -> Partition:
        """The tasks of each branch of a layer."""

    @abstractmethod
    def branch(self, layer: int, partition: Partition) -> None:
        """Split a layer's branches; the new ones start as copies, so that the output stays what it is.

        Its parameters are new ones afterwards, which an optimiser has to be told.
        Raises: ValueError when the tree would be none.
        """

    @abstractmethod
    def wide(self, factor: int) -> Self:
        """A new network, unbranched, whose branchable layers are `factor` times as wide."""

    @abstractmethod
    def thin_from(self, wide: Self, choose: Choose) -> None:
        """Take the weights of some units of a wide network, both unbranched.

        `choose` picks the units of a layer: weights [units, inputs] and how many to keep -> their numbers.
        """


class Subspaces(ABC):
    """An architecture whose layers are cut into subspaces for each task."""

    @abstractmethod
    def subspace_weights(self) -> list[Tensor]:
        """For each layer, the weights of each task's subspaces [T, S, in, out]."""


class Levels(ABC):
    """An architecture with a level per task, each of which reads the level of the task before."""

    @abstractmethod
    def level_parameters(self, k: int) -> list[nn.Parameter]:
        """All parameters of level k, and of no other."""

    @abstractmethod
    def level_weights(self, k: int) -> list[nn.Parameter]:
        """Those of them that are weight matrices."""
