"""Metrics of probabilities, each with a bootstrap interval.

Knows labels, scores, weights and groups as arrays of B rows. Does not know tasks, models or files.

A label is in [0, 1]. One strictly between is a known probability p: its row counts as a positive of weight p
and a negative of weight 1 - p. A weight is how many rows of the real traffic a row stands for (1 / rate for a
negative kept with that rate). A metric that its rows do not define (the AUC of one class) is NaN, never an
error: a tiny test split must not end a training that took hours.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from contract.errors import LabelInvalid, ScoreInvalid

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ECE_BINS = 20
EPSILON = 2.0**-24  # the step of float32 just below 1: probabilities nearer to 0 or 1 cost what this one costs


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % bootstrap interval. NaN where the rows do not define it.

    `resamples` counts those that defined the metric; the others (one class only) are left out.
    """

    value: float
    low: float
    high: float
    resamples: int


def auc(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Probability that a positive scores above a negative, a tie counting half. NaN for one class.

    The scores [B] may be any finite numbers. Exact, through ranks (Mann & Whitney 1947).
    """
    y, s, w = _checked(label, score, weight, probability=False)
    order = np.argsort(s, kind="stable")
    return _auc((w * y)[order], (w * (1 - y))[order], _ends(s[order]))


def gauc(label: ArrayLike, score: ArrayLike, group: NDArray[np.generic], weight: ArrayLike | None = None) -> float:
    """Mean of the AUC within each group (a user, a session), weighted by the group's rows.

    Groups of one class are left out; NaN if none remains. `group` [B]: integers or strings.
    Zhu et al. 2017, "Optimized Cost per Click in Taobao Display Advertising", section 5.1.
    """
    y, s, w = _checked(label, score, weight, probability=False)
    within, mass = _auc_by_group(y, s, w, _codes(group, y.size))
    return _ratio(_dot(within, mass), float(mass.sum()))


def log_loss(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Mean negative log-likelihood, in nats."""
    y, s, w = _checked(label, score, weight)
    return _ratio(_dot(w, _loss(y, s)), float(w.sum()))


def normalised_entropy(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Log-loss over that of always answering the base rate: 1 is no better. NaN for one class.

    He et al. 2014, "Practical Lessons from Predicting Clicks on Ads at Facebook", equation 3.
    """
    y, s, w = _checked(label, score, weight)
    return _ratio(log_loss(y, s, w), _entropy(_ratio(_dot(w, y), float(w.sum()))))


def ece(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None, *, bins: int = ECE_BINS) -> float:
    """Mean over bins of |mean prediction - mean label|, weighted by the bins' mass.

    Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning"; bins of equal mass as in
    Nixon et al. 2019, arXiv 1904.01685, since scores of rare events crowd into one or two bins of equal width.
    Sampling noise adds to it: about sqrt(2 bins rate / (pi rows)) for a perfectly calibrated model.
    """
    y, s, w = _checked(label, score, weight)
    order = np.argsort(s, kind="stable")
    starts = equal_mass_bins(s[order], w[order], bins)
    gaps = _sums((w * (s - y))[order], starts)
    return _ratio(float(np.abs(gaps).sum()), float(w.sum()))


def pcoc(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Predicted over observed: mean prediction / mean label. 1 is calibrated on average. NaN without positives."""
    y, s, w = _checked(label, score, weight)
    return _ratio(_dot(w, s), _dot(w, y))


def equal_mass_bins(score: Floats, weight: Floats, bins: int) -> Ints:
    """Where bins of about equal mass start, in rows sorted by score; equal scores are never parted.

    `score` [B] ascending, `weight` [B]. Returns at most `bins` starts, the first 0; none without rows. Ties can
    leave a bin heavier, and fewer bins; what they leave below half a bin's mass joins a neighbour.
    """
    runs = _runs(score)
    mass = np.cumsum(_sums(weight, runs))
    if not runs.size or mass[-1] <= 0:
        return runs[:1]
    before = np.concatenate(([0.0], mass[:-1]))
    index = np.minimum((before + mass) / 2 / mass[-1] * bins, bins - 1).astype(np.int64)
    half = mass[-1] / bins / 2 * (1 - 1e-9)
    kept = [0]
    for run in np.flatnonzero(np.diff(index)) + 1:
        if before[run] - before[kept[-1]] >= half:
            kept.append(int(run))
    if len(kept) > 1 and mass[-1] - before[kept[-1]] < half:
        kept.pop()
    return runs[kept]


def bootstrap(
    label: ArrayLike,
    score: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    group: NDArray[np.generic] | None = None,
    resamples: int = 100,
    seed: int = 0,
) -> dict[str, Interval]:
    """Every metric with its 95 % percentile interval (Efron & Tibshirani 1993, section 13.3), by name.

    With `group` [B], whole groups are drawn: the rows of one user resemble each other, and drawing them one by
    one would give intervals that are too narrow (Field & Welsh 2007). Without it rows are drawn and there is no
    `gauc`. The order of the rows does not matter. Resampling adds noise, and noise only ever raises ECE: its
    interval is shifted so that the median of the resamples is the value.
    """
    y, s, w = _checked(label, score, weight)
    codes = _codes(group, y.size) if group is not None else None
    rows = _Sorted(y, s, w)
    value = rows.measure(None)
    if codes is not None:
        within, mass = _auc_by_group(y, s, w, codes)
        value["gauc"] = _ratio(_dot(within, mass), float(mass.sum()))
        codes = codes[rows.order]
    generator = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in value}
    units = y.size if codes is None else within.size
    for _ in range(resamples if units else 0):
        times = np.bincount(generator.integers(0, units, units), minlength=units).astype(np.float64)
        measured = rows.measure(times if codes is None else times[codes])
        if codes is not None:
            measured["gauc"] = _ratio(_dot(times, within * mass), _dot(times, mass))
        for name, number in measured.items():
            if np.isfinite(number):
                drawn[name].append(number)
    return {name: _interval(value[name], drawn[name], centred=name == "ece") for name in value}


class _Sorted:
    """Rows sorted by score once, so that each resample costs a few passes and no sort."""

    def __init__(self, label: Floats, score: Floats, weight: Floats) -> None:
        self.order = np.argsort(score, kind="stable")
        y, s, w = label[self.order], score[self.order], weight[self.order]
        self._ends = _ends(s)
        self._bins = equal_mass_bins(s, w, ECE_BINS)
        self._mass = np.stack([w * y, w * (1 - y), w * s, w * _loss(y, s)])  # [4, B]
        self._drawn = np.empty_like(self._mass)

    def measure(self, times: Floats | None) -> dict[str, float]:
        """The metrics with row i of the sorted rows taken `times[i]` times (once if None)."""
        mass = self._mass if times is None else np.multiply(self._mass, times, out=self._drawn)
        binned = np.add.reduceat(mass, self._bins, axis=1) if self._bins.size else mass
        positive, negative, predicted, loss = (float(number) for number in binned.sum(axis=1))
        total = positive + negative
        mean_loss = _ratio(loss, total)
        return {
            "auc": _auc(mass[0], mass[1], self._ends),
            "log_loss": mean_loss,
            "normalised_entropy": _ratio(mean_loss, _entropy(_ratio(positive, total))),
            "ece": _ratio(float(np.abs(binned[2] - binned[0]).sum()), total),
            "pcoc": _ratio(predicted, positive),
        }


def _auc(positive: Floats, negative: Floats, ends: Ints) -> float:
    """AUC from the positive and negative mass of rows sorted by score; `ends`: the last row of each tie."""
    if not ends.size:
        return float("nan")
    below = np.cumsum(negative)
    if ends.size < positive.size:
        below = below[ends]
        positive, negative = np.diff(np.cumsum(positive)[ends], prepend=0.0), np.diff(below, prepend=0.0)
    return _ratio(_dot(positive, below) - _dot(positive, negative) / 2, float(positive.sum() * below[-1]))


def _auc_by_group(label: Floats, score: Floats, weight: Floats, codes: Ints) -> tuple[Floats, Floats]:
    """For each of G groups its AUC [G] and mass [G], both 0 where the group has one class."""
    order = np.lexsort((score, codes))
    y, s, w, g = label[order], score[order], weight[order], codes[order]
    runs = np.flatnonzero(_changes(s) | _changes(g))
    positive, negative = _sums(w * y, runs), _sums(w * (1 - y), runs)
    groups = np.flatnonzero(_changes(g[runs]))
    p, n = _sums(positive, groups), _sums(negative, groups)
    before = np.repeat(np.cumsum(n) - n, np.diff(groups, append=runs.size))
    won = _sums(positive * (np.cumsum(negative) - negative / 2 - before), groups)
    both = (p > 0) & (n > 0)
    return np.divide(won, p * n, out=np.zeros_like(won), where=both), np.where(both, p + n, 0.0)


def _interval(value: float, drawn: list[float], *, centred: bool) -> Interval:
    if not np.isfinite(value) or not drawn:
        return Interval(value, value, value, len(drawn))
    low, median, high = (float(quantile) for quantile in np.quantile(drawn, (0.025, 0.5, 0.975)))
    if centred:
        low, high = max(0.0, low + value - median), high + value - median
    return Interval(value, low, high, len(drawn))


def _loss(label: Floats, score: Floats) -> Floats:
    p = np.clip(score, EPSILON, 1 - EPSILON)
    loss: Floats = -(label * np.log(p) + (1 - label) * np.log1p(-p))
    return loss


def _entropy(rate: float) -> float:
    """Of a coin, in nats; NaN for one that always falls on the same side."""
    if not 0 < rate < 1:
        return float("nan")
    return float(-(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)))


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else float("nan")


def _dot(left: Floats, right: Floats) -> float:
    """Not `@`: BLAS splits the sum by its number of threads, and equal runs must give equal digits."""
    return float(np.einsum("i,i->", left, right))


def _sums(values: Floats, starts: Ints) -> Floats:
    """Sums of the stretches of `values` that begin at `starts` (empty for none)."""
    return np.add.reduceat(values, starts) if starts.size else np.zeros(0)


def _changes(ordered: NDArray[np.generic]) -> NDArray[np.bool_]:
    changes = np.ones(ordered.size, dtype=np.bool_)
    changes[1:] = ordered[1:] != ordered[:-1]
    return changes


def _runs(ordered: Floats) -> Ints:
    """Where runs of equal values start."""
    return np.flatnonzero(_changes(ordered))


def _ends(ordered: Floats) -> Ints:
    """Where runs of equal values end, that row included."""
    return np.append(_runs(ordered)[1:], ordered.size)[: ordered.size] - 1


def _codes(group: NDArray[np.generic], rows: int) -> Ints:
    if group.shape != (rows,):
        raise ValueError(f"{rows} rows and a group of shape {group.shape}")
    codes: Ints = np.unique(group, return_inverse=True)[1].astype(np.int64)
    return codes


def _checked(
    label: ArrayLike, score: ArrayLike, weight: ArrayLike | None, *, probability: bool = True
) -> tuple[Floats, Floats, Floats]:
    """The three as float64 [B]. Raises: LabelInvalid, ScoreInvalid, ValueError."""
    y, s = np.asarray(label, dtype=np.float64), np.asarray(score, dtype=np.float64)
    w = np.ones(y.shape) if weight is None else np.asarray(weight, dtype=np.float64)
    if y.ndim != 1 or y.shape != s.shape or y.shape != w.shape:
        raise ValueError(f"label {y.shape}, score {s.shape} and weight {w.shape} must be one number a row")
    if not ((y >= 0) & (y <= 1)).all():
        raise LabelInvalid("a label that is not in [0, 1]")
    if probability and not ((s >= 0) & (s <= 1)).all():
        raise ScoreInvalid("a score that is not a probability")
    if not np.isfinite(s).all():
        raise ScoreInvalid("a score that is not a finite number")
    if not ((w >= 0) & (w < np.inf)).all():
        raise ValueError("a weight that is negative or not finite")
    return y, s, w
