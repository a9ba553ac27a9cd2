"""A tensor normal prior over the tasks' towers, whose covariance of the tasks is learned.

Knows stacks of weights. Does not know what they are the weights of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from models.architecture import Particular, TaskTowers
from training.regularisers.regulariser import Regulariser, RegulariserOptions


class TensorNormalOptions(RegulariserOptions):
    """`strength`: of the prior, in the units of a batch's mean loss. `every`: steps between updates of the covariances.

    `eps`: added to their diagonals. Without it they could not be inverted, and with little of it the covariance of the
    inputs explains all by itself where a tower has fewer outputs than inputs.
    """

    kind: Literal["tensor_normal"] = "tensor_normal"
    strength: float = Field(default=1e-4, ge=0.0)
    every: int = Field(default=20, ge=1)
    eps: float = Field(default=0.3, gt=0.0)


@dataclass(frozen=True)
class Covariances:
    """Of one layer's weights W [d_in, d_out, K] ~ TN(0, S_in, S_out, S_task)."""

    s_in: Tensor
    s_out: Tensor
    s_task: Tensor

    @classmethod
    def identity(cls, shape: Sequence[int]) -> Self:
        """The covariances under which the prior is plain weight decay."""
        return cls(*(torch.eye(size) for size in shape))

    def energy(self, w: Tensor) -> Tensor:
        """1/2 vec(W)' (S_in x S_out x S_task)^-1 vec(W): solved side by side, never as one matrix."""
        return 0.5 * (w * whitened(w, (self.s_in, self.s_out, self.s_task))).sum()

    def log_determinant(self) -> Tensor:
        """1/2 log |S_in x S_out x S_task|."""
        factors = (self.s_in, self.s_out, self.s_task)
        size = len(self.s_in) * len(self.s_out) * len(self.s_task)
        return 0.5 * torch.stack([size / len(s) * torch.logdet(s) for s in factors]).sum()

    def updated(self, w: Tensor, eps: float) -> "Covariances":
        """One flip-flop: each covariance in turn, the most likely one given the other two (section 4.3).

        S_task = W_(3) (S_in x S_out)^-1 W_(3)' / (d_in d_out) + eps I, and likewise the other two.
        """
        found = [self.s_in, self.s_out, self.s_task]
        for mode, size in enumerate(w.shape):
            others = [None if i == mode else s for i, s in enumerate(found)]
            left, right = (x.movedim(mode, 0).flatten(1) for x in (w, whitened(w, others)))
            found[mode] = left @ right.t() * (size / w.numel()) + eps * torch.eye(size)
        return Covariances(*found)


class TensorNormal(Regulariser):
    """Deep Relationship Networks (Long et al. 2017, arXiv 1506.02117, section 4), layer by layer of the towers.

    Steps of the optimiser on W alternate with closed-form updates of the covariances, which start as identities.
    """

    options_type = TensorNormalOptions
    options: TensorNormalOptions
    architecture: TaskTowers
    needs = TaskTowers
    because = "its prior is over the towers of the tasks, and wants an architecture with one of one shape for each"

    def __init__(self, options: RegulariserOptions, architecture: Any, tasks: Sequence[str]) -> None:
        super().__init__(options, architecture, tasks)
        self.covariances = [Covariances.identity(w.shape) for w in self._weights()]
        self._steps = 0

    def penalty(self) -> Tensor:
        """Minus the log density of the prior, but for its constant: a scalar."""
        parts = [c.energy(w) + c.log_determinant() for c, w in zip(self.covariances, self._weights(), strict=True)]
        return self.options.strength * torch.stack(parts).sum()

    def after_step(self) -> None:
        """Every so many steps, the covariances of the weights as they are now."""
        self._steps += 1
        if self._steps % self.options.every == 0:
            self.covariances = self._updated()

    def tell(self) -> tuple[Particular, ...]:
        """The learned correlation of the tasks, for each layer of the towers as they were kept."""
        told = []
        for number, covariances in enumerate(self._updated(), start=1):
            rows = zip(self.tasks, correlation(covariances.s_task).tolist(), strict=True)
            text = "Learned with the weights: tasks whose towers point the same way correlate."
            table = tuple((task, *row) for task, row in rows)
            told.append(Particular(f"Task correlation, tower layer {number}", text, ("", *self.tasks), table, True))
        return tuple(told)

    def _updated(self) -> list[Covariances]:
        weights = [w.detach() for w in self._weights()]
        return [c.updated(w, self.options.eps) for c, w in zip(self.covariances, weights, strict=True)]

    def _weights(self) -> list[Tensor]:
        return [w.permute(1, 2, 0) for w in self.architecture.tower_weights()]


def whitened(w: Tensor, covariances: Sequence[Tensor | None]) -> Tensor:
    """W with the inverse of each covariance applied along its axis; None leaves an axis as it is."""
    for axis, s in enumerate(covariances):
        if s is not None:
            moved = w.movedim(axis, 0)
            w = torch.linalg.solve(s, moved.flatten(1)).view_as(moved).movedim(0, axis)
    return w


def correlation(covariance: Tensor) -> Tensor:
    """Covariance -> correlation.

    >>> correlation(torch.tensor([[4.0, 1.0], [1.0, 1.0]])).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    scale = covariance.diagonal().rsqrt()
    return covariance * scale * scale[:, None]
