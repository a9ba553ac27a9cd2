"""The loop: encoded rows in, a trained ranker out.

Knows optimisers, losses over batches, and when to stop. Does not know features, files or what comes after.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contract.errors import RunInvalid
from contract.tasks import Task, ancestry
from models.architecture import Particular
from models.inputs import Encoded
from models.ranker import Ranker
from training.adagrad import RowwiseAdagrad
from training.averaging import Average
from training.batches import in_order, shuffled
from training.choices import entry_of
from training.objectives import objective
from training.regularisers.registry import REGULARISERS
from training.run import TrainingOptions
from training.schedules.registry import SCHEDULES
from training.tensors import Tensors
from training.weightings.registry import WEIGHTINGS
from training.weightings.weighting import Weighting

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
    particulars: tuple[Particular, ...] = ()


class Optimiser:
    """Adam for the dense parameters and the weighting's, row-wise Adagrad for the tables, in one step."""

    def __init__(self, ranker: Ranker, options: TrainingOptions, weighting: Weighting) -> None:
        rates = {id(parameter): rate for parameter, rate in ranker.architecture.rates()}
        groups: dict[float, list[Tensor]] = {1.0: []}
        self.dense = [parameter for parameter in ranker.architecture.parameters() if parameter.requires_grad]
        own = weighting.learning_rate(options.learning_rate)
        for parameter in self.dense:
            groups.setdefault(rates.get(id(parameter), 1.0), []).append(parameter)
        self.adam = torch.optim.AdamW(
            [
                *({"params": group, "lr": rate * options.learning_rate} for rate, group in groups.items() if group),
                *({"params": [w], "lr": own, "weight_decay": 0.0} for w in weighting.parameters()),
            ],
            options.learning_rate,
            weight_decay=options.weight_decay,
            fused=True,
        )
        self.tables = {
            int(dim): RowwiseAdagrad(table.data, learning_rate=options.embedding_learning_rate)
            for dim, table in ranker.embeddings.tables.items()
        }
        self.touched: dict[int, Tensor] = {}

    def step(self, ids: dict[int, Tensor], rows: dict[int, Tensor]) -> None:
        """Update from the gradients of the dense parameters and of the looked-up `rows`, which are the `touched` ones.

        What has no gradient stays as it is: an embedding not looked up, a parameter that asks for none.
        """
        self.touched = ids
        self.adam.step()
        self.adam.zero_grad()  # to None: a gradient of 0 would leave Adam's momentum moving
        for dim, table in self.tables.items():
            gradient = rows[dim].grad
            if gradient is not None:
                table.step(ids[dim].flatten(), gradient.view(-1, dim))


class Loss:
    """The objective of a run, weighted over its tasks."""

    def __init__(self, tasks: Sequence[Task], options: TrainingOptions) -> None:
        self.ancestry = ancestry(tuple(tasks))
        self.objective = objective(options.objective, options.escm2)
        self.task_weights = torch.tensor([options.task_weights.get(task.name, 1.0) for task in tasks])
        self.positive_weights = torch.tensor([options.positive_weights.get(task.name, 1.0) for task in tasks])

    def sums(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Summed loss and number of rows, by task [T], or by term and task [M, T]."""
        return self.objective(logits, labels, self.ancestry, self.positive_weights)

    def mean(self, total: Tensor, rows: Tensor) -> Tensor:
        """The weighted sum of the tasks' mean losses: a scalar."""
        return (self.task_weights * self.means(total, rows)).sum()

    @staticmethod
    def means(total: Tensor, rows: Tensor) -> Tensor:
        """The tasks' mean losses [T], terms added up; 0 for a task without rows."""
        return (total / rows.clamp(min=1.0)).view(-1, total.shape[-1]).sum(0)


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


class Trainer:
    """What a schedule trains with: the network, its optimiser, and the memory of how it went."""

    def __init__(
        self,
        ranker: Ranker,
        rows: Tensors,
        validation: Tensors,
        tasks: Sequence[Task],
        options: TrainingOptions,
        *,
        seed: int,
        on_progress: Callable[[int], None],
    ) -> None:
        self.ranker, self.rows, self.validation, self.options = ranker, rows, validation, options
        self.tasks = [task.name for task in tasks]
        self.loss, self.on_progress = Loss(tasks, options), on_progress
        self.random, self.seen, self.visits = np.random.default_rng(seed), 0, 0
        regulariser = options.regulariser
        self.weighting = entry_of(WEIGHTINGS, options.weighting)(options.weighting, self.loss.task_weights, self.tasks)
        self.regulariser = (
            entry_of(REGULARISERS, regulariser)(regulariser, ranker.architecture, self.tasks) if regulariser else None
        )
        positives = int(np.count_nonzero(rows.labels[:, 0]))
        steps = (positives + options.negative_rate * (len(rows) - positives)) / options.batch_rows
        self.every = max(1, round(steps / options.evaluations_per_epoch))
        self.restart()

    def restart(self) -> None:
        """Forget the optimiser's state and all evaluations: what follows trains another network."""
        self.optimiser = Optimiser(self.ranker, self.options, self.weighting)
        self.keeper = Keeper(self.ranker, self.options.patience)
        self.average = Average(self.ranker, self.options.average)

    def epoch(
        self, number: int, *, only: int | None = None, judged: bool = True, after_step: Callable[[], None] | None = None
    ) -> bool:
        """One visit of the training rows; True when patience has run out.

        `only`: the index of the one task whose loss is minimised. `judged`: evaluate on validation, as often as
        the options say. Raises: RunInvalid when training diverges.
        """
        losses: list[Tensor] = []
        self.weighting.start_epoch(number)
        due = [self.every * (k + 1) for k in range(self.options.evaluations_per_epoch - 1)] if judged else []
        self.visits += 1
        batches = shuffled(self.rows, self.options.batch_rows, self.options.negative_rate, self.random)
        for step, (encoded, labels) in enumerate(batches):
            if step in due:
                if self.judge(losses):
                    return True
                losses = []
            losses.append(self.step(encoded, labels, only))
            if after_step:
                after_step()
            self.seen += len(labels)
            self.on_progress(min(self.seen, self.visits * len(self.rows)))
        return self.judge(losses) if judged else False

    def judge(self, losses: Sequence[Tensor]) -> bool:
        """Evaluate on validation; True when patience has run out."""
        with self.average.taken():
            loss = validate(self.ranker, self.validation, self.loss)
            return self.keeper.add(Evaluation(self.seen, _mean(losses), loss))

    def step(self, encoded: Encoded, labels: Tensor, only: int | None) -> Tensor:
        """One step. The looked-up rows are leaves, so that no gradient ever has the tables' size."""
        self.ranker.train()
        ids = self.ranker.embeddings.row_ids(encoded.ids)
        with torch.no_grad():
            rows = self.ranker.embeddings.look_up(ids)
        for found in rows.values():
            found.requires_grad_()
        losses = self.loss.means(*self.loss.sums(self.ranker.score(encoded, rows), labels))
        penalty = self.regulariser.penalty() if self.regulariser else None
        if only is not None:
            whole = (self.loss.task_weights * losses).sum().detach()
            losses = losses * torch.eye(len(losses))[only]
        value: Tensor = self.weighting.backward(losses, penalty, [*self.optimiser.dense, *rows.values()])
        self.optimiser.step(ids, rows)
        if self.regulariser:
            self.regulariser.after_step()
        return value if only is None else whole  # comparable with the validation loss, which is of all tasks


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
    trainer = Trainer(ranker, rows, validation, tasks, options, seed=seed, on_progress=on_progress)
    schedule = entry_of(SCHEDULES, options.schedule)(options.schedule)
    torch.set_flush_denormal(True)  # denormal gradients would halve the speed
    try:
        schedule.run(trainer)
    finally:
        torch.set_flush_denormal(False)  # of the process, which has other numbers to compute
    history = trainer.keeper.restore()
    told = [part.tell() for part in (trainer.weighting, trainer.regulariser, schedule) if part]
    return replace(history, particulars=tuple(itertools.chain(*told)))


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


def _mean(losses: Sequence[Tensor]) -> float:
    return float(torch.stack(list(losses)).mean()) if losses else float("nan")
