"""The overlap of a task's two subspaces, which sluice networks keep small.

Knows stacks of weights. Does not know what they are the weights of.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from models.architecture import Subspaces
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

    def penalty(self) -> Tensor:
        """A scalar."""
        return self.options.strength * torch.stack([overlap(w) for w in self.architecture.subspace_weights()]).sum()


def overlap(weights: Tensor) -> Tensor:
    """[T, S, in, out] -> the sum of ||G_k1' G_k2||_F^2 over the tasks; 0 for S = 1.

    >>> overlap(torch.eye(4).view(1, 2, 2, 4).transpose(2, 3)).item()
    0.0
    """
    if weights.shape[1] == 1:
        return weights.new_zeros(())
    one, other = weights.unbind(dim=1)
    return (one.transpose(1, 2) @ other).square().sum()
