"""Gradient surgery: what one task's gradient does against another's is taken away (PCGrad, Yu et al., NeurIPS 2020).

Knows gradients. Does not know which parameters they are of.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from models.architecture import Particular
from training.weightings.weighting import Weighting, WeightingOptions


class PCGradOptions(WeightingOptions):
    """It has nothing to choose."""

    kind: Literal["pcgrad"] = "pcgrad"


class PCGrad(Weighting):
    """Each task's gradient, projected on the normal plane of those it conflicts with; then their sum (algorithm 1).

    For each task i, over the other tasks j in random order: where g_i' g_j < 0, g_i' -= (g_i' g_j / |g_j|^2) g_j,
    with g_j as it was before any projection. The order follows torch's seed. All leaves are one flat vector. A
    regulariser's gradient is in no task's account, and is added untouched.

    NOTE[DIFF]: a table's row that a batch looks up several times counts as several coordinates, since training holds
    no gradient of a table's size. NOTE[DIFF]: the gradients are those of w_k L_k with the run's `task_weights`.
    """

    options_type = PCGradOptions

    def __init__(self, options: PCGradOptions, base: Tensor, tasks: Sequence[str]) -> None:
        super().__init__(options, base, tasks)
        self.random = torch.Generator().manual_seed(torch.initial_seed())
        self.steps, self.conflicts = 0, torch.zeros(len(tasks), len(tasks))

    def backward(self, losses: Tensor, penalty: Tensor | None, leaves: Sequence[Tensor]) -> Tensor:
        """A backward pass per task. A leaf that no task reads is left without a gradient."""
        weighted = self.base * losses
        found = [torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True) for loss in weighted]
        read = [k for k in range(len(leaves)) if any(gradients[k] is not None for gradients in found)]
        flat = torch.stack([_flat([leaves[k] for k in read], [gradients[k] for k in read]) for gradients in found])
        self.steps += 1
        self.conflicts += flat @ flat.t() < 0
        parts = torch.split(project(flat, self.random).sum(dim=0), [leaves[k].numel() for k in read])
        for k, part in zip(read, parts, strict=True):
            leaves[k].grad = part.view_as(leaves[k])
        if penalty is not None:
            penalty.backward()  # type: ignore[no-untyped-call]
        return weighted.detach().sum()

    def tell(self) -> tuple[Particular, ...]:
        """How often the tasks were in conflict."""
        shares = (self.conflicts / max(1, self.steps)).tolist()
        rows: list[tuple[str | float, ...]] = [(task, *row) for task, row in zip(self.tasks, shares, strict=True)]
        text = "Share of the steps in which two tasks' gradients pointed against each other, and were projected."
        return (Particular("Conflicts between tasks", text, ("", *self.tasks), tuple(rows), shaded=True),)


def project(gradients: Tensor, random: torch.Generator) -> Tensor:
    """Each task's gradient without what conflicts with the others' original ones: [T, P] -> [T, P].

    >>> project(torch.tensor([[1.0, 0.0], [-1.0, 1.0]]), torch.Generator())
    tensor([[0.5000, 0.5000],
            [0.0000, 1.0000]])
    """
    squares = gradients.square().sum(dim=1)
    projected = gradients.clone()
    for i, own in enumerate(projected):
        for j in torch.randperm(len(gradients), generator=random).tolist():
            product = own @ gradients[j]
            if j != i and product < 0:
                own.addcmul_(gradients[j], product / squares[j], value=-1.0)
    return projected


def _flat(leaves: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Tensor:
    """One vector: zeros where a task does not read a leaf."""
    pairs = zip(leaves, gradients, strict=True)
    return torch.cat([(torch.zeros_like(x) if g is None else g).flatten() for x, g in pairs])
