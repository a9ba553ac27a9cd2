"""Progressive Layered Extraction (Tang et al., RecSys 2020, doi 10.1145/3383313.3412236, section 3)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.architecture import Architecture, Layers, Options
from models.layers import Bank, Pair, PairLinear, Towers, Widths, members, split


class PLEOptions(Options):
    """`levels` of extraction, each with `private` experts per task and `shared` ones, of widths `expert`."""

    architecture: Literal["ple"] = "ple"
    levels: int = Field(default=2, ge=1, le=8)
    private: int = Field(default=2, ge=0, le=64)
    shared: int = Field(default=2, ge=1, le=64)
    expert: Layers = (128, 64)
    tower: Layers = (32,)


class PLE(Architecture):
    """Levels of Customized Gate Control; the first reads the pair, each next one the outputs of the one below.

    Groups G are the tasks in order and, below the last level, the shared one. Experts E are the tasks' private
    ones in order, then the shared. A task's gate is a softmax over its own and the shared experts (eq. 1 to 3),
    the shared gate's over all of them: foreign experts get a weight of exactly 0.
    """

    options_type = PLEOptions
    owner: Tensor
    mask: Tensor

    def __init__(self, options: PLEOptions, widths: Widths, tasks: int) -> None:
        super().__init__(options, widths, tasks)
        owner = torch.arange(tasks).repeat_interleave(options.private)
        owner = torch.cat([owner, torch.full((options.shared,), tasks)])  # [E], the shared group is the last
        experts, last = len(owner), options.expert[-1]
        groups = [tasks + 1] * (options.levels - 1) + [tasks]
        self.group_count, self.experts_count = groups[0], experts
        self.first = PairLinear(widths, groups[0] * experts + experts * options.expert[0])
        self.experts = nn.ModuleList(
            Bank(experts, options.expert if level == 0 else (last, *options.expert), options.dropout)
            for level in range(options.levels)
        )
        self.gates = nn.ModuleList(Gates(count, last, experts) for count in groups[1:])
        self.towers = Towers(tasks, (last, *options.tower), options.dropout)
        foreign = (
            (owner != tasks) & (owner != torch.arange(tasks + 1)[:, None]) & (torch.arange(tasks + 1)[:, None] < tasks)
        )
        self.register_buffer("owner", owner, persistent=False)
        self.register_buffer("mask", torch.zeros(tasks + 1, experts).masked_fill(foreign, -torch.inf), persistent=False)

    def forward(self, x: Pair) -> Tensor:
        """Pair -> logits [N, T]."""
        first = self.first(x)
        cut = self.group_count * self.experts_count
        gate = split(first[:, :cut], self.group_count)
        groups = self.extract(0, gate, members(first[:, cut:].relu(), self.experts_count))
        for level, gates in enumerate(self.gates, start=1):
            gate = gates(groups[: gates.count]).transpose(0, 1)
            groups = self.extract(level, gate, groups.index_select(0, self.owner))
        logits: Tensor = self.towers(groups)
        return logits

    def extract(self, level: int, gate: Tensor, x: Tensor) -> Tensor:
        """One level: unnormalised gates [N, G, E] and the experts' inputs [E, N, H] -> group outputs [G, N, H]."""
        weights = (gate + self.mask[: gate.shape[1]]).softmax(dim=2)
        experts = self.experts[level](x).transpose(0, 1)  # [N, E, H]
        return torch.bmm(weights, experts).transpose(0, 1)


class Gates(nn.Module):
    """A linear gate per group: [G, N, H] -> unnormalised weights [G, N, E]."""

    def __init__(self, count: int, width: int, experts: int) -> None:
        super().__init__()
        bound = width**-0.5
        self.count = count
        self.weight = nn.Parameter(torch.empty(count, width, experts).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(count, 1, experts))

    def forward(self, x: Tensor) -> Tensor:
        """[G, N, H] -> [G, N, E]."""
        return torch.baddbmm(self.bias, x, self.weight)
