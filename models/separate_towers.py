"""Separate towers: a complete network per task on shared embeddings.

With the `entire_space` objective this is ESMM (Ma et al. 2018, arXiv 1804.07931, figure 2).
"""

from typing import Literal

from torch import Tensor

from models.architecture import Architecture, Layers, Options, TaskTowers
from models.layers import Pair, PairLinear, Towers, Widths


class SeparateTowersOptions(Options):
    """`tower`: hidden widths of each task's network."""

    architecture: Literal["separate_towers"] = "separate_towers"
    tower: Layers = (128, 64)


class SeparateTowers(Architecture, TaskTowers):
    """y_k = t_k(e)."""

    options_type = SeparateTowersOptions

    def __init__(self, options: SeparateTowersOptions, widths: Widths, tasks: int) -> None:
        super().__init__(options, widths, tasks)
        self.first = PairLinear(widths, *[options.tower[0]] * tasks)
        self.towers = Towers(tasks, options.tower, options.dropout)

    def forward(self, x: Pair) -> Tensor:
        """Pair -> logits [N, T]."""
        logits: Tensor = self.towers([h.relu() for h in self.first(x)])
        return logits

    def tower_weights(self) -> list[Tensor]:
        """The towers' layers: [T, in, out] each."""
        return self.towers.stacked()
