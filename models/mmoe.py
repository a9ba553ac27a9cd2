"""Multi-gate Mixture-of-Experts (Ma et al., KDD 2018, doi 10.1145/3219819.3220007, section 4.2)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from models.architecture import Architecture, Layers, Options
from models.layers import Bank, Pair, PairLinear, Towers, Widths, members, split


class MMoEOptions(Options):
    """`experts` networks of widths `expert`, mixed by one gate per task, then a tower per task."""

    architecture: Literal["mmoe"] = "mmoe"
    experts: int = Field(default=4, ge=1, le=256)
    expert: Layers = (128, 64)
    tower: Layers = (32,)


class MMoE(Architecture):
    """f^k(x) = sum_i g^k(x)_i f_i(x), g^k(x) = softmax(W_gk x) (eq. 6 and 7); y_k = t_k(f^k(x))."""

    options_type = MMoEOptions

    def __init__(self, options: MMoEOptions, widths: Widths, tasks: int) -> None:
        super().__init__(options, widths, tasks)
        self.experts_count = options.experts
        self.first = PairLinear(widths, tasks * options.experts + options.experts * options.expert[0])
        self.experts = Bank(options.experts, options.expert, options.dropout)
        self.towers = Towers(tasks, (options.expert[-1], *options.tower), options.dropout)

    def forward(self, x: Pair) -> Tensor:
        """Pair -> logits [N, T]."""
        first = self.first(x)  # the gates and the experts' first layers, multiplied together
        cut = self.tasks * self.experts_count
        gate = split(first[:, :cut], self.tasks).softmax(dim=2)  # [N, T, E]
        experts = self.experts(members(first[:, cut:].relu(), self.experts_count))  # [E, N, H]
        mixed = torch.bmm(gate, experts.transpose(0, 1))  # [N, T, H]
        logits: Tensor = self.towers(mixed.transpose(0, 1))
        return logits
