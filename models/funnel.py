"""The funnel in log space: from conditional logits to joint probabilities.

Knows logits and which tasks a task is conditional on. Does not know losses.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def log_joint(logits: Tensor, ancestry: Sequence[Sequence[int]]) -> Tensor:
    """log P(task) = sum along `given` of log sigmoid(logit): [N, T] -> [N, T].

    `ancestry` lists, for each task, the tasks along `given`, itself last (`contract.tasks.ancestry`).
    """
    log_conditional = F.logsigmoid(logits)
    return torch.stack([sum_of(log_conditional, chain) for chain in ancestry], dim=1)


def sum_of(columns: Tensor, chain: Sequence[int]) -> Tensor:
    """Sum of some columns: [N, T] -> [N]."""
    total = columns[:, chain[0]]
    for k in chain[1:]:
        total = total + columns[:, k]
    return total


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x <= 0 without cancellation (Maechler 2012, eq. 7).

    NOTE[DIFF]: x is kept below -1e-7, so that a joint probability that rounds to 1 has a finite loss and gradient.

    >>> log1mexp(torch.tensor([-1e-4, -50.0])).tolist()
    [-9.210390090942383, -1.9287498933537385e-22]
    """
    x = x.clamp(max=-1e-7)
    return torch.where(x > -0.6931472, torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))
