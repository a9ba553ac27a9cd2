"""Multi-gate Mixture-of-Experts (Ma et al., KDD 2018, doi 10.1145/3219819.3220007, section 4.2)."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from models.architecture import Architecture, Layers, Options, Particular, TaskTowers
from models.gate_use import gate_use
from models.layers import Bank, Pair, PairLinear, Towers, Widths, mix


class MMoEOptions(Options):
    """`experts` networks of widths `expert`, mixed by one gate per task, then a tower per task."""

    architecture: Literal["mmoe"] = "mmoe"
    experts: int = Field(default=4, ge=1, le=256)
    expert: Layers = (128, 64)
    tower: Layers = (32,)


class MMoE(Architecture, TaskTowers):
    """f^k(x) = sum_i g^k(x)_i f_i(x), g^k(x) = softmax(W_gk x) (eq. 6 and 7); y_k = t_k(f^k(x))."""

    options_type = MMoEOptions

    def __init__(self, options: MMoEOptions, widths: Widths, tasks: int) -> None:
        super().__init__(options, widths, tasks)
        self.first = PairLinear(widths, tasks * options.experts, *[options.expert[0]] * options.experts)
        self.experts = Bank(options.experts, options.expert, options.dropout)
        self.towers = Towers(tasks, (options.expert[-1], *options.tower), options.dropout)

    def forward(self, x: Pair) -> Tensor:
        """Pair -> logits [N, T]."""
        gates, *hidden = self.first(x)
        experts = self.experts([h.relu() for h in hidden])
        logits: Tensor = self.towers(mix(gates.unflatten(1, (self.tasks, -1)), experts))
        return logits

    def tower_weights(self) -> list[Tensor]:
        """The towers' layers: [T, in, out] each."""
        return self.towers.stacked()

    def tell(self, x: Pair, tasks: Sequence[str]) -> tuple[Particular, ...]:
        """How much each task uses each expert."""
        gates, *hidden = self.first(x)
        names = [f"expert {i + 1}" for i in range(len(hidden))]
        return (gate_use("Use of the experts", gates.unflatten(1, (self.tasks, -1)).softmax(dim=2), tasks, names),)
