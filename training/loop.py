"""The loop: encoded rows in, a trained ranker out.

Knows optimisers, losses over batches, and when to stop. Does not know features, files or what comes after.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contract.errors import RunInvalid
from contract.tasks import Task, ancestry
from models.inputs import Encoded
from models.ranker import Ranker
from training.adagrad import RowwiseAdagrad
from training.averaging import Average
from training.batches import in_order, shuffled
from training.objectives import objective
from training.run import TrainingOptions
from training.tensors import Tensors

EVALUATION_ROWS = 2**14


@dataclass(frozen=True)
class Evaluation:
    """Losses at one moment: the mean training loss since the one before, and the validation loss."""

    rows_seen: int
    train_loss: float
    validation_loss: float


@dataclass(frozen=True)
class History:
    """What the loop went through; `best` is the index of the evaluation whose network was kept."""

    evaluations: tuple[Evaluation, ...]
    best: int


class Optimiser:
    """Adam for the dense parameters, row-wise Adagrad for the tables, in one step."""

    def __init__(self, ranker: Ranker, options: TrainingOptions) -> None:
        dense = list(ranker.architecture.parameters())
        self.adam = torch.optim.AdamW(dense, options.learning_rate, weight_decay=options.weight_decay, fused=True)
        self.tables = {
            int(dim): RowwiseAdagrad(table.data, learning_rate=options.embedding_learning_rate)
            for dim, table in ranker.embeddings.tables.items()
        }

    def step(self, ids: dict[int, Tensor], rows: dict[int, Tensor]) -> None:
        """Update from the gradients of the dense parameters and of the looked-up `rows`."""
        self.adam.step()
        self.adam.zero_grad()
        for dim, table in self.tables.items():
            gradient = rows[dim].grad
            if gradient is not None:
                table.step(ids[dim].flatten(), gradient.view(-1, dim))


class Loss:
    """The objective of a run, weighted over its tasks."""

    def __init__(self, tasks: Sequence[Task], options: TrainingOptions) -> None:
        self.ancestry = ancestry(tuple(tasks))
        self.objective = objective(options.objective)
        self.task_weights = torch.tensor([options.task_weights.get(task.name, 1.0) for task in tasks])
        self.positive_weights = torch.tensor([options.positive_weights.get(task.name, 1.0) for task in tasks])

    def sums(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Summed loss and number of rows, by task."""
        return self.objective(logits, labels, self.ancestry, self.positive_weights)

    def mean(self, total: Tensor, rows: Tensor) -> Tensor:
        """The weighted sum of the tasks' mean losses: a scalar."""
        return (self.task_weights * total / rows.clamp(min=1.0)).sum()


class Keeper:
    """Keeps the network of the least validation loss, and says when patience has run out."""

    def __init__(self, ranker: Ranker, patience: int) -> None:
        self.ranker, self.patience = ranker, patience
        self.evaluations: list[Evaluation] = []
        self.best = 0
        self._kept: dict[str, Tensor] = {}

    def add(self, evaluation: Evaluation) -> bool:
        """Take note of an evaluation; True when training should stop.

        Raises: RunInvalid when training has diverged.
        """
        if not math.isfinite(evaluation.validation_loss):
            raise RunInvalid(
                f"the validation loss is not a finite number after {evaluation.rows_seen} rows",
                place="[training]",
                remedy="lower learning_rate or embedding_learning_rate",
            )
        self.evaluations.append(evaluation)
        if evaluation.validation_loss <= self.evaluations[self.best].validation_loss:
            self.best = len(self.evaluations) - 1
            self._kept = {name: value.clone() for name, value in self.ranker.state_dict().items()}
        return len(self.evaluations) - 1 - self.best >= self.patience

    def restore(self) -> History:
        """Put the best network back."""
        if self._kept:  # empty when no loss was a number
            self.ranker.load_state_dict(self._kept)
        return History(tuple(self.evaluations), self.best)


def train(
    ranker: Ranker,
    rows: Tensors,
    validation: Tensors,
    tasks: Sequence[Task],
    options: TrainingOptions,
    *,
    seed: int,
    on_progress: Callable[[int], None],
) -> History:
    """Train in place, and leave the network of the evaluation with the least validation loss.

    Raises: RunInvalid when training diverges.
    """
    torch.set_flush_denormal(True)  # denormal gradients would halve the speed
    random = np.random.default_rng(seed)
    optimiser, loss, keeper = Optimiser(ranker, options), Loss(tasks, options), Keeper(ranker, options.patience)
    positives = int(np.count_nonzero(rows.labels[:, 0]))
    steps = (positives + options.negative_rate * (len(rows) - positives)) / options.batch_rows
    every = max(1, round(steps / options.evaluations_per_epoch))
    average, seen = Average(ranker, options.average), 0

    def judge(losses: Sequence[Tensor]) -> bool:
        with average.taken():
            return keeper.add(Evaluation(seen, _mean(losses), validate(ranker, validation, loss)))

    for epoch in range(options.epochs):
        losses: list[Tensor] = []
        due = [every * (k + 1) for k in range(options.evaluations_per_epoch - 1)]
        for step, (encoded, labels) in enumerate(shuffled(rows, options.batch_rows, options.negative_rate, random)):
            if step in due:
                if judge(losses):
                    return keeper.restore()
                losses = []
            losses.append(_step(ranker, optimiser, loss, encoded, labels))
            seen += len(labels)
            on_progress(min(seen, (epoch + 1) * len(rows)))
        if judge(losses):
            break
    return keeper.restore()


def validate(ranker: Ranker, rows: Tensors, loss: Loss) -> float:
    """The objective over a split."""
    total, count = torch.zeros(len(loss.ancestry)), torch.zeros(len(loss.ancestry))
    ranker.eval()
    with torch.no_grad():
        for encoded, labels in in_order(rows, EVALUATION_ROWS):
            part, part_rows = loss.sums(ranker(encoded), labels)
            total, count = total + part, count + part_rows
    return float(loss.mean(total, count))


def predict_logits(ranker: Ranker, rows: Tensors) -> NDArray[np.float32]:
    """Logits [rows, T] of P(task | given)."""
    ranker.eval()
    with torch.no_grad():
        parts = [ranker(encoded).numpy() for encoded, _ in in_order(rows, EVALUATION_ROWS)]
    return np.concatenate(parts)


def _step(ranker: Ranker, optimiser: Optimiser, loss: Loss, encoded: Encoded, labels: Tensor) -> Tensor:
    """One step. The looked-up rows are leaves, so that no gradient ever has the tables' size."""
    ranker.train()
    with torch.no_grad():
        rows = ranker.embeddings.look_up(encoded.ids)
    for found in rows.values():
        found.requires_grad_()
    value = loss.mean(*loss.sums(ranker.score(encoded, rows), labels))
    value.backward()  # type: ignore[no-untyped-call]
    optimiser.step(encoded.ids, rows)
    return value.detach()


def _mean(losses: Sequence[Tensor]) -> float:
    return float(torch.stack(list(losses)).mean()) if losses else float("nan")
