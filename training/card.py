"""The model card: one HTML page that tells a person what a model is, how good, and where to stop trusting it.

Knows the facts of a finished training and how to tell them. Does not know how they were computed, nor files
beyond its own template. The page fetches nothing and runs nothing (its content policy forbids both), and equal
facts give equal bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from contract.bundle import Manifest, Metric
from contract.features import Feature, Numeric, owner
from contract.tasks import Output, Task, outputs
from models.architecture import Particular
from training.charts import loss_chart, percent, ratio_axis, ratio_dot, ratio_scale, reliability_chart, significant
from training.evaluation import TITLES, Curve, Slice, decimals
from training.metrics import ECE_BINS

MEANINGS = (
    ("auc", "AUC", "the chance that a positive row scores above a negative one; 0.5 is guessing"),
    ("gauc", "GAUC", "the same within each group (such as a user), averaged by rows: the quality of one ranking"),
    ("log_loss", "Log-loss", "mean negative log-likelihood in nats; comparable only on the same rows"),
    ("normalised_entropy", "NE", "log-loss over that of always answering the average rate; 1 is no better"),
    ("ece", "ECE", f"mean distance between predicted and observed rate over {ECE_BINS} bins of equal mass"),
    ("pcoc", "PCOC", "predicted over observed: 1 is right on average, above 1 promises too much"),
)
ROWS = {"all": "all rows", "given": "where the condition held", "truth": "all rows, against the truth"}
NOT_FOR = (
    "Decisions about people, such as credit, work, housing, insurance or health. It estimates what an impression "
    "leads to, and was checked for nothing else.",
    "Traffic of another kind than it learned from: another product, market, placement or way of choosing candidates.",
    "Claims of cause. That a feature goes with more conversions does not say that changing it would bring them.",
)


@dataclass(frozen=True)
class Split:
    """One split of the log. `rates`: the share of rows with each task's label, in task order."""

    name: str
    rows: int
    rates: tuple[float, ...]
    period: tuple[str, str] | None = None


@dataclass(frozen=True)
class Loss:
    """One evaluation during training."""

    step: int
    train: float
    validation: float


@dataclass(frozen=True)
class Sliced:
    """Calibration of one output by the values of one feature."""

    feature: str
    output: str
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class CardFacts:
    """Everything the card tells. `manifest` as it will be published; its `files` may still be empty.

    `table_rows` counts the rows of each embedding table by the feature that owns it; `chosen_step` is the
    evaluation whose weights were kept; `parity_rows` the rows on which torch and ONNX were compared.
    """

    manifest: Manifest
    objective: str
    splits: tuple[Split, ...]
    curves: tuple[Curve, ...]
    losses: tuple[Loss, ...]
    chosen_step: int | None = None
    sliced: tuple[Sliced, ...] = ()
    table_rows: Mapping[str, int] | None = None
    parity_rows: int = 0
    limits: tuple[str, ...] = ()
    not_for: tuple[str, ...] = NOT_FOR
    particulars: tuple[Particular, ...] = ()


def render_card(facts: CardFacts) -> str:
    """The page as HTML text, self-contained."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, significant=significant, count=lambda number: f"{number:,}")
    return environment.get_template("card.html.jinja").render(
        facts=facts,
        manifest=facts.manifest,
        summary=_summary(facts),
        meanings=[
            meaning for meaning in MEANINGS if any(metric.name == meaning[0] for metric in facts.manifest.metrics)
        ],
        described={output.name: describe(output, facts.manifest.tasks) for output in outputs(facts.manifest.tasks)},
        headline=_headline(facts.manifest),
        metric_rows=_metric_rows(facts.manifest.metrics),
        rows_words=ROWS,
        reliability=_reliability(facts.curves),
        losses=_loss_chart(facts),
        slices=_slices(facts.sliced),
        features=[_feature(feature, facts) for feature in facts.manifest.features],
        not_measured=_not_measured(facts),
        provenance=_provenance(facts),
        run=json.dumps(facts.manifest.provenance.run, indent=2, ensure_ascii=False),
    )


def describe(output: Output, tasks: tuple[Task, ...]) -> str:
    """What an output is the probability of.

    >>> tasks = (Task(name="click", label="c"), Task(name="conversion", label="b", given="click"))
    >>> [describe(output, tasks) for output in outputs(tasks)]
    ['P(click)', 'P(conversion | click)', 'P(conversion)']
    """
    given = next(task.given for task in tasks if task.name == output.task)
    return f"P({output.task} | {given})" if given and output.kind == "conditional" else f"P({output.task})"


def encoding(feature: Feature) -> str:
    """How a feature's values reach the network, in words."""
    if isinstance(feature, Numeric):
        return {
            "standardise": "standardised",
            "log1p": "log(1 + |x|), standardised",
            "quantile": f"{feature.bins} quantile buckets",
            "piecewise": f"piecewise-linear, {feature.bins} bins",
        }[feature.scale]
    words = f"hashed into {feature.buckets:,}" if feature.buckets else f"vocabulary, seen ≥ {feature.min_count} times"
    if feature.share:
        words = f"table of {feature.share}"
    return f"last {feature.max_length}, {words}" if feature.kind == "sequence" else words


def _summary(facts: CardFacts) -> str:
    manifest, train = facts.manifest, next((split for split in facts.splits if split.name == "train"), None)
    names = [output.name for output in outputs(manifest.tasks)]
    listed = " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
    text = (
        f"Predicts {listed} for every candidate from {len(manifest.features)} features, with the architecture "
        f"{manifest.architecture} ({manifest.parameters:,} parameters) and the objective {facts.objective}"
    )
    if train is None:
        return f"{text}."
    period = f" from {train.period[0]} to {train.period[1]}" if train.period else ""
    return f"{text}. Trained on {train.rows:,} rows{period}."


def _headline(manifest: Manifest) -> list[tuple[str, str, str, str]]:
    """For each output its AUC on observed labels: name, meaning, value, interval."""
    tiles = []
    for output in outputs(manifest.tasks):
        for metric in manifest.metrics:
            if metric.output == output.name and metric.name == "auc" and metric.rows != "truth":
                value, interval = _figures(metric, decimals(metric))
                tiles.append((output.name, describe(output, manifest.tasks), value, interval))
    return tiles


def _metric_rows(metrics: tuple[Metric, ...]) -> list[tuple[str, str, list[tuple[str, str] | None]]]:
    """Output, rows, and for each metric that anything has its value and interval; None where it is undefined.

    A column has one number of decimals, three to five: the most that a figure on observed labels in it deserves.
    """
    by_key = {(metric.output, metric.rows, metric.name): metric for metric in metrics}
    names = [name for name, _ in TITLES if any(metric.name == name for metric in metrics)]
    places = {
        name: max(3, *(min(decimals(m), 5) for m in metrics if m.name == name and m.rows != "truth"), 0)
        for name in names
    }
    table = []
    for output, rows in dict.fromkeys((metric.output, metric.rows) for metric in metrics):
        found = [by_key.get((output, rows, name)) for name in names]
        table.append(
            (output, rows, [None if metric is None else _figures(metric, places[metric.name]) for metric in found])
        )
    return table


def _figures(metric: Metric, places: int) -> tuple[str, str]:
    return f"{metric.value:.{places}f}", f"{metric.low:.{places}f} to {metric.high:.{places}f}"


def _reliability(curves: tuple[Curve, ...]) -> list[tuple[str, tuple[Curve, ...], Markup]]:
    """For each output its curves (the truth last) and their chart."""
    charts = []
    for index, (output, group) in enumerate(groupby(curves, key=lambda curve: curve.output)):
        parts = tuple(group)
        chart = reliability_chart(parts, key=f"reliability-{index}", title=f"Reliability of {output}")
        charts.append((output, parts, chart))
    return charts


def _loss_chart(facts: CardFacts) -> Markup | None:
    if len(facts.losses) < 2:
        return None
    lines = {
        "training loss": [loss.train for loss in facts.losses],
        "validation loss": [loss.validation for loss in facts.losses],
    }
    return loss_chart([loss.step for loss in facts.losses], lines, facts.chosen_step, title="Loss during training")


def _slices(sliced: tuple[Sliced, ...]) -> list[tuple[Sliced, Markup, list[tuple[Slice, Markup]]]]:
    """For each table its axis, and for each slice the drawing of its PCOC with the interval of the observed rate."""
    tables = []
    for part in sliced:
        intervals = [(_over(one.predicted, one.high), _over(one.predicted, one.low)) for one in part.slices]
        axis = ratio_axis([one.pcoc for one in part.slices])
        dots = [
            (one, ratio_dot(axis, one.pcoc, low, high)) for one, (low, high) in zip(part.slices, intervals, strict=True)
        ]
        tables.append((part, ratio_scale(axis), dots))
    return tables


def _over(predicted: float, observed: float) -> float | None:
    return predicted / observed if observed > 0 else None


def _feature(feature: Feature, facts: CardFacts) -> dict[str, str]:
    """A line of the features table, as words."""
    reference = {one.name: one for one in facts.manifest.reference.features}.get(feature.name)
    size = None if isinstance(feature, Numeric) else (facts.table_rows or {}).get(owner(feature))
    return {
        "name": feature.name,
        "side": feature.side,
        "kind": feature.kind,
        "encoding": encoding(feature),
        "rows": "" if size is None else f"{size:,}",
        "missing": "" if reference is None else percent(reference.missing_rate, 2),
        "unknown": "" if reference is None or reference.unknown_rate is None else percent(reference.unknown_rate, 2),
    }


def _not_measured(facts: CardFacts) -> list[str]:
    """What the reader might take for granted and nobody looked at."""
    metrics = facts.manifest.metrics
    known = {metric.rows for metric in metrics}
    missing = []
    conditional = [
        o.name
        for o in outputs(facts.manifest.tasks)
        if o.kind == "conditional" and any(task.given for task in facts.manifest.tasks if task.name == o.task)
    ]
    if conditional and "truth" not in known:
        missing.append(
            f"{' and '.join(conditional)} over all rows: its label exists only where its condition held, and the true "
            "probability is not known."
        )
    if not any(metric.name == "gauc" for metric in metrics):
        missing.append("Ranking within a user or session (GAUC): the run names no group key.")
    if not facts.sliced:
        missing.append("Calibration per slice: the run names no feature to slice by.")
    missing.append("Fairness between groups of people, beyond the slices shown.")
    missing.append("Traffic after the test split, and the effect on users of ranking by these scores.")
    return missing


def _provenance(facts: CardFacts) -> list[tuple[str, str]]:
    origin = facts.manifest.provenance
    return [
        ("Seed", str(origin.seed)),
        ("Data fingerprint", origin.data_fingerprint),
        ("Git commit", origin.git_commit or "not recorded"),
        *((name, version) for name, version in sorted(origin.libraries.items())),
    ]
