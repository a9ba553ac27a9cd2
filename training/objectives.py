"""What is minimised: from logits and labels to one loss per task.

Knows the funnel. Does not know the network nor how the loss is minimised.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from models.funnel import log1mexp, log_joint

Objective = Callable[[Tensor, Tensor, Sequence[Sequence[int]], Tensor], tuple[Tensor, Tensor]]


def independent(
    logits: Tensor, labels: Tensor, ancestry: Sequence[Sequence[int]], positive_weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Each task's cross-entropy on the rows where the task it is given holds.

    logits and labels [B, T] -> (summed loss [T], number of rows it is summed over [T]).
    """
    loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="none", pos_weight=positive_weights)
    held = torch.stack(
        [labels[:, chain[-2]] if len(chain) > 1 else torch.ones_like(labels[:, 0]) for chain in ancestry], 1
    )
    return (loss * held).sum(0), held.sum(0)


def entire_space(
    logits: Tensor, labels: Tensor, ancestry: Sequence[Sequence[int]], positive_weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Each task's joint probability against its label over ALL impressions (ESMM, arXiv 1804.07931, eq. 3).

    Nothing is trained on P(task | given) directly: it is what multiplies up to the joint one. In log space.
    logits and labels [B, T] -> (summed loss [T], number of rows it is summed over [T]).
    """
    log_p = log_joint(logits, ancestry)
    loss = -(positive_weights * labels * log_p + (1 - labels) * log1mexp(log_p))
    return loss.sum(0), torch.full_like(loss[0], len(loss))


OBJECTIVES: tuple[tuple[str, Objective], ...] = (("independent", independent), ("entire_space", entire_space))


def objective(name: str) -> Objective:
    """The objective that a run file asks for by name."""
    return dict(OBJECTIVES)[name]
