"""Soft parameter sharing: a complete network per task, pulled towards each other (Duong et al. 2015, ACL, section 4).

The pull is a regulariser of training (`training/regularisers/distance.py`); without it these are single-task models.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from models.architecture import Architecture, Layers, Options, TaskNetworks, TaskTowers
from models.layers import Bank, Pair, PairLinear, Towers, Widths, split_pair


class SoftSharingOptions(Options):
    """`trunk`: hidden widths of each task's network; `tower`: those above, which no task is pulled in.

    `embeddings`: a table of its own for each task (`separate`), or one for all (`shared`).
    """

    architecture: Literal["soft_sharing"] = "soft_sharing"
    trunk: Layers = (128, 64)
    tower: Layers = (32,)
    embeddings: Literal["separate", "shared"] = "separate"

    def copies(self, tasks: int) -> int:
        """One a task, unless they are shared."""
        return tasks if self.embeddings == "separate" else 1


class SoftSharing(Architecture, TaskNetworks, TaskTowers):
    """y_k = t_k(f_k(e_k))."""

    options_type = SoftSharingOptions

    def __init__(self, options: SoftSharingOptions, widths: Widths, tasks: int) -> None:
        super().__init__(options, widths, tasks)
        self.copies = options.copies(tasks)
        own = Widths(widths.user // self.copies, widths.item // self.copies)
        self.first: Iterable[PairLinear] = nn.ModuleList(PairLinear(own, options.trunk[0]) for _ in range(tasks))  # type: ignore[assignment]
        self.trunks = Bank(tasks, options.trunk, options.dropout)
        self.towers = Towers(tasks, (options.trunk[-1], *options.tower), options.dropout)

    def forward(self, x: Pair) -> Tensor:
        """Pair with the tasks' embeddings side by side -> logits [N, T]."""
        pairs = split_pair(x, self.copies) if self.copies > 1 else [x] * self.tasks
        hidden = [first(pair)[0].relu() for first, pair in zip(self.first, pairs, strict=True)]
        logits: Tensor = self.towers(self.trunks(hidden))
        return logits

    def network_weights(self) -> list[Tensor]:
        """The first layer, user and item one above the other, and the trunk's: [T, in, out] each."""
        return [torch.cat([layer.members(1) for layer in self.first]), *self.trunks.weights]

    def tower_weights(self) -> list[Tensor]:
        """The towers' layers: [T, in, out] each."""
        return self.towers.stacked()
