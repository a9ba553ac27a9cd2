"""A tree of layers that grows with its training (Lu et al. 2017, "Fully-Adaptive Feature Sharing", arXiv 1611.05377).

Knows how a tree computes, and how a layer of it is split. Does not know when, nor which tasks belong together
(`training/schedules/grown.py`): trained without that schedule it stays a shared bottom.
"""

import itertools
from collections.abc import Sequence
from typing import Literal, Self, cast

import torch
from torch import Tensor, nn

from models.architecture import Architecture, Choose, Growing, Layers, Options, Particular, Partition
from models.layers import Bank, Pair, PairLinear, Towers, Widths


class BranchingOptions(Options):
    """`trunk`: hidden widths of every way through the tree; `tower`: of each task's own network above it."""

    architecture: Literal["branching"] = "branching"
    trunk: Layers = (128, 64)
    tower: Layers = (32,)


class Branching(Architecture, Growing):
    """h_0 = f_0(e), h_l of a branch = f_l(h_(l-1) of the branch it grew from), y_k = t_k(h_last of k's branch).

    It starts as one trunk below a tower per task (section 3.2, figure 1). Every branch of a layer has the layer's
    width: a split adds a branch, it does not divide one.
    """

    options_type = BranchingOptions
    options: BranchingOptions

    def __init__(self, options: BranchingOptions, widths: Widths, tasks: int) -> None:
        super().__init__(options, widths, tasks)
        trunk = options.trunk
        self.first = PairLinear(widths, trunk[0])
        self.trunk = nn.ModuleList(
            Bank(1, (below, width), options.dropout) for below, width in itertools.pairwise(trunk)
        )
        self.towers = Towers(tasks, (trunk[-1], *options.tower), options.dropout)
        self._branches: list[Partition] = [(tuple(range(tasks)),)] * len(trunk)

    def forward(self, x: Pair) -> Tensor:
        """Pair -> logits [N, T]."""
        hidden: Sequence[Tensor] = [h.relu() for h in self.first(x)]
        for layer, bank in enumerate(self.trunk, start=1):
            hidden = bank([hidden[i] for i in _stems(self._branches[layer - 1], self._branches[layer])])
        own = _stems(self._branches[-1], tuple((task,) for task in range(self.tasks)))
        logits: Tensor = self.towers([hidden[i] for i in own])
        return logits

    def layers(self) -> int:
        """How many layers can be branched: the trunk's."""
        return len(self._branches)

    def branches(self, layer: int) -> Partition:
        """The tasks of each branch of a layer."""
        return self._branches[layer]

    def branch(self, layer: int, partition: Partition) -> None:
        """Split a layer's branches. Raises: ValueError when the tree would be none."""
        above = self._branches[layer + 1] if layer + 1 < self.layers() else tuple((t,) for t in range(self.tasks))
        stems = _stems(self._branches[layer], partition)
        _stems(partition, above)
        if layer == 0:
            width = self.options.trunk[0]
            for name in ("user", "item", "bias"):
                parts = torch.split(getattr(self.first, name).detach(), width)
                setattr(self.first, name, nn.Parameter(torch.cat([parts[i] for i in stems])))
            self.first.widths_out = [width] * len(partition)
        else:
            bank = self._bank(layer)
            for parameters in (bank.weights, bank.biases):
                parameters[0] = nn.Parameter(parameters[0].detach()[stems])
        self._branches[layer] = partition

    def wide(self, factor: int) -> Self:
        """A new network, unbranched, with a trunk `factor` times as wide and the same towers."""
        trunk = tuple(factor * width for width in self.options.trunk)
        return type(self)(self.options.model_copy(update={"trunk": trunk}), self.widths, self.tasks)

    @torch.no_grad()
    def thin_from(self, wide: Self, choose: Choose) -> None:
        """Take the units that `choose` picks, layer by layer from the input, and the towers (algorithm 1).

        A layer's inputs are reduced to the units kept below before its own are chosen.
        """
        first = wide.first
        kept = list(choose(torch.cat([first.user, first.item], dim=1), self.options.trunk[0]))
        for name in ("user", "item", "bias"):
            getattr(self.first, name).copy_(getattr(first, name)[kept])
        for layer in range(1, self.layers()):
            bank, source = self._bank(layer), wide._bank(layer)
            weight = source.weights[0][0, kept]  # [inputs, units]
            kept = list(choose(weight.t(), self.options.trunk[layer]))
            bank.weights[0].copy_(weight[None, :, kept])
            bank.biases[0].copy_(source.biases[0][:, kept])
        for (name, own), other in zip(self.towers.named_parameters(), wide.towers.parameters(), strict=True):
            own.copy_(other[:, kept] if name == "bank.weights.0" else other)

    def tell(self, x: Pair, tasks: Sequence[str]) -> tuple[Particular, ...]:
        """The grown tree: which tasks share each layer."""

        def named(partition: Partition) -> str:
            return " | ".join(", ".join(tasks[task] for task in group) for group in partition)

        layers = [(f"layer {i + 1}", len(found), named(found)) for i, found in enumerate(self._branches)]
        text = "The branches of each layer, from the towers down to the input, and the tasks that share them."
        return (Particular("The tree", text, ("", "branches", "tasks"), tuple(reversed(layers))),)

    def _bank(self, layer: int) -> Bank:
        return cast(Bank, self.trunk[layer - 1])


def _stems(below: Partition, above: Partition) -> list[int]:
    """For each branch above, the number of the one below that holds all its tasks. Raises: ValueError."""
    stems = [next((i for i, stem in enumerate(below) if set(group) <= set(stem)), -1) for group in above]
    if -1 in stems or sorted(t for group in above for t in group) != sorted(t for stem in below for t in stem):
        raise ValueError(f"branches {above} do not grow from branches {below}")
    return stems
