"""What a regulariser is: a penalty on the weights of an architecture that has them in the shape it needs.

Knows architectures by what they can do. Does not know which regularisers exist (`registry` lists them).
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from contract.features import Frozen
from models.architecture import Particular


class RegulariserOptions(Frozen):
    """What a run file says under [training.regulariser]. A subclass declares `kind: Literal["its name"]`."""

    kind: str


class Regulariser:
    """Built for one architecture, which is of the type `needs` (a run with another is refused, saying `because`)."""

    options_type: ClassVar[type[RegulariserOptions]]
    needs: ClassVar[type[Any]]
    because: ClassVar[str]

    def __init__(self, options: RegulariserOptions, architecture: Any, tasks: Sequence[str]) -> None:
        self.options, self.architecture, self.tasks = options, architecture, tuple(tasks)

    @abstractmethod
    def penalty(self) -> Tensor:
        """The scalar that is added to the loss of every step."""

    def after_step(self) -> None:
        """Told after every step."""

    def tell(self) -> tuple[Particular, ...]:
        """What the card should say of it."""
        return ()
