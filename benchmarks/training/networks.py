"""ESMM, MMoE and PLE as one would write them by hand for two tasks.

Knows torch. Does not know Fullfunnel's `models`: this is what they are measured against. Each network maps the
input [B, D] to the logits of click and of conversion given click [B, 2]. What reads the same input is one layer.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.training.settings import EXPERT, EXPERTS, LEVELS, PRIVATE, SHARED, TOWER, TOWER_OF_ESMM

TASKS = 2


class Tower(nn.Sequential):
    """ReLU layers and a logit: [B, H] -> [B, 1]."""

    def __init__(self, *widths: int) -> None:
        hidden = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
        super().__init__(*hidden, nn.Linear(widths[-1], 1))


class ESMM(nn.Module):
    """A tower per task on the shared embeddings."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, TASKS * TOWER_OF_ESMM[0])
        self.towers = nn.ModuleList(Tower(*TOWER_OF_ESMM) for _ in range(TASKS))

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] -> [B, 2]."""
        hidden = F.relu(self.first(x)).chunk(TASKS, dim=1)
        return torch.cat([tower(h) for tower, h in zip(self.towers, hidden, strict=True)], dim=1)


class Experts(nn.Module):
    """The first and the second layer of experts that read one input, and the gates of G mixtures of experts."""

    def __init__(self, width: int, experts: int, gates: int) -> None:
        super().__init__()
        self.gates = gates
        self.first = nn.Linear(width, experts * EXPERT[0])
        self.gate = nn.Linear(width, gates) if gates else None
        self.second = nn.ModuleList(nn.Linear(*EXPERT) for _ in range(experts))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """[B, D] -> experts [B, E, H], logits of the gates [B, gates]."""
        hidden = F.relu(self.first(x)).chunk(len(self.second), dim=1)
        experts = [layer(h) for layer, h in zip(self.second, hidden, strict=True)]
        return F.relu(torch.stack(experts, dim=1)), self.gate(x) if self.gate is not None else None


def mix(logits: Tensor, experts: Tensor) -> Tensor:
    """Gate logits [B, E] or [B, G * E] and experts [B, E, H] -> mixtures [B, G, H]."""
    gates = logits.view(len(logits), -1, experts.shape[1]).softmax(dim=2)
    return torch.bmm(gates, experts)


class MMoE(nn.Module):
    """Shared experts, and a gate and a tower per task."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.experts = Experts(width, EXPERTS, TASKS * EXPERTS)
        self.towers = nn.ModuleList(Tower(EXPERT[-1], *TOWER) for _ in range(TASKS))

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] -> [B, 2]."""
        experts, gate = self.experts(x)
        assert gate is not None
        mixed = mix(gate, experts).unbind(dim=1)
        return torch.cat([tower(h) for tower, h in zip(self.towers, mixed, strict=True)], dim=1)


class Level(nn.Module):
    """One extraction: each task's own experts and the shared ones, mixed by a gate per group."""

    def __init__(self, width: int, last: bool) -> None:
        super().__init__()
        everyone = TASKS * PRIVATE + SHARED
        self.tasks = nn.ModuleList(Experts(width, PRIVATE, PRIVATE + SHARED) for _ in range(TASKS))
        self.shared = Experts(width, SHARED, 0 if last else everyone)

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        """An input [B, D] per task, then the shared one -> the same groups [B, H]."""
        own = [group(x) for group, x in zip(self.tasks, inputs, strict=False)]
        shared, shared_gate = self.shared(inputs[-1])
        mixed = [mix(gate, torch.cat([experts, shared], dim=1)) for experts, gate in own]
        if shared_gate is not None:
            mixed.append(mix(shared_gate, torch.cat([*(experts for experts, _ in own), shared], dim=1)))
        return [group.squeeze(1) for group in mixed]


class PLE(nn.Module):
    """Levels of extraction, then a tower per task."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = (width, *[EXPERT[-1]] * (LEVELS - 1))
        self.levels = nn.ModuleList(Level(w, last=level == LEVELS - 1) for level, w in enumerate(widths))
        self.towers = nn.ModuleList(Tower(EXPERT[-1], *TOWER) for _ in range(TASKS))

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] -> [B, 2]."""
        groups = [x] * (TASKS + 1)
        for level in self.levels:
            groups = level(groups)
        return torch.cat([tower(group) for tower, group in zip(self.towers, groups, strict=True)], dim=1)


NETWORKS: dict[str, type[nn.Module]] = {"esmm": ESMM, "mmoe": MMoE, "ple": PLE}
