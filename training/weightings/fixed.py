"""Weights that do not learn: the run's `task_weights`, which may grow or fade from epoch to epoch.

Knows weights. Does not know gradients.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.architecture import Particular
from training.weightings.weighting import Weighting, WeightingOptions


class FixedOptions(WeightingOptions):
    """`growth`: the factor of a task's weight from each epoch to the next, by its name; 1 for the others."""

    kind: Literal["fixed"] = "fixed"
    growth: dict[str, Annotated[float, Field(gt=0.0)]] = Field(default_factory=dict)


class Fixed(Weighting):
    """L = sum_k w_k(t) L_k with w_k(t) = w_k0 g_k^t in epoch t (Tang et al. 2020, section 4.2.2, eq. 8)."""

    options_type = FixedOptions
    options: FixedOptions

    def __init__(self, options: FixedOptions, base: Tensor, tasks: Sequence[str]) -> None:
        super().__init__(options, base, tasks)
        self.growth = torch.tensor([options.growth.get(task, 1.0) for task in tasks])
        self.weights = base.clone()
        self._history: dict[int, list[float]] = {}

    def start_epoch(self, epoch: int) -> None:
        """The weights of this epoch."""
        self.weights = self.base * self.growth**epoch
        self._history[epoch] = self.weights.tolist()  # once, however often an epoch visits the rows

    def backward(self, losses: Tensor, penalty: Tensor | None, leaves: Sequence[Tensor]) -> Tensor:
        """One backward pass of the weighted sum."""
        total = (self.weights * losses).sum()
        (total if penalty is None else total + penalty).backward()  # type: ignore[no-untyped-call]
        return total.detach()

    def tell(self) -> tuple[Particular, ...]:
        """The weights by epoch, if they move."""
        if all(factor == 1.0 for factor in self.options.growth.values()):
            return ()
        rows: list[tuple[str | float, ...]] = [(f"epoch {i + 1}", *x) for i, x in self._history.items()]
        return (Particular("Task weights over time", "Each epoch multiplies them.", ("", *self.tasks), tuple(rows)),)
