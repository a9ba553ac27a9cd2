"""The distance between the tasks' networks, which soft sharing keeps small.

Knows stacks of weights. Does not know what they are the weights of.
"""

import itertools
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from models.architecture import Particular, TaskNetworks
from training.regularisers.regulariser import Regulariser, RegulariserOptions


class DistanceOptions(RegulariserOptions):
    """`strength`: lambda. `norm`: squared Frobenius distance of every two tasks, or the trace norm of all at once."""

    kind: Literal["distance"] = "distance"
    strength: float = Field(default=1e-2, ge=0.0)
    norm: Literal["frobenius", "trace"] = "frobenius"


class Distance(Regulariser):
    """lambda sum over layers of the distance of the tasks' weights; towers are left out.

    `frobenius` (Duong et al. 2015, section 4): sum_{j<k} ||W^j - W^k||_F^2. `trace` (Yang and Hospedales 2017,
    arXiv 1606.04038): the sum of the singular values of the matrix [T, in * out] whose rows are the tasks' weights,
    which is least when the tasks' weights span few directions.
    """

    options_type = DistanceOptions
    options: DistanceOptions
    architecture: TaskNetworks
    needs = TaskNetworks
    because = "it compares the networks of the tasks, and wants an architecture with one of one shape for each"

    def penalty(self) -> Tensor:
        """A scalar."""
        measure = frobenius if self.options.norm == "frobenius" else trace
        return self.options.strength * torch.stack([measure(w) for w in self.architecture.network_weights()]).sum()

    def tell(self) -> tuple[Particular, ...]:
        """How far the networks of every two tasks are apart, layer by layer."""
        layers = [weights.detach().flatten(1) for weights in self.architecture.network_weights()]
        rows: tuple[tuple[str | float, ...], ...] = tuple(
            (f"{one} and {other}", *(apart(w[j], w[k]) for w in layers))
            for (j, one), (k, other) in itertools.combinations(enumerate(self.tasks), 2)
        )
        text = "Distance of the weights over their size: 0 is one network for both, 1.41 two with nothing in common."
        columns = ("", *(f"layer {n}" for n in range(1, len(layers) + 1)))
        return (Particular("Distance of the tasks' networks", text, columns, rows),)


def frobenius(weights: Tensor) -> Tensor:
    """[T, ...] -> the summed squared distance of every two of the T.

    >>> frobenius(torch.tensor([[0.0], [1.0], [3.0]])).item()
    14.0
    """
    pairs = itertools.combinations(weights.unbind(), 2)
    return torch.stack([weights.new_zeros(()), *((a - b).square().sum() for a, b in pairs)]).sum()


def apart(a: Tensor, b: Tensor) -> float:
    """||a - b|| over the root of the mean of ||a||^2 and ||b||^2.

    >>> round(apart(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0])), 2)
    1.41
    """
    size = ((a.square().sum() + b.square().sum()) / 2).clamp(min=1e-30)
    return ((a - b).square().sum() / size).sqrt().item()


def trace(weights: Tensor) -> Tensor:
    """[T, ...] -> the sum of the singular values of the matrix whose T rows are the weights.

    >>> round(trace(torch.tensor([[3.0, 4.0], [3.0, 4.0]])).item(), 4)
    7.0711
    """
    stacked = weights.flatten(1)
    if not stacked.isfinite().all():  # training has diverged, which the loop says better than the decomposition
        return stacked.sum()
    norm: Tensor = torch.linalg.matrix_norm(stacked, "nuc")
    return norm
