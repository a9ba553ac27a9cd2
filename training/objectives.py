"""What is minimised: from logits and labels to one loss per task.

Knows the funnel. Does not know the network nor how the loss is minimised.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from contract.features import Frozen
from models.funnel import log1mexp, log_joint

Objective = Callable[[Tensor, Tensor, Sequence[Sequence[int]], Tensor], tuple[Tensor, Tensor]]
ObjectiveName = Literal["independent", "entire_space", "escm2_ips"]


class Escm2Options(Frozen):
    """What `escm2_ips` adds up: the weights l_c and l_g, and what a propensity counts as at least."""

    counterfactual_weight: float = Field(default=0.1, ge=0.0)
    joint_weight: float = Field(default=1.0, ge=0.0)
    least_propensity: float = Field(default=0.01, gt=0.0, le=1.0)


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


def escm2_ips(
    logits: Tensor,
    labels: Tensor,
    ancestry: Sequence[Sequence[int]],
    positive_weights: Tensor,
    options: Escm2Options = Escm2Options(),  # noqa: B008 (frozen)
) -> tuple[Tensor, Tensor]:
    """L_CTR + l_c L_IPS + l_g L_CTCVR: ESCM2 with inverse propensities (Wang et al., SIGIR 2022, arXiv 2204.05125).

    L_IPS is the conversion's cross-entropy on clicked rows, each divided by its propensity pCTR, through which no
    gradient goes. Along `given` the propensity is the joint probability of the task that must hold, and every
    conditional task has the last two terms. Two terms a task: logits and labels [B, T] -> (summed loss [2, T],
    number of rows it is summed over [2, T]); `Loss.means` adds the terms' means.

    NOTE[DIFF]: a mean over the clicked rows, not over all. It differs by the click rate, a constant that l_c takes up,
    and keeps its size however rare clicks are. NOTE[DIFF]: a propensity is at least `least_propensity`, so that
    one row cannot outweigh a batch; it biases the estimate where clicks are rarer than that.
    """
    log_p = log_joint(logits, ancestry)
    inverse = torch.exp(-log_p.detach()).clamp(max=1 / options.least_propensity)
    parents = [chain[-2] if len(chain) > 1 else None for chain in ancestry]
    zero = torch.zeros_like(labels[:, 0])  # a task without condition has no such term
    held = torch.stack([zero if k is None else labels[:, k] for k in parents], dim=1)
    weights = torch.stack([zero if k is None else labels[:, k] * inverse[:, k] for k in parents], dim=1)
    own = F.binary_cross_entropy_with_logits(logits, labels, reduction="none", pos_weight=positive_weights)
    joint = -(positive_weights * labels * log_p + (1 - labels) * log1mexp(log_p))
    share = torch.tensor([1.0 if k is None else options.joint_weight for k in parents], dtype=logits.dtype)
    total = torch.stack([options.counterfactual_weight * (weights * own).sum(0), share * joint.sum(0)])
    return total, torch.stack([held.sum(0), torch.full_like(total[0], len(labels))])


OBJECTIVES: tuple[tuple[ObjectiveName, Objective], ...] = (
    ("independent", independent),
    ("entire_space", entire_space),
    ("escm2_ips", escm2_ips),
)


def objective(name: ObjectiveName, escm2: Escm2Options | None = None) -> Objective:
    """The objective that a run file asks for by name."""
    return partial(escm2_ips, options=escm2) if escm2 else dict(OBJECTIVES)[name]


def check_objective(name: ObjectiveName, escm2: Escm2Options | None) -> None:
    """Raises: ValueError, with the reason, when a run weighs the terms of an objective that it does not have."""
    if escm2 and name != "escm2_ips":
        raise ValueError(f'training.escm2 belongs to the objective "escm2_ips", and this run has "{name}"')
