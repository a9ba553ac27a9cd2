"""Sluice networks (Ruder et al. 2017, arXiv 1705.08142, section 2).

Knows a network per task, cut into subspaces, and the mixtures between them. Does not know losses.
"""

from collections.abc import Sequence
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from models.architecture import Architecture, Layers, Options, Particular, Subspaces, TaskTowers
from models.layers import Bank, Pair, PairLinear, Towers, Widths
from models.stitch import Stitch, combine


class SluiceOptions(Options):
    """A network of widths `trunk` per task, each layer in `subspaces`, and a tower per task on top.

    `skip`: whether a task's tower reads a learned mixture of all its layers, which are of one width then, or the last
    one alone. `keep`: what a subspace starts with of its own, and a tower of the last layer. `stitch_rate`: the
    mixtures' learning rate as a multiple of the others'.
    """

    architecture: Literal["sluice"] = "sluice"
    trunk: Layers = (64, 64)
    tower: Layers = (32,)
    subspaces: int = Field(default=2, ge=1, le=2)
    skip: bool = True
    keep: float = Field(default=0.9, ge=0.0, le=1.0)
    stitch_rate: float = Field(default=10.0, gt=0.0, le=1000.0)

    @model_validator(mode="after")
    def _widths_fit(self) -> Self:
        if any(width % self.subspaces for width in self.trunk):
            raise ValueError(
                f"every width of `trunk` is cut into {self.subspaces} subspaces and must be a multiple of it"
            )
        if self.skip and len(set(self.trunk)) > 1:
            raise ValueError("`skip` adds layers up, which must be of one width: make the widths of `trunk` equal")
        return self


class Sluice(Architecture, TaskTowers, Subspaces):
    """x'_(k,s) = sum over (j,r) of alpha_(k,s),(j,r) x_(j,r) after every layer (eq. 2); the tower of task k reads
    sum_l beta_kl x'_kl (eq. 3). A task's two subspaces are free to be shared and private (`orthogonality`).

    NOTE[DIFF] The paper's layers are LSTMs over words; these are the layers of a perceptron.
    """

    options_type = SluiceOptions
    options: SluiceOptions

    def __init__(self, options: SluiceOptions, widths: Widths, tasks: int) -> None:
        super().__init__(options, widths, tasks)
        trunk, parts = options.trunk, tasks * options.subspaces
        cut = [width // options.subspaces for width in trunk]
        self.first = PairLinear(widths, *[cut[0]] * parts)
        # a subspace reads the whole layer below it, both of its task's subspaces
        self.layers = nn.ModuleList(Bank(parts, (a, b), options.dropout) for a, b in zip(trunk, cut[1:], strict=False))
        self.alphas = nn.ModuleList(Stitch(parts, options.keep, 1) for _ in trunk)
        last = Stitch(len(trunk), options.keep).weight.detach()[-1]
        self.beta = nn.Parameter(last.repeat(tasks, 1, 1)) if options.skip else None
        self.towers = Towers(tasks, (trunk[-1], *options.tower), options.dropout)

    def forward(self, x: Pair) -> Tensor:
        """Pair -> logits [N, T]."""
        first, *others = self.alphas
        outputs = [self._join(first([h.relu() for h in self.first(x)]))]
        for layer, alpha in zip(self.layers, others, strict=True):
            below = [whole for whole in outputs[-1] for _ in range(self.options.subspaces)]
            outputs.append(self._join(alpha(layer(below))))
        xs = outputs[-1]
        if self.beta is not None:
            by_task = zip(*outputs, strict=True)
            xs = [combine(weights, layers) for weights, layers in zip(self.beta.unbind(), by_task, strict=True)]
        logits: Tensor = self.towers(xs)
        return logits

    def _join(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Subspaces side by side: T S times [N, H / S] -> T times [N, H]."""
        size = self.options.subspaces
        return [torch.cat(list(parts[k * size : (k + 1) * size]), dim=1) for k in range(self.tasks)]

    def subspace_weights(self) -> list[Tensor]:
        """For each layer [T, S, in, out]."""
        parts = self.tasks * self.options.subspaces
        banks = [bank for bank in self.layers if isinstance(bank, Bank)]
        layers = [self.first.members(parts), *(weight for bank in banks for weight in bank.weights)]
        return [layer.view(self.tasks, self.options.subspaces, *layer.shape[1:]) for layer in layers]

    def tower_weights(self) -> list[Tensor]:
        """The towers' layers: [T, in, out] each."""
        return self.towers.stacked()

    def rates(self) -> list[tuple[nn.Parameter, float]]:
        """The mixtures learn faster."""
        mixtures = [*self.alphas.parameters()] if self.beta is None else [*self.alphas.parameters(), self.beta]
        return [(parameter, self.options.stitch_rate) for parameter in mixtures]

    def tell(self, x: Pair, tasks: Sequence[str]) -> tuple[Particular, ...]:
        """The alphas, a table a layer, and the betas."""
        names = [f"{task} {s + 1}" for task in tasks for s in range(self.options.subspaces)]
        text = "What a subspace (row) goes on with of each subspace (column)."
        alphas = [part for part in self.alphas if isinstance(part, Stitch)]
        told = [alpha.tell(f"Alpha after layer {n}", text, names) for n, alpha in enumerate(alphas, start=1)]
        if self.beta is not None:
            rows = tuple((task, *row) for task, row in zip(tasks, self.beta.squeeze(2).tolist(), strict=True))
            columns = ("", *(f"layer {n}" for n in range(1, len(self.options.trunk) + 1)))
            told.append(Particular("Beta", "What a task's tower reads of each layer.", columns, rows, shaded=True))
        return tuple(told)
