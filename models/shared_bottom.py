"""Shared bottom: hard parameter sharing (Caruana 1997, "Multitask Learning", Machine Learning 28)."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from models.architecture import Architecture, Layers, Options, TaskTowers, Width
from models.layers import Bank, Pair, PairLinear, Towers, Widths


class SharedBottomOptions(Options):
    """`trunk`: hidden widths of the shared network; `tower`: of each task's own, which may be the logit alone."""

    architecture: Literal["shared_bottom"] = "shared_bottom"
    trunk: Layers = (256, 128)
    tower: tuple[Width, ...] = Field(default=(64,), max_length=16)


class SharedBottom(Architecture, TaskTowers):
    """h = f(e); y_k = t_k(h)."""

    options_type = SharedBottomOptions

    def __init__(self, options: SharedBottomOptions, widths: Widths, tasks: int) -> None:
        super().__init__(options, widths, tasks)
        self.first = PairLinear(widths, options.trunk[0])
        self.trunk = Bank(1, options.trunk, options.dropout)
        self.towers = Towers(tasks, (options.trunk[-1], *options.tower), options.dropout)

    def forward(self, x: Pair) -> Tensor:
        """Pair -> logits [N, T]."""
        h = self.trunk([h.relu() for h in self.first(x)])
        logits: Tensor = self.towers([*h] * self.tasks)
        return logits

    def tower_weights(self) -> list[Tensor]:
        """The towers' layers: [T, in, out] each."""
        return self.towers.stacked()
