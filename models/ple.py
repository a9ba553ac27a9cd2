"""Progressive Layered Extraction (Tang et al., RecSys 2020, doi 10.1145/3383313.3412236, section 3)."""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.architecture import Architecture, Layers, Options, Particular, TaskTowers
from models.gate_use import gate_use
from models.layers import Bank, Pair, PairLinear, Towers, Widths, mix, products

FAINT = -40.0


class PLEOptions(Options):
    """`levels` of extraction, each with `private` experts per task and `shared` ones, of widths `expert`."""

    architecture: Literal["ple"] = "ple"
    levels: int = Field(default=2, ge=1, le=8)
    private: int = Field(default=2, ge=0, le=64)
    shared: int = Field(default=2, ge=1, le=64)
    expert: Layers = (128, 64)
    tower: Layers = (32,)


class PLE(Architecture, TaskTowers):
    """Levels of Customized Gate Control; the first reads the pair, each next one the outputs of the one below.

    Groups G are the tasks in order and, below the last level, the shared one. Experts E are the tasks' private
    ones in order, then the shared. A task's gate is a softmax over its own and the shared experts (eq. 1 to 3),
    the shared gate's over all of them: foreign experts get a weight of exactly 0.

    In the exported graph that is e^FAINT times the last expert's weight, too little to change a sum of float32:
    processors take a detour where a number underflows, as e^-inf does, and it took a sixth of a run.
    """

    options_type = PLEOptions
    mask: Tensor
    rows: Tensor

    def __init__(self, options: PLEOptions, widths: Widths, tasks: int) -> None:
        super().__init__(options, widths, tasks)
        shared = tasks  # the shared group is the last
        self.owner = [task for task in range(tasks) for _ in range(options.private)] + [shared] * options.shared
        experts, last = len(self.owner), options.expert[-1]
        groups = [tasks + 1] * (options.levels - 1) + [tasks]
        foreign = [
            [group != shared and owner not in (group, shared) for owner in self.owner] for group in range(tasks + 1)
        ]
        mask = torch.zeros(tasks + 1, experts).masked_fill(torch.tensor(foreign), -torch.inf)
        self.first = PairLinear(widths, groups[0] * experts, *[options.expert[0]] * experts)
        self.experts = nn.ModuleList(
            Bank(experts, options.expert if level == 0 else (last, *options.expert), options.dropout)
            for level in range(options.levels)
        )
        self.gates = nn.ModuleList(Gates(last, mask[:count]) for count in groups[1:])
        self.towers = Towers(tasks, (last, *options.tower), options.dropout)
        # in the bias, so that a run of the exported graph needs no addition of its own for each gate
        rows = torch.arange(sum(self.first.widths_out))
        own = torch.zeros(len(rows) - groups[0] * experts)
        self.register_buffer("mask", torch.cat([mask[: groups[0]].flatten(), own]), persistent=False)
        last_of_group = rows - rows % experts + experts - 1
        self.register_buffer("rows", torch.where(self.mask.isinf(), last_of_group, rows), persistent=False)

    def forward(self, x: Pair) -> Tensor:
        """Pair -> logits [N, T]."""
        *_, (_, groups) = self.levels(x)
        logits: Tensor = self.towers(groups)
        return logits

    def levels(self, x: Pair) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        """Level by level: gates [N, G, E] before the softmax, -inf where foreign, and G outputs [N, H]."""
        closing = (self.mask.clamp(min=FAINT), self.rows) if torch.compiler.is_exporting() else (self.mask,)
        first, *hidden = self.first(x, *closing)
        gates, xs = first.unflatten(1, (-1, len(self.owner))), [h.relu() for h in hidden]
        for level, experts in enumerate(self.experts):
            groups = mix(gates, experts(xs))
            yield gates, groups
            if level < len(self.gates):
                gates, xs = self.gates[level](groups), [groups[owner] for owner in self.owner]

    def tell(self, x: Pair, tasks: Sequence[str]) -> tuple[Particular, ...]:
        """How much each group uses each expert, level by level."""
        owners = [*tasks, "shared"]
        names = [f"{owners[owner]} {i - self.owner.index(owner) + 1}" for i, owner in enumerate(self.owner)]
        return tuple(
            gate_use(f"Use of the experts of level {level}", gates.softmax(dim=2), owners[: gates.shape[1]], names)
            for level, (gates, _) in enumerate(self.levels(x), start=1)
        )

    def tower_weights(self) -> list[Tensor]:
        """The towers' layers: [T, in, out] each."""
        return self.towers.stacked()


class Gates(nn.Module):
    """A linear gate for each of the first G groups: [N, H] each -> unnormalised weights [N, G, E].

    `mask` [G, E] is 0, or -inf for an expert that is foreign to the group, never the last. Exported see `PLE`.
    """

    mask: Tensor
    columns: Tensor

    def __init__(self, width: int, mask: Tensor) -> None:
        super().__init__()
        (self.count, experts), bound = mask.shape, width**-0.5
        self.weight = nn.Parameter(torch.empty(self.count, width, experts).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(self.count, experts))
        self.register_buffer("mask", mask, persistent=False)
        columns = torch.where(mask.isinf(), experts - 1, torch.arange(experts))
        self.register_buffer("columns", columns, persistent=False)

    def forward(self, xs: Sequence[Tensor]) -> Tensor:
        """At least G times [N, H] -> [N, G, E]."""
        if torch.compiler.is_exporting():
            weight = self.weight.take_along_dim(self.columns[:, None], dim=2)
            bias = self.bias.take_along_dim(self.columns, dim=1) + self.mask.clamp(min=FAINT)
        else:
            weight, bias = self.weight, self.bias + self.mask
        return torch.stack(products(xs[: self.count], weight, bias), dim=1)
