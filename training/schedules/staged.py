"""Task by task from low to high, each stage held near where the stage before has left the levels below.

Knows levels, and how far they may move. Does not know what a level computes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from models.architecture import Levels, Particular
from training.schedules.schedule import Schedule, ScheduleOptions

if TYPE_CHECKING:
    from training.loop import Optimiser, Trainer


class StagedOptions(ScheduleOptions):
    """`delta`: successive regularisation; `weight_decay`: lambda, of the weights of the level being trained."""

    kind: Literal["staged"] = "staged"
    delta: float = Field(default=1.0, ge=0.0, allow_inf_nan=False)
    weight_decay: float = Field(default=1e-3, ge=0.0, allow_inf_nan=False)

    def epochs(self, epochs: int, tasks: int) -> int:
        """Every epoch visits the rows once a task."""
        return epochs * tasks


class Staged(Schedule):
    """J_k = L_k + lambda ||W_k||^2 + delta ||theta_<k - theta'_<k||^2 (arXiv 1611.01587, section 3).

    theta_<k: the embeddings and the levels below k; theta'_<k: their values after the stage before. An epoch is a
    stage per task, from the lowest to the highest, and is judged in its last stage.

    NOTE[DIFF]: both penalties are applied as exact proximal steps after each step of the optimiser, theta <- theta' +
    (theta - theta') / (1 + 2 eta delta) with the part's own learning rate eta, not as gradients, which Adam and Adagrad
    would rescale: any delta is stable, a huge one freezes. Of the embeddings, a step pulls back the rows it touched, as
    it moves only those.
    NOTE[DIFF]: the first stage of all holds nothing back: the paper's embeddings were trained before, these are random.
    """

    options_type = StagedOptions
    options: StagedOptions
    needs = Levels
    because = "its stages are the levels of an architecture that has one per task"
    one_task = True

    def __init__(self, options: StagedOptions) -> None:
        super().__init__(options)
        self.log: list[tuple[int, str]] = []
        self._moves: list[float] = []

    def run(self, trainer: Trainer) -> None:
        """Epochs of one stage per task, until patience runs out."""
        for epoch in range(trainer.options.epochs):
            for k, task in enumerate(trainer.tasks):
                below = Below(trainer, k, self.options.delta if self.log else 0.0)
                self.log.append((epoch, task))
                if self._stage(trainer, epoch, k, below):
                    return

    def _stage(self, trainer: Trainer, epoch: int, k: int, below: Below) -> bool:
        levels, last = cast(Levels, trainer.ranker.architecture), len(trainer.tasks) - 1
        above = [parameter for other in range(k + 1, last + 1) for parameter in levels.level_parameters(other)]
        shrink = 1 / (1 + 2 * trainer.options.learning_rate * self.options.weight_decay)

        @torch.no_grad()
        def after_step() -> None:
            for weight in levels.level_weights(k):
                weight.mul_(shrink)
            below.pull(trainer.optimiser)

        with without_gradient(above):
            stop = trainer.epoch(epoch, only=k, judged=k == last, after_step=after_step)
        self._moves.append(below.moved())
        return stop

    def tell(self) -> tuple[Particular, ...]:
        """The order of the stages, and how far each has moved what lies below it."""
        text = (
            "Task by task, from the lowest level to the highest. Beside each: the root mean square by which the stage "
            "moved the embeddings and the levels below, which `delta` holds back."
        )
        rows = tuple(
            (f"stage {i + 1}", f"epoch {epoch + 1}", task, moved)
            for i, ((epoch, task), moved) in enumerate(zip(self.log, self._moves, strict=True))
        )
        return (Particular("Order of training", text, ("", "epoch", "task", "moved below"), rows),)


class Below:
    """theta_<k, and theta'_<k as they were when this was made."""

    def __init__(self, trainer: Trainer, k: int, delta: float) -> None:
        levels = cast(Levels, trainer.ranker.architecture)
        self.dense: list[nn.Parameter] = [p for below in range(k) for p in levels.level_parameters(below)]
        self.tables = {int(dim): table.data for dim, table in trainer.ranker.embeddings.tables.items()}
        self.dense_before = [parameter.detach().clone() for parameter in self.dense]
        self.tables_before = {dim: table.clone() for dim, table in self.tables.items()}
        options = trainer.options
        self.dense_back, self.tables_back = (
            1 - 1 / (1 + 2 * rate * delta) for rate in (options.learning_rate, options.embedding_learning_rate)
        )

    @torch.no_grad()
    def pull(self, optimiser: Optimiser) -> None:
        """One proximal step: part of the way back, all of it for a huge delta and none for 0."""
        if self.tables_back == 0.0:
            return
        for parameter, before in zip(self.dense, self.dense_before, strict=True):
            parameter.lerp_(before, self.dense_back)
        for dim, ids in optimiser.touched.items():
            table, rows = self.tables[dim], ids.flatten().long()
            before = self.tables_before[dim].index_select(0, rows)
            # a row that stands twice among the ids is written twice, with the same value
            table.index_copy_(0, rows, table.index_select(0, rows).lerp_(before, self.tables_back))

    @torch.no_grad()
    def moved(self) -> float:
        """Root mean square of theta_<k - theta'_<k."""
        pairs = [*zip(self.dense, self.dense_before, strict=True)]
        pairs += [(table, self.tables_before[dim]) for dim, table in self.tables.items()]
        squares = sum(float((now - before).square().sum()) for now, before in pairs)
        return math.sqrt(squares / max(sum(before.numel() for _, before in pairs), 1))


@contextmanager
def without_gradient(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Within the block these get no gradient, so that no optimiser moves them, not even by its momentum."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
