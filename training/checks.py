"""What makes a log unfit for training, beyond what reading it shows: one class only, and leaks.

Knows encoded rows. Does not know files.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from contract.errors import LeakingFeature, OneClass
from contract.tasks import Task, ancestry
from training.encoders import Fitted, quantile_edges
from training.metrics import auc
from training.split import SPLITS, TRAIN, VALIDATION
from training.tensors import Tensors

LEAK_AUC = 0.98
LEAK_POSITIVES = 20
LEAK_ROWS = 200_000
LEAK_BINS = 64


def check_classes(tensors: Sequence[Tensors], tasks: tuple[Task, ...]) -> None:
    """Every task needs rows of both labels, where its condition holds, to be trained and calibrated.

    Raises: OneClass.
    """
    for split in (TRAIN, VALIDATION):
        labels = tensors[split].labels
        for k, chain in enumerate(ancestry(tasks)):
            held = labels[:, k] if len(chain) == 1 else labels[labels[:, chain[-2]] > 0, k]
            if len(np.unique(held)) < 2:
                condition = f" where {tasks[k].given} holds" if tasks[k].given else ""
                kind = "no row" if not len(held) else "only positive rows" if held[0] else "only negative rows"
                raise OneClass(
                    f"{kind} in the {SPLITS[split]} split{condition}",
                    place=f"task {tasks[k].name!r}",
                    remedy="give more rows, or a larger share to that split",
                )


def check_leaks(tensors: Sequence[Tensors], fitted: Fitted, tasks: tuple[Task, ...]) -> None:
    """Stop when a single feature gives a label away: the training rate of its value ranks validation labels.

    Tasks with fewer than LEAK_POSITIVES validation positives are passed over: chance alone would ring.
    Raises: LeakingFeature.
    """
    train, validation = tensors[TRAIN].take(slice(LEAK_ROWS)), tensors[VALIDATION].take(slice(LEAK_ROWS))
    chains = ancestry(tasks)
    for k, task in enumerate(tasks):
        held = [
            x.labels[:, chains[k][-2]] > 0 if task.given else np.ones(len(x), np.bool_) for x in (train, validation)
        ]
        labels, seen = validation.labels[held[1], k], train.labels[held[0], k].astype(np.float64)
        if labels.sum() < LEAK_POSITIVES or labels.all():
            continue
        for name, old, new in _columns(train, validation, fitted):
            size = 1 + int(max(old.max(initial=0), new.max(initial=0)))
            score = _rates(old[held[0]], seen, size)[new[held[1]]]
            found = auc(labels, score)
            if found > LEAK_AUC:
                raise LeakingFeature(
                    f"alone it tells {task.name!r} with an AUC of {found:.3f}, as what is recorded after it does",
                    place=f"feature {name!r}",
                    remedy="remove the feature, or the label's trace in it",
                )


def _rates(codes: NDArray[np.int64], labels: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Smoothed training rate of each code below `size`, with the mean for codes not seen."""
    count = np.bincount(codes, minlength=size)
    mean = labels.mean() if len(labels) else 0.0
    rates: NDArray[np.float64] = (np.bincount(codes, labels, minlength=size) + mean) / (count + 1.0)
    return rates


def _columns(
    train: Tensors, validation: Tensors, fitted: Fitted
) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.int64]]]:
    """Each single-valued feature as small codes, of training and validation rows."""
    for dim in train.ids:
        start = 0
        for lookup in fitted.inputs.ordered(dim):
            if lookup.length is None:
                old, new = (x.ids[dim][:, start].astype(np.int64) - lookup.offset for x in (train, validation))
                yield lookup.name, old, np.minimum(new, old.max(initial=0) + 1)
            start += lookup.length or 1
    for i, number in enumerate(fitted.inputs.ordered_numbers()):
        present = train.numbers[~np.isnan(train.numbers[:, i]), i]
        edges = np.array(quantile_edges(present, LEAK_BINS), np.float32)
        old, new = (_bins(x.numbers[:, i], edges) for x in (train, validation))
        yield number.name, old, new


def _bins(values: NDArray[np.float32], edges: NDArray[np.float32]) -> NDArray[np.int64]:
    """Number of each value's bin; a missing one has a bin of its own."""
    return np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="right"))
