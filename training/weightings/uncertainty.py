"""Weights that learn how noisy each task is (Kendall, Gal & Cipolla, CVPR 2018, section 3.2).

Knows losses and one free number per task. Does not know what a loss is made of.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.architecture import Particular
from training.weightings.weighting import Weighting, WeightingOptions


class UncertaintyOptions(WeightingOptions):
    """`learning_rate` of the s_k, the dense parameters' if absent; `cap`, the largest exp(-s_k) that is allowed."""

    kind: Literal["uncertainty"] = "uncertainty"
    learning_rate: float | None = Field(default=None, gt=0.0)
    cap: float | None = Field(default=None, ge=1.0)


class Uncertainty(Weighting):
    """L = sum_k w_k (exp(-s_k) L_k + s_k / 2), s_k = log sigma_k^2 free in sign and 0 at first (eq. 7 and 10).

    For a loss that stays as it is, s_k goes to log(2 L_k), so that the weight exp(-s_k) goes to 1 / (2 L_k): every
    task comes to weigh the same, whatever the size of its loss. The s_k are learned without weight decay.

    NOTE[DIFF]: the run's `task_weights` w_k multiply both terms. On L_k alone they would do nothing, since s_k would
    take them back; on both, they say how much a task matters once all have the same size, and 0 leaves it out.
    NOTE[DIFF]: with a `cap`, s_k is put back to -log(cap) before each step that finds it below. It bounds what a task
    of very small loss may do to the step size of the others; without it, nothing is bounded, as in the paper.
    """

    options_type = UncertaintyOptions
    options: UncertaintyOptions

    def __init__(self, options: UncertaintyOptions, base: Tensor, tasks: Sequence[str]) -> None:
        super().__init__(options, base, tasks)
        self.log_variance = nn.Parameter(torch.zeros(len(tasks)))
        self._history: list[list[float]] = []

    def learning_rate(self, dense: float) -> float:
        """Its own, or that of the dense parameters."""
        return self.options.learning_rate or dense

    def start_epoch(self, epoch: int) -> None:
        """Take note of the weights."""
        self._history.append(self.weights().tolist())

    @torch.no_grad()
    def weights(self) -> Tensor:
        """What multiplies each task's loss at present: [T]."""
        if self.options.cap:
            self.log_variance.clamp_(min=-math.log(self.options.cap))
        return self.base * torch.exp(-self.log_variance)

    def backward(self, losses: Tensor, penalty: Tensor | None, leaves: Sequence[Tensor]) -> Tensor:
        """One backward pass of the weighted sum; returned are the losses by `task_weights`, which can be compared."""
        self.weights()  # holds the cap
        total = (self.base * (torch.exp(-self.log_variance) * losses + self.log_variance / 2)).sum()
        (total if penalty is None else total + penalty).backward()  # type: ignore[no-untyped-call]
        return (self.base * losses.detach()).sum()

    def tell(self) -> tuple[Particular, ...]:
        """The weights before the first epoch, between epochs, and at the end."""
        rows: list[tuple[str | float, ...]] = [
            (f"before epoch {number}", *weights) for number, weights in enumerate(self._history, start=1)
        ]
        text = "What multiplies each task's loss: learned, and for a loss that stands still 1 / (2 loss)."
        told = (*rows, ("at the end", *self.weights().tolist()))
        return (Particular("Task weights over time", text, ("", *self.tasks), told),)
