"""The test split as evaluation needs it: scores beside labels, weights, groups, slices and, if known, the truth.

Knows extra columns and the file of true probabilities. Does not know metrics.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.bundle import Calibration
from contract.errors import DataInvalid, RunInvalid
from contract.tasks import outputs
from models.ranker import Ranker
from training.calibration import probabilities
from training.encoders import unify
from training.loop import predict_logits
from training.run import Run, TruthOptions
from training.source import Source, open_source
from training.staging import Staged
from training.tensors import Tensors

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class HeldOut:
    """Scored rows: each array has one entry a row; `truth` and `slices` by output and column name.

    `group` numbers the groups; rows without a value are a group of their own.
    """

    scores: dict[str, NDArray[np.float32]]
    labels: NDArray[np.uint8]
    weight: Floats
    group: NDArray[np.int64] | None
    slices: dict[str, NDArray[Any]]
    truth: dict[str, Floats] | None


def score_rows(run: Run, ranker: Ranker, calibration: Sequence[Calibration], rows: Tensors, staged: Staged) -> HeldOut:
    """Score a split, and fetch what its scores are to be compared with.

    Raises: DataInvalid, RunInvalid (of the truth).
    """
    options, truth = run.evaluation, open_truth(run)
    return HeldOut(
        scores=probabilities(run.tasks, predict_logits(ranker, rows), calibration),
        labels=rows.labels,
        weight=row_weight(run, rows),
        group=_extra_index(staged, options.group, rows)[0] if options.group else None,
        slices={name: extra_values(staged, name, rows).to_numpy(zero_copy_only=False) for name in options.slices},
        truth=_truth(options.truth, truth, staged, rows) if options.truth and truth else None,
    )


def extra_columns(run: Run) -> list[str]:
    """Columns to stage beside features and labels."""
    options = run.evaluation
    return [x for x in (options.group, *options.slices, options.truth.key if options.truth else None) if x]


def row_weight(run: Run, rows: Tensors) -> Floats:
    """How many rows of the real traffic a row stands for, in a log that lost some of its negatives."""
    return np.where(rows.labels[:, 0] > 0, 1.0, 1.0 / run.data.negative_rate)


def extra_values(staged: Staged, name: str, rows: Tensors) -> pa.Array:
    """Values of an extra column at some rows."""
    index, values = _extra_index(staged, name, rows)
    return values.take(pa.array(index, mask=index == len(values)))


def _extra_index(staged: Staged, name: str, rows: Tensors) -> tuple[NDArray[np.int64], pa.Array]:
    """For some rows the index of their value among the distinct values of an extra column; missing comes last."""
    codes = staged.extra[name]
    values, maps = unify([codes])
    every = np.concatenate([to_value[batch[:, 0]] for batch, to_value in zip(codes.batches(), maps[0], strict=True)])
    return every[rows.row], values


def open_truth(run: Run) -> Source | None:
    """The file of true probabilities, if the run names one; only its columns' names are looked at.

    Raises: RunInvalid, SourceMissing, ColumnMissing, DataInvalid.
    """
    options = run.evaluation.truth
    if options is None:
        return None
    names = [output.name for output in outputs(run.tasks)]
    for name in options.columns:
        if name not in names:
            raise RunInvalid(
                f"{name!r} is no output", place="evaluation.truth.columns", remedy=f"the outputs are {', '.join(names)}"
            )
    source = open_source(options.path)
    source.check_columns([options.key, *options.columns.values()])
    return source


def _truth(options: TruthOptions, source: Source, staged: Staged, rows: Tensors) -> dict[str, Floats]:
    table = source.dataset.to_table([options.key, *dict.fromkeys(options.columns.values())])
    keys = extra_values(staged, options.key, rows)
    index = pc.index_in(keys, value_set=table.column(options.key).combine_chunks().cast(keys.type))
    if index.null_count:
        raise DataInvalid(
            f"{index.null_count} test rows have no truth", place=options.path, remedy=f"check column {options.key!r}"
        )
    return {
        name: np.asarray(table.column(column).take(index).to_numpy(), np.float64)
        for name, column in options.columns.items()
    }
