"""The overlap of a task's two subspaces, which sluice networks keep small.

Knows stacks of weights. Does not know what they are the weights of.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from models.architecture import Particular, Subspaces
from training.regularisers.regulariser import Regulariser, RegulariserOptions


class OrthogonalityOptions(RegulariserOptions):
    """`strength`: c."""

    kind: Literal["orthogonality"] = "orthogonality"
    strength: float = Field(default=1e-3, ge=0.0)


class Orthogonality(Regulariser):
    """c sum over tasks and layers of ||G_k1' G_k2||_F^2 (Ruder et al. 2017, arXiv 1705.08142, eq. 4).

    With one subspace there is nothing to keep apart, and the penalty is 0.
    """

    options_type = OrthogonalityOptions
    options: OrthogonalityOptions
    architecture: Subspaces
    needs = Subspaces
    because = "it keeps a task's subspaces apart, and wants an architecture that has them"

    def __init__(self, options: OrthogonalityOptions, architecture: Subspaces, tasks: Sequence[str]) -> None:
        super().__init__(options, architecture, tasks)
        self._start = self.overlaps().detach()

    def penalty(self) -> Tensor:
        """A scalar."""
        return self.options.strength * self.overlaps().sum()

    def overlaps(self) -> Tensor:
        """By layer and task [L, T]."""
        return torch.stack([overlap(weights) for weights in self.architecture.subspace_weights()])

    def tell(self) -> tuple[Particular, ...]:
        """The overlaps, before and after training."""
        pairs = torch.stack([self._start, self.overlaps().detach()], dim=2).transpose(0, 1).tolist()
        rows = tuple(
            (f"{task}, layer {n}", *values)
            for task, layers in zip(self.tasks, pairs, strict=True)
            for n, values in enumerate(layers, start=1)
        )
        text = "Squared norm of the product of two subspaces' weights: 0 where they read nothing in common."
        return (Particular("Overlap of subspaces", text, ("", "untrained", "trained"), rows),)


def overlap(weights: Tensor) -> Tensor:
    """[T, S, in, out] -> ||G_k1' G_k2||_F^2 of each task [T]; 0 for S = 1.

    >>> overlap(torch.eye(4).view(1, 2, 2, 4).transpose(2, 3)).tolist()
    [0.0]
    """
    if weights.shape[1] == 1:
        return weights.new_zeros(len(weights))
    one, other = weights.unbind(dim=1)
    return (one.transpose(1, 2) @ other).square().sum(dim=(1, 2))
