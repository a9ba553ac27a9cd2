"""What the manifest and the card say of a finished training: reference statistics, provenance, card facts.

Knows what was trained and measured. Does not know how the card looks.
"""

import hashlib
import importlib.metadata
import subprocess
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from contract.bundle import FeatureReference, Manifest, Provenance, Reference
from contract.features import MISSING_ROW, UNKNOWN_ROW
from contract.tasks import Task
from models.architecture import Particular
from models.ranker import Ranker
from training.batches import in_order
from training.card import CardFacts, Loss, Sliced, Split
from training.encoders import Fitted
from training.evaluation import curves, measured_rows, score_reference, slices
from training.held_out import HeldOut
from training.loop import History
from training.run import Run
from training.source import Source
from training.split import SPLITS, VALIDATION
from training.tensors import Tensors

LIBRARIES = ("fullfunnel", "torch", "onnx", "onnxscript", "onnxruntime", "numpy", "pyarrow")
REFERENCE_ROWS = 200_000
TOLD_ROWS = 16_384
FEW_POSITIVES = 100  # with fewer an AUC is known to about ±.06 at best, and a rate to ±20 %
USES = ("learned from", "calibrated on", "measured on")


def reference(fitted: Fitted, rows: Tensors, scores: dict[str, NDArray[np.float32]]) -> Reference:
    """Statistics of (at most REFERENCE_ROWS of) a split's inputs, and of its scores."""
    part = rows.take(slice(REFERENCE_ROWS))
    features: list[FeatureReference] = []
    for dim, ids in part.ids.items():
        start = 0
        for lookup in fitted.inputs.ordered(dim):
            found = ids[:, start : start + (lookup.length or 1)] - lookup.offset
            present = found != MISSING_ROW
            empty = ~present.any(axis=1)
            features.append(
                FeatureReference(
                    name=lookup.name,
                    missing_rate=float(empty.mean()),
                    unknown_rate=float((found == UNKNOWN_ROW).sum() / max(1, present.sum())),
                    mean_length=float(present.sum(axis=1).mean()) if lookup.length else None,
                )
            )
            start += lookup.length or 1
    for i, number in enumerate(fitted.inputs.ordered_numbers()):
        values = part.numbers[:, i]
        known = values[~np.isnan(values)]
        tenths = tuple(float(x) for x in np.quantile(known, np.linspace(0, 1, 11))) if len(known) else None
        features.append(FeatureReference(name=number.name, missing_rate=1 - len(known) / len(values), quantiles=tenths))
    return Reference(rows=len(part), features=tuple(features), scores=score_reference(scores))


def provenance(run: Run, sources: Sequence[Source]) -> Provenance:
    """Where the model comes from; no clock and no machine."""
    digest = hashlib.sha256("\n".join(source.fingerprint() for source in sources).encode()).hexdigest()
    return Provenance(
        run=run.model_dump(mode="json", exclude_none=True),  # defaults too: they may change, and `kind` is one
        seed=run.seed,
        libraries={name: importlib.metadata.version(name) for name in LIBRARIES},
        data_fingerprint=digest,
        git_commit=_git_commit(),
    )


def card_facts(
    run: Run,
    manifest: Manifest,
    fitted: Fitted,
    tensors: Sequence[Tensors],
    ranker: Ranker,
    history: History,
    test: HeldOut,
    checked: int,
) -> CardFacts:
    """Everything the card tells."""
    measured = measured_rows(run.tasks, test.scores, test.labels, weight=test.weight, truth=test.truth)
    sliced = [
        Sliced(column, part.output.name, slices(values[part.keep], part.label, part.score, part.weight))
        for column, values in test.slices.items()
        for part in measured
        if part.rows != "truth"
    ]
    return CardFacts(
        manifest=manifest,
        objective=run.training.objective,
        splits=tuple(
            Split(name, len(rows), tuple(float(x) for x in rows.labels.mean(axis=0)))
            for name, rows in zip(SPLITS, tensors, strict=True)
        ),
        curves=curves(measured),
        losses=tuple(Loss(e.rows_seen, e.train_loss, e.validation_loss) for e in history.evaluations),
        chosen_step=history.evaluations[history.best].rows_seen,
        sliced=tuple(sliced),
        table_rows={name: table.rows for name, table in fitted.tables.items()},
        parity_rows=checked,
        limits=limits(run.tasks, [rows.labels for rows in tensors]),
        particulars=(*particulars(ranker, tensors[VALIDATION], run.tasks), *history.particulars),
    )


def particulars(ranker: Ranker, rows: Tensors, tasks: tuple[Task, ...]) -> tuple[Particular, ...]:
    """What the architecture tells of itself on (at most TOLD_ROWS of) a split's rows."""
    ranker.eval()
    with torch.no_grad():
        encoded, _ = next(in_order(rows, TOLD_ROWS))
        return ranker.tell(encoded, [task.name for task in tasks])


def limits(tasks: tuple[Task, ...], labels: Sequence[NDArray[np.uint8]]) -> tuple[str, ...]:
    """A sentence for each task with few positive rows in some split; labels [B, T] of each split."""
    found = []
    for k, task in enumerate(tasks):
        positives = [int(part[:, k].sum()) for part in labels]
        few = [f"{use} {count}" for use, count in zip(USES, positives, strict=True) if count < FEW_POSITIVES]
        if few:
            found.append(
                f"{task.name}: {', '.join(few)} positive rows. Too few to tell a good model from a lucky one, or its "
                "probabilities from others."
            )
    return tuple(found)


def _git_commit() -> str | None:
    """The commit of the working directory, marked when there are changes on top; None outside a repository."""
    try:
        command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
