"""What a model is worth on held-out rows: metrics per output, reliability, slices, score deciles.

Knows tasks, scores by output name, labels and, where a simulator tells it, the truth. Does not know networks,
files or how any of it is drawn.

An output is measured where its probability is defined and its label observed: a joint or unconditional one on
`all` rows, a conditional one on the `given` rows (pCVR on clicked ones). Where the true probability is known,
each output is also measured against it on all rows: the `truth` rows.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from contract.bundle import Metric, ScoreReference
from contract.features import INT64_MISSING
from contract.tasks import Output, Task, outputs
from training.metrics import Interval, bootstrap, equal_mass_bins

Floats = NDArray[np.float64]
TITLES = (
    ("auc", "AUC"),
    ("gauc", "GAUC"),
    ("log_loss", "log-loss"),
    ("normalised_entropy", "NE"),
    ("ece", "ECE"),
    ("pcoc", "PCOC"),
)


@dataclass(frozen=True)
class Bin:
    """Rows of about equal score: their mean prediction and label, the latter with its 95 % interval."""

    rows: int
    predicted: float
    observed: float
    low: float
    high: float


@dataclass(frozen=True)
class Slice(Bin):
    """The rows with one value, or one range of values, of a column. `pcoc` is None without positives."""

    name: str
    pcoc: float | None


@dataclass(frozen=True)
class Histogram:
    """Shares of the negatives and of the positives per bin of score; the edges are evenly spaced in the logarithm."""

    edges: tuple[float, ...]
    negatives: tuple[float, ...]
    positives: tuple[float, ...]


@dataclass(frozen=True)
class Curve:
    """How an output is calibrated and spread, on one kind of rows."""

    output: str
    rows: str
    bins: tuple[Bin, ...]
    histogram: Histogram


@dataclass(frozen=True)
class Measured:
    """The rows on which an output is measured: labels [B], scores [B], weights [B]; `keep` chose them from all."""

    output: Output
    rows: str
    label: Floats
    score: Floats
    weight: Floats
    keep: NDArray[np.bool_]


def evaluate(
    tasks: tuple[Task, ...],
    scores: Mapping[str, NDArray[np.floating]],
    labels: NDArray[np.generic],
    *,
    weight: NDArray[np.floating] | None = None,
    group: NDArray[np.generic] | None = None,
    truth: Mapping[str, NDArray[np.floating]] | None = None,
    resamples: int = 100,
    seed: int = 0,
) -> tuple[Metric, ...]:
    """Every metric of every output, with its interval, in the order of the outputs.

    `scores` [B] by output name, `labels` [B, T], `weight` [B], `group` [B] (users, say: gives GAUC, and the
    intervals then resample groups), `truth` [B] by output name. A metric its rows do not define (one class, no
    row) is left out. There is no GAUC against the truth: with probabilities for labels every group, even of one
    row, holds both classes.
    """
    measured = measured_rows(tasks, scores, labels, weight=weight, truth=truth)
    codes = None if group is None else np.unique(group, return_inverse=True)[1]

    def measure(part: Measured) -> dict[str, Interval]:
        of_group = None if codes is None else codes[part.keep]
        found = bootstrap(part.label, part.score, weight=part.weight, group=of_group, resamples=resamples, seed=seed)
        return {name: found[name] for name, _ in TITLES if name in found and (name, part.rows) != ("gauc", "truth")}

    with ThreadPoolExecutor(2) as pool:  # numpy lets go of the interpreter; each bootstrap has its own generator
        results = list(pool.map(measure, measured))
    return tuple(
        Metric(name=name, output=part.output.name, rows=part.rows, value=it.value, low=it.low, high=it.high)
        for part, result in zip(measured, results, strict=True)
        for name, it in result.items()
        if np.isfinite(it.value)
    )


def measured_rows(
    tasks: tuple[Task, ...],
    scores: Mapping[str, NDArray[np.floating]],
    labels: NDArray[np.generic],
    *,
    weight: NDArray[np.floating] | None = None,
    truth: Mapping[str, NDArray[np.floating]] | None = None,
) -> tuple[Measured, ...]:
    """The rows each output is measured on, in the order of the outputs; arguments as for `evaluate`."""
    y = np.asarray(labels, dtype=np.float64)
    w = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)
    index = {task.name: t for t, task in enumerate(tasks)}
    everywhere = np.ones(len(y), dtype=np.bool_)
    parts: list[Measured] = []
    for output in outputs(tasks):
        t = index[output.task]
        score = np.asarray(scores[output.name], dtype=np.float64)
        given = tasks[t].given
        if output.kind == "conditional" and given is not None:
            keep = y[:, index[given]] > 0
            parts.append(Measured(output, "given", y[keep, t], score[keep], w[keep], keep))
        else:
            parts.append(Measured(output, "all", y[:, t], score, w, everywhere))
        if truth is not None and output.name in truth:
            known = np.asarray(truth[output.name], dtype=np.float64)
            parts.append(Measured(output, "truth", known, score, w, everywhere))
    return tuple(parts)


def curves(parts: tuple[Measured, ...]) -> tuple[Curve, ...]:
    """Reliability and spread of each part that has rows."""
    return tuple(
        Curve(
            part.output.name,
            part.rows,
            reliability(part.label, part.score, part.weight),
            histogram(part.label, part.score, part.weight),
        )
        for part in parts
        if part.weight.any()
    )


def reliability(
    label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None, *, bins: int = 15
) -> tuple[Bin, ...]:
    """Predicted against observed in at most `bins` bins of equal mass, lowest scores first."""
    y, s, w = _columns(label, score, weight)
    order = np.argsort(s, kind="stable")
    starts = equal_mass_bins(s[order], w[order], bins)
    return tuple(_bin(y[rows], s[rows], w[rows]) for rows in np.split(order, starts[1:]) if w[rows].any())


def histogram(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None, *, bins: int = 40) -> Histogram:
    """How the scores of negatives and of positives are spread, between the .1 % and the 99.9 % quantile.

    Scores beyond are counted in the first and the last bin. No edges for no rows.
    """
    y, s, w = _columns(label, score, weight)
    if not s.size:
        return Histogram((), (), ())
    low, high = (float(quantile) for quantile in np.quantile(np.maximum(s, 1e-9), (0.001, 0.999)))
    edges = np.geomspace(low, max(high, low * 1.01), bins + 1)
    place = np.clip(np.searchsorted(edges, s, side="right") - 1, 0, bins - 1)
    shares = []
    for mass in (w * (1 - y), w * y):
        total = mass.sum()
        count = np.bincount(place, weights=mass, minlength=bins)
        shares.append(tuple((count / total if total > 0 else count).tolist()))
    return Histogram(tuple(edges.tolist()), shares[0], shares[1])


def slices(
    values: NDArray[np.generic], label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None, *, top: int = 10
) -> tuple[Slice, ...]:
    """Calibration per value of a column: deciles of a float one, else its `top` most frequent values and the rest.

    `values` [B]. A missing value (NaN, None, "", the smallest int64) is a slice of its own, last.
    """
    y, s, w = _columns(label, score, weight)
    missing = _missing(values)
    present = np.flatnonzero(~missing)
    parts = _deciles(values, present) if values.dtype.kind == "f" else _most_frequent(values, present, top)
    if missing.any():
        parts.append(("(missing)", np.flatnonzero(missing)))
    found = []
    for name, rows in parts:
        part = _bin(y[rows], s[rows], w[rows])
        pcoc = part.predicted / part.observed if part.observed > 0 else None
        found.append(Slice(part.rows, part.predicted, part.observed, part.low, part.high, name, pcoc))
    return tuple(found)


def score_reference(scores: Mapping[str, NDArray[np.floating]]) -> tuple[ScoreReference, ...]:
    """Mean and deciles of each output's scores [B], to tell drift from later."""
    tenths = np.linspace(0, 1, 11)
    return tuple(
        ScoreReference(
            name=name,
            mean=float(np.mean(score, dtype=np.float64)),
            quantiles=tuple(np.quantile(np.asarray(score, dtype=np.float64), tenths).tolist()),
        )
        for name, score in scores.items()
    )


def decimals(metric: Metric) -> int:
    """How many decimals a figure deserves: two significant digits of its interval's half-width, 2 to 6."""
    half = (metric.high - metric.low) / 2
    return 4 if half <= 0 else int(np.clip(1 - np.floor(np.log10(half)), 2, 6))


def _bin(label: Floats, score: Floats, weight: Floats) -> Bin:
    total = weight.sum()
    predicted, observed = float((weight * score).sum() / total), float((weight * label).sum() / total)
    low, high = _wilson(observed, float(total**2 / (weight**2).sum()))
    return Bin(label.size, predicted, observed, low, high)


def _wilson(rate: float, rows: float) -> tuple[float, float]:
    """95 % interval of a rate seen in `rows` rows (Wilson 1927); for weighted rows, Kish's effective number."""
    z = 1.959964
    centre = (rate + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * float(np.sqrt(rate * (1 - rate) / rows + z**2 / (4 * rows**2)))
    return max(0.0, centre - half), min(1.0, centre + half)


def _missing(values: NDArray[np.generic]) -> NDArray[np.bool_]:
    kind = values.dtype.kind
    if kind == "f":
        return np.isnan(values.astype(np.float64))
    if kind == "O":
        return np.array([value is None or value == "" for value in values.tolist()], dtype=np.bool_)
    if kind in "iU":
        return np.asarray(values == (INT64_MISSING if kind == "i" else ""), dtype=np.bool_)
    return np.zeros(values.shape, dtype=np.bool_)


def _deciles(values: NDArray[np.generic], present: NDArray[np.intp]) -> list[tuple[str, NDArray[np.intp]]]:
    numbers = values.astype(np.float64)
    ordered = present[np.argsort(numbers[present], kind="stable")]
    starts = equal_mass_bins(numbers[ordered], np.ones(ordered.size), 10)
    parts = []
    for rows in np.split(ordered, starts[1:]) if ordered.size else []:
        low, high = numbers[rows[0]], numbers[rows[-1]]
        parts.append((f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}", rows))
    return parts


def _most_frequent(
    values: NDArray[np.generic], present: NDArray[np.intp], top: int
) -> list[tuple[str, NDArray[np.intp]]]:
    distinct, codes, counts = np.unique(values[present], return_inverse=True, return_counts=True)
    frequent = np.argsort(-counts, kind="stable")[:top]
    parts = [(str(distinct[i]), present[codes == i]) for i in frequent]
    rest = ~np.isin(codes, frequent)
    if rest.any():
        parts.append((f"({distinct.size - top:,} other values)", present[rest]))
    return parts


def _columns(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    y, s = np.asarray(label, dtype=np.float64), np.asarray(score, dtype=np.float64)
    return y, s, np.ones(y.shape) if weight is None else np.asarray(weight, dtype=np.float64)
