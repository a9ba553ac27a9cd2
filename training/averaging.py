"""The running mean of the weights, which scores better than each of the weights it is the mean of.

Knows a module's parameters. Does not know losses, optimisers, or when it is asked for.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """m += (w - m) / min(n, window) at the n-th time it is taken: the plain mean at first, later one that forgets.

    The mean over a constant learning rate does what a falling rate would, with no schedule to choose (latest weight
    averaging, Kaddour 2022, arXiv 2209.14981). NOTE[DIFF]: a running mean in place of a queue of the last `window`
    weights, since one copy of the tables is enough. A window of 1 is the weights themselves, and copies nothing.
    """

    def __init__(self, module: nn.Module, window: int) -> None:
        self.module, self.window = module, window
        self._mean: list[Tensor] = []
        self._count = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Let the present weights count; within the block the module has the mean, and afterwards its own again."""
        if self.window == 1:
            yield
            return
        present = self._copy()
        self._count += 1
        self._mean = self._mean or self._copy()
        for mean, weight in zip(self._mean, present, strict=True):
            mean.lerp_(weight, 1 / min(self._count, self.window))
        self._set(self._mean)
        try:
            yield
        finally:
            self._set(present)

    def _copy(self) -> list[Tensor]:
        return [weight.detach().clone() for weight in self.module.parameters()]

    @torch.no_grad()
    def _set(self, values: Sequence[Tensor]) -> None:
        for weight, value in zip(self.module.parameters(), values, strict=True):
            weight.copy_(value)
