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
    """Width of the user's and of the item's part of the network's input; either may be 0.

    `steps` and `properties`: width of a step of the user's sequence and of what is known of the step, for an
    architecture that reads them unpooled.
    """

    user: int
    item: int
    steps: int = 0
    properties: int = 0


class Steps(NamedTuple):
    """A sequence of each user, unpooled, oldest step first and padded on the right.

    values [U, L, D_e], properties [U, L, D_p], present [U, L]: False where there is padding.
    """

    values: Tensor
    properties: Tensor
    present: Tensor


class Pair(NamedTuple):
    """The network's input: users and candidates, and which user each candidate is for.

    user [U, D_user], item [N, D_item], row_user [N]; without `row_user` candidate i is for user i (U = N).
    `steps`: the users' sequence, if the architecture asks for one; it is then no part of `user`.
    """

    user: Tensor
    item: Tensor
    row_user: Tensor | None
    steps: Steps | None = None


def split_pair(x: Pair, copies: int) -> list[Pair]:
    """Taken apart: a pair of `copies` embeddings side by side, [U, C D_user] and [N, C D_item] -> C pairs.

    Each contiguous, so that a product rounds as it would for a pair of one copy.
    """
    user, item = ([y.contiguous() for y in part.chunk(copies, dim=1)] for part in (x.user, x.item))
    return [Pair(u, i, x.row_user, x.steps) for u, i in zip(user, item, strict=True)]


class PairLinear(nn.Module):
    """W_user u + W_item i + b: linear layers on [u; i] that multiply each user once, not once per candidate.

    Pair -> [N, H] for each H of `widths_out`. The result equals `nn.Linear` on the concatenation, whose
    initialisation it has.

    >>> layer = PairLinear(Widths(2, 3), 4, 1)
    >>> x = Pair(torch.ones(1, 2), torch.ones(5, 3), torch.zeros(5, dtype=torch.int64))
    >>> [part.shape for part in layer(x)]
    [torch.Size([5, 4]), torch.Size([5, 1])]
    """

    def __init__(self, widths: Widths, *widths_out: int) -> None:
        super().__init__()
        bound = (widths.user + widths.item) ** -0.5
        self.widths_out = list(widths_out)
        self.user = nn.Parameter(torch.empty(sum(widths_out), widths.user).uniform_(-bound, bound))
        self.item = nn.Parameter(torch.empty(sum(widths_out), widths.item).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(sum(widths_out)).uniform_(-bound, bound))

    def forward(self, x: Pair, offset: Tensor | None = None, rows: Tensor | None = None) -> tuple[Tensor, ...]:
        """Pair -> [N, H] for each H. Of the length of all H together: `offset`, which is added to the bias, and
        `rows`, which says whose weights an output has, where not its own."""
        weights: list[Tensor] = [self.user, self.item, self.bias]
        user, item, bias = weights if rows is None else [weight.index_select(0, rows) for weight in weights]
        if offset is not None:
            bias = bias + offset
        if not torch.compiler.is_exporting():
            return torch.split(pair_product(x, user, item, bias), self.widths_out, dim=1)
        # onnxruntime would copy the parts out of one product; the product of a part takes its ReLU along
        parts = (torch.split(weight, self.widths_out) for weight in (user, item, bias))
        return tuple(pair_product(x, *part) for part in zip(*parts, strict=True))

    def members(self, count: int) -> Tensor:
        """The weights of the `count` layers of one width that this one is made of: [M, D_user + D_item, H]."""
        return torch.cat([self.user, self.item], dim=1).unflatten(0, (count, -1)).transpose(1, 2)  # type: ignore[no-untyped-call,no-any-return]


def pair_product(x: Pair, user: Tensor, item: Tensor, bias: Tensor) -> Tensor:
    """Pair, [H, D_user], [H, D_item], [H] -> [N, H]."""
    if user.shape[1] == 0 and x.item.shape[1] > 0:
        return F.linear(x.item, item, bias)
    shared = F.linear(x.user, user, bias)
    if x.row_user is not None:
        shared = shared.index_select(0, x.row_user)
    return torch.addmm(shared, x.item, item.t()) if item.shape[1] > 0 else shared


class Bank(nn.Module):
    """M perceptrons of one shape: M times [N, H_0] -> M times [N, H_last], ReLU after every layer.

    `widths` is (H_0, ..., H_last); with one width it is the identity. A product each, not a batched one: onnxruntime
    takes bias and ReLU into the product then, and in training it costs the same.
    """

    def __init__(self, members: int, widths: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.weights = nn.ParameterList(_uniform((members, a, b), a) for a, b in pairs)
        self.biases = nn.ParameterList(_uniform((members, b), a) for a, b in pairs)
        self.dropout = dropout

    def forward(self, xs: Sequence[Tensor]) -> Sequence[Tensor]:
        """M times [N, H_0] -> M times [N, H_last]."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            xs = [F.dropout(x.relu(), self.dropout, self.training) for x in products(xs, weight, bias)]
        return xs


class Towers(nn.Module):
    """A perceptron and a logit per task, from the task's own vector: T times [N, H] -> [N, T]."""

    def __init__(self, tasks: int, widths: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.bank = Bank(tasks, widths, dropout)
        self.weight = _uniform((tasks, widths[-1], 1), widths[-1])
        self.bias = nn.Parameter(torch.zeros(tasks, 1))

    def forward(self, xs: Sequence[Tensor]) -> Tensor:
        """T times [N, H] -> [N, T]."""
        logits = torch.cat(products(self.bank(xs), self.weight, self.bias))
        return logits.view(len(xs), -1).t()  # task after task in memory: a task's gradient rounds as it would alone

    def stacked(self) -> list[Tensor]:
        """The weights of every layer, the logit's last: [T, in, out] each."""
        return [*self.bank.weights, self.weight]


def products(xs: Sequence[Tensor], weight: Tensor, bias: Tensor) -> list[Tensor]:
    """A linear layer for each of M inputs: M times [N, A], [M, A, B], [M, B] -> M times [N, B]."""
    return [torch.addmm(b, x, w) for x, w, b in zip(xs, weight.unbind(), bias.unbind(), strict=True)]


def mix(gates: Tensor, experts: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Each group's sum of the experts, weighted by the softmax of its gates.

    [N, G, E] unnormalised, E times [N, H] -> G times [N, H]. Beside one another and taken apart by columns: stacked
    and unbound, onnxruntime would run a node for each part.
    """
    together = torch.cat(list(experts), dim=1).unflatten(1, (len(experts), -1))  # type: ignore[no-untyped-call]
    mixed = torch.bmm(gates.softmax(dim=2), together)
    return torch.split(mixed.flatten(1), mixed.shape[2], dim=1)


def _uniform(shape: tuple[int, ...], fan_in: int) -> nn.Parameter:
    bound = fan_in**-0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
