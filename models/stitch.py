"""A stitch: every member of a layer becomes a learned linear combination of all of them.

Knows members and their channels. Does not know whether a member is a task's network or a part of one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.architecture import Particular


class Stitch(nn.Module):
    """x_i' = sum_j a_ij x_j (Misra et al. 2016, eq. 1): M times [N, H] -> M times [N, H].

    `weight` [M, M, C] holds a_ij, one for all channels (C = 1) or one for each (C = H). It starts at `keep` for i = j
    and at (1 - keep) / (M - 1) for the others, so that sizes stay as they are; a single member starts at 1.

    >>> stitch = Stitch(2, keep=0.75)
    >>> [x.tolist() for x in stitch([torch.tensor([[4.0]]), torch.tensor([[0.0]])])]
    [[[3.0]], [[1.0]]]
    """

    def __init__(self, members: int, keep: float, channels: int = 1) -> None:
        super().__init__()
        start = torch.ones(1, 1)
        if members > 1:
            start = torch.full((members, members), (1.0 - keep) / (members - 1)).fill_diagonal_(keep)
        self.weight = nn.Parameter(start.unsqueeze(2).repeat(1, 1, channels))

    def forward(self, xs: Sequence[Tensor]) -> list[Tensor]:
        """M times [N, H] -> M times [N, H]."""
        return [combine(row, xs) for row in self.weight.unbind()]

    def tell(self, title: str, text: str, names: Sequence[str]) -> Particular:
        """The matrix as a table, mean over channels; `names` are the members'."""
        matrix = self.weight.detach().mean(dim=2).tolist()
        rows = tuple((name, *values) for name, values in zip(names, matrix, strict=True))
        return Particular(title, text, ("", *names), rows, shaded=True)


def combine(weights: Tensor, xs: Sequence[Tensor]) -> Tensor:
    """sum_j w_j x_j: [M, C] and M times [N, H] -> [N, H].

    Term by term: stacking the members first would copy each of them once a row of weights.
    """
    first, *others = (weight * x for weight, x in zip(weights.unbind(), xs, strict=True))
    return sum(others, first)
