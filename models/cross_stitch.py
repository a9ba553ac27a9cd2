"""Cross-stitch networks (Misra et al., CVPR 2016, doi 10.1109/CVPR.2016.433, section 3).

Knows a network per task and the stitches between them. Does not know losses or how the stitches are trained.
"""

import itertools
from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from models.architecture import Architecture, Layers, Options, Particular, TaskNetworks, TaskTowers
from models.layers import Bank, Pair, PairLinear, Towers, Widths
from models.stitch import Stitch


class CrossStitchOptions(Options):
    """A network of widths `trunk` per task, stitched after every layer, and a tower per task on top.

    `per_channel`: a stitch for each unit instead of one for the layer. `keep`: what a task starts with of its own.
    `stitch_rate`: the stitches' learning rate as a multiple of the others'.
    """

    architecture: Literal["cross_stitch"] = "cross_stitch"
    trunk: Layers = (128, 64)
    tower: Layers = (32,)
    per_channel: bool = False
    keep: float = Field(default=0.9, ge=0.0, le=1.0)
    stitch_rate: float = Field(default=10.0, gt=0.0, le=1000.0)


class CrossStitch(Architecture, TaskNetworks, TaskTowers):
    """x_k' = sum_j a_kj x_j after every layer of the trunks (eq. 1); y_k = t_k(x_k').

    NOTE[DIFF] The paper stitches networks that were trained apart first (section 5); these start untrained, so that
    a bundle is one training.
    NOTE[DIFF] The paper's stitches learn 100 to 1000 times as fast, under plain SGD (section 5), whose steps are in
    proportion to the gradients. A step of Adam is about the learning rate long whatever the gradient, and the
    paper's multiple would throw the stitches about: `stitch_rate` is 10.
    NOTE[DIFF] The paper stitches after poolings and fully connected layers of AlexNet; here after every layer's ReLU.
    """

    options_type = CrossStitchOptions
    options: CrossStitchOptions

    def __init__(self, options: CrossStitchOptions, widths: Widths, tasks: int) -> None:
        super().__init__(options, widths, tasks)
        trunk = options.trunk
        self.first = PairLinear(widths, *[trunk[0]] * tasks)
        self.layers = nn.ModuleList(Bank(tasks, pair, options.dropout) for pair in itertools.pairwise(trunk))
        self.stitches = nn.ModuleList(
            Stitch(tasks, options.keep, width if options.per_channel else 1) for width in trunk
        )
        self.towers = Towers(tasks, (trunk[-1], *options.tower), options.dropout)

    def forward(self, x: Pair) -> Tensor:
        """Pair -> logits [N, T]."""
        first, *others = self.stitches
        xs = first([h.relu() for h in self.first(x)])
        for layer, stitch in zip(self.layers, others, strict=True):
            xs = stitch(layer(xs))
        logits: Tensor = self.towers(xs)
        return logits

    def network_weights(self) -> list[Tensor]:
        """The tasks' weights of each layer of the trunks [T, in, out]."""
        banks = [bank for bank in self.layers if isinstance(bank, Bank)]
        return [self.first.members(self.tasks), *(weight for bank in banks for weight in bank.weights)]

    def tower_weights(self) -> list[Tensor]:
        """The tasks' weights of each layer of the towers [T, in, out]."""
        return self.towers.stacked()

    def rates(self) -> list[tuple[nn.Parameter, float]]:
        """The stitches learn faster."""
        return [(parameter, self.options.stitch_rate) for parameter in self.stitches.parameters()]

    def tell(self, x: Pair, tasks: Sequence[str]) -> tuple[Particular, ...]:
        """The stitches, a table a layer."""
        text = "What a task's network (row) goes on with of each task's (column)"
        text += ", mean over the units." if self.options.per_channel else "."
        stitches = [part for part in self.stitches if isinstance(part, Stitch)]
        return tuple(s.tell(f"Stitch after layer {n}", text, tasks) for n, s in enumerate(stitches, start=1))
