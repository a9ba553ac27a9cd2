"""`python -m benchmarks.email`: the e-mail funnel, beside scikit-learn's gradient boosting on the same folds.

Each fold is trained through the whole pipeline by runs/email.toml, calibration and export included, and its test
rows are scored by the published bundle, as the service scores them. Beside it HistGradientBoostingClassifier with
default settings, one model an output, in two variants: with the run's categorical features declared as such, or only
those that are strings, the rest as ordered numbers. It has no need of a validation split, so its training rows are
the run's training AND validation rows: a seventh more than the run learns from. Differences are taken from the
variant of the higher mean.

AUC is measured on each fold's test rows, and that of P(acknowledged | opened) on the opened ones. The pooled PCOC is
the sum of the predictions over the sum of the labels on the test rows of all folds.

Knows the run file, the pipeline and the scorer. Does not know what a network looks like.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pyarrow as pa
import sklearn
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from contract.features import Side
from contract.tasks import Output, Task, outputs
from service.scoring.scorer import Scorer
from training.card import describe
from training.columns import labels_of
from training.metrics import auc
from training.pipeline import read_log, train
from training.run import Run, load_run
from training.split import TEST

RUN = Path("runs/email.toml")
DECLARED, ORDERED = "boosting, categories declared", "boosting, categories as numbers"
SYSTEMS = ("Fullfunnel", DECLARED, ORDERED)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """The test rows of one fold on which an output is measured: labels [B], and each system's scores [B] by name."""

    labels: Floats
    scores: dict[str, Floats]

    def auc(self, system: str) -> float:
        """AUC of a system on these rows."""
        return auc(self.labels, self.scores[system])


Fold = dict[str, Scored]  # by output name


def measure(run: Run, directory: Path) -> Fold:
    """Train one fold and the boosted trees of its outputs, and score its test rows."""
    bundle = directory / f"fold-{run.split.fold}"
    train(run, bundle)
    log = read_log(run)
    (source,) = log.sources
    rows = source.dataset.to_table([*(f.name for f in run.features), *dict.fromkeys(t.label for t in run.tasks)])
    labels = labels_of(rows.combine_chunks().to_batches()[0], run.tasks, source.path, 0)
    test = log.split == TEST
    ours = score(bundle, rows.filter(pa.array(test)))
    values = {DECLARED: matrix(run, rows, every=True), ORDERED: matrix(run, rows, every=False)}
    fold = {}
    for output in outputs(run.tasks):
        held, label = measured(output, run.tasks, labels)
        learn, predict = held & ~test, held & test
        scores = {"Fullfunnel": ours[output.name][held[test]].astype(np.float64)}
        for name, (x, categorical) in values.items():
            trees = HistGradientBoostingClassifier(categorical_features=categorical, random_state=run.seed)
            with threadpool_limits(1):  # on a shared machine its threads wait for each other for minutes
                scores[name] = trees.fit(x[learn], label[learn]).predict_proba(x[predict])[:, 1]
        fold[output.name] = Scored(label[predict], scores)
    return fold


def score(bundle: Path, rows: pa.Table) -> dict[str, NDArray[np.float32]]:
    """Each output's probabilities by the published bundle, every row with a user of its own."""
    scorer = Scorer.load(bundle)
    columns: dict[Side, dict[str, list[object]]] = {"user": {}, "item": {}}
    for feature in scorer.manifest.features:
        columns[feature.side][feature.name] = rows[feature.name].to_pylist()
    return scorer.score(columns["user"], columns["item"], np.arange(rows.num_rows))


def matrix(run: Run, rows: pa.Table, *, every: bool) -> tuple[Floats, list[int]]:
    """The features as boosting takes them [rows, F], NaN for missing, and which of them are categorical.

    With `every`, all that the run declares categorical; without, those that hold strings.
    """
    columns, categorical = [], []
    for i, feature in enumerate(run.features):
        column = rows[feature.name].combine_chunks()
        is_text = pa.types.is_string(column.type)
        if is_text:
            column = column.dictionary_encode().indices  # of all rows: a code says nothing of the label
            empty = rows[feature.name].combine_chunks().to_numpy(zero_copy_only=False) == ""
        values = column.to_numpy(zero_copy_only=False).astype(np.float64)
        columns.append(np.where(empty, np.nan, values) if is_text else values)
        if is_text or (every and feature.kind == "categorical"):
            categorical.append(i)
    return np.stack(columns, axis=1), categorical


def measured(output: Output, tasks: tuple[Task, ...], labels: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], Floats]:
    """The rows on which an output is learned and measured [rows], and its labels [rows]."""
    names = [task.name for task in tasks]
    index = names.index(output.task)
    given = tasks[index].given
    held = labels[:, names.index(given)] > 0 if given and output.kind == "conditional" else np.ones(len(labels), bool)
    return held, labels[:, index].astype(np.float64)


def pooled_pcoc(folds: Sequence[Fold], output: str, system: str) -> float:
    """Sum of predictions over sum of labels, on the test rows of all folds."""
    predicted = sum(float(fold[output].scores[system].sum()) for fold in folds)
    return predicted / sum(float(fold[output].labels.sum()) for fold in folds)


def best_boosting(folds: Sequence[Fold], output: str) -> str:
    """The variant of the higher mean AUC."""
    return max((DECLARED, ORDERED), key=lambda name: fmean(fold[output].auc(name) for fold in folds))


def fold_table(folds: Sequence[Fold], titles: dict[str, str]) -> str:
    """A line per output and fold, AUC by system."""
    lines: list[tuple[str, ...]] = [("AUC of", "fold", "rows", "positive", *SYSTEMS)]
    for output, title in titles.items():
        for number, fold in enumerate(folds):
            labels = fold[output].labels
            aucs = (f"{fold[output].auc(name):.4f}" for name in SYSTEMS)
            lines.append((title, str(number), f"{len(labels):,}", f"{int(labels.sum()):,}", *aucs))
    return markdown(lines, words=1)


def mean_table(folds: Sequence[Fold], titles: dict[str, str]) -> str:
    """A line per output: mean AUC, the difference with its standard error over folds, and the pooled PCOC."""
    lines = [("mean of folds", *(f"AUC, {name}" for name in SYSTEMS), "ahead by", "PCOC", "PCOC, boosting")]
    for output, title in titles.items():
        best = best_boosting(folds, output)
        ahead = [fold[output].auc("Fullfunnel") - fold[output].auc(best) for fold in folds]
        spread = f" ± {stdev(ahead) / len(ahead) ** 0.5:.4f}" if len(ahead) > 1 else ""
        aucs = (f"{fmean(fold[output].auc(name) for fold in folds):.4f}" for name in SYSTEMS)
        pcocs = (f"{pooled_pcoc(folds, output, name):.3f}" for name in ("Fullfunnel", best))
        lines.append((title, *aucs, f"{fmean(ahead):+.4f}{spread}", *pcocs))
    return markdown(lines, words=1)


def markdown(lines: Sequence[tuple[str, ...]], words: int) -> str:
    """A Markdown table; all columns but the first `words` are numbers."""
    head, *body = lines
    rule = (*["---"] * words, *["---:"] * (len(head) - words))
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body))


def main(argv: list[str] | None = None) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.email", description=__doc__)
    parser.add_argument("--folds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--run", type=Path, default=RUN, help="features, model and training (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the run")
    options = parser.parse_args(argv)
    folds: list[Fold] = []
    titles: dict[str, str] = {}
    for number in range(options.folds):
        run = load_run(options.run, [*options.set, f"split.folds={options.folds}", f"split.fold={number}"])
        titles = {output.name: describe(output, run.tasks).replace("|", r"\|") for output in outputs(run.tasks)}
        with tempfile.TemporaryDirectory() as directory:
            folds.append(measure(run, Path(directory)))
        print(f"fold {number} done", file=sys.stderr)
    print(f"scikit-learn {sklearn.__version__}\n")
    print(fold_table(folds, titles), mean_table(folds, titles), sep="\n\n")


if __name__ == "__main__":
    main()
