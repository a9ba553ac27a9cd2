"""The linear algebra the architectures share, with the user kept apart from the item in the first layer.

Knows widths. Does not know features or tasks.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Widths(NamedTuple):
    """Width of the user's and of the item's part of the network's input; either may be 0."""

    user: int
    item: int


class Pair(NamedTuple):
    """The network's input: users and candidates, and which user each candidate is for.

    user [U, D_user], item [N, D_item], row_user [N]; without `row_user` candidate i is for user i (U = N).
    """

    user: Tensor
    item: Tensor
    row_user: Tensor | None


class PairLinear(nn.Module):
    """W_user u + W_item i + b: a linear layer on [u; i] that multiplies each user once, not once per candidate.

    Pair -> [N, H]. The result equals `nn.Linear` on the concatenation, whose initialisation it has.

    >>> layer = PairLinear(Widths(2, 3), 4)
    >>> x = Pair(torch.ones(1, 2), torch.ones(5, 3), torch.zeros(5, dtype=torch.int64))
    >>> layer(x).shape
    torch.Size([5, 4])
    """

    def __init__(self, widths: Widths, width_out: int) -> None:
        super().__init__()
        bound = sum(widths) ** -0.5
        self.user = nn.Parameter(torch.empty(width_out, widths.user).uniform_(-bound, bound))
        self.item = nn.Parameter(torch.empty(width_out, widths.item).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(width_out).uniform_(-bound, bound))

    def forward(self, x: Pair) -> Tensor:
        """Pair -> [N, H]."""
        if self.user.shape[1] == 0 and x.item.shape[1] > 0:
            return F.linear(x.item, self.item, self.bias)
        shared = F.linear(x.user, self.user, self.bias)
        if x.row_user is not None:
            shared = shared.index_select(0, x.row_user)
        return torch.addmm(shared, x.item, self.item.t()) if self.item.shape[1] > 0 else shared


class Bank(nn.Module):
    """M perceptrons of one shape, multiplied together: [M, N, H_0] -> [M, N, H_last], ReLU after every layer.

    `widths` is (H_0, ..., H_last); with one width it is the identity.
    """

    def __init__(self, members: int, widths: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.weights = nn.ParameterList(_uniform((members, a, b), a) for a, b in pairs)
        self.biases = nn.ParameterList(_uniform((members, 1, b), a) for a, b in pairs)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """[M, N, H_0] -> [M, N, H_last]."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = F.relu(torch.baddbmm(bias, x, weight))
            x = F.dropout(x, self.dropout, self.training)
        return x


class Heads(nn.Module):
    """One logit per task from the task's own vector: [T, N, H] -> [N, T]."""

    def __init__(self, tasks: int, width: int) -> None:
        super().__init__()
        self.weight = _uniform((tasks, width, 1), width)
        self.bias = nn.Parameter(torch.zeros(tasks))

    def forward(self, x: Tensor) -> Tensor:
        """[T, N, H] -> [N, T]."""
        return torch.bmm(x, self.weight).squeeze(2).t() + self.bias


class Towers(nn.Module):
    """A perceptron and a logit per task: [T, N, H] -> [N, T]."""

    def __init__(self, tasks: int, widths: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.bank = Bank(tasks, widths, dropout)
        self.heads = Heads(tasks, widths[-1])

    def forward(self, x: Tensor) -> Tensor:
        """[T, N, H] -> [N, T]."""
        logits: Tensor = self.heads(self.bank(x))
        return logits


def split(x: Tensor, count: int) -> Tensor:
    """Cut a fused layer's output into its members: [N, M * H] -> [N, M, H]."""
    return x.reshape(x.shape[0], count, x.shape[1] // count)


def members(x: Tensor, count: int) -> Tensor:
    """The same with the members first, as a `Bank` takes them: [N, M * H] -> [M, N, H]."""
    return split(x, count).transpose(0, 1)


def _uniform(shape: tuple[int, ...], fan_in: int) -> nn.Parameter:
    bound = fan_in**-0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
