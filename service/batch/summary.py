"""A tally as facts: rates, drift against the bundle's reference statistics, and quality where labels were there.

Knows counts. Does not know where they come from, nor how facts are shown.
"""

from typing import Any

import numpy as np

from contract.bundle import FeatureReference, Manifest
from contract.tasks import Output
from service.batch.tally import BINS, EPSILON, STEPS, Counts, Tally, edges_of, lower_edges
from service.scoring.drift import psi, three

DECIMALS = 6


def facts(manifest: Manifest, tally: Tally) -> dict[str, Any]:
    """The summary, as JSON holds it. What cannot be told is null."""
    return {
        "model": {"name": manifest.name, "version": manifest.version},
        "rows": tally.rows,
        "refused": tally.rows - tally.scored,
        "features": {name: _feature(manifest, tally, name) for name in tally.features},
        "scores": {name: _score(manifest, tally, name) for name in tally.scores},
        "quality": [_quality(manifest, tally, entry) for entry in manifest.outputs if entry.name in tally.labels],
    }


def auc(negative: Counts, positive: Counts) -> float | None:
    """Probability that a positive is in a higher bin than a negative, half if in the same; None for one class."""
    pairs = float(negative.sum()) * float(positive.sum())
    if not pairs:
        return None
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2.0)).sum() / pairs)


def _feature(manifest: Manifest, tally: Tally, name: str) -> dict[str, Any]:
    missing, present, unknown = map(int, tally.features[name])
    reference = next((item for item in manifest.reference.features if item.name == name), None)
    shares = [_rate(missing, tally.rows), None if unknown < 0 else _rate(unknown, present)]
    found: dict[str, Any] = {"missing_rate": _rounded(shares[0]), "unknown_rate": _rounded(shares[1])}
    if reference is not None:
        found["reference_missing_rate"] = _rounded(reference.missing_rate)
        found["reference_unknown_rate"] = _rounded(reference.unknown_rate)
        found["psi"] = _rounded(_drift(manifest, tally, reference, shares))
    return found


def _drift(manifest: Manifest, tally: Tally, reference: FeatureReference, shares: list[float | None]) -> float | None:
    """Over bins of numbers where there are quantiles; else over missing, unknown and other values."""
    missing, unknown = shares
    if reference.name in tally.numbers and reference.quantiles:
        counts = tally.numbers[reference.name]
        edges = edges_of(manifest)[reference.name]
        below = np.searchsorted(np.array(reference.quantiles[1:]), edges, side="right") / (len(reference.quantiles) - 1)
        expected = np.append(np.diff(below, prepend=0.0) * (1 - reference.missing_rate), reference.missing_rate)
        return psi(counts / counts.sum(), expected) if counts.sum() else None
    if missing is None:
        return None
    return psi(
        three(missing, unknown), three(reference.missing_rate, None if unknown is None else reference.unknown_rate)
    )


def _score(manifest: Manifest, tally: Tally, name: str) -> dict[str, Any]:
    counts = tally.scores[name]
    edges = lower_edges()
    total = int(counts.sum())
    found: dict[str, Any] = {"mean": _rounded(_rate(tally.sums[name], total))}
    ranks = np.searchsorted(np.cumsum(counts), np.maximum(np.linspace(0, 1, 11) * total, 1), side="left")
    found["deciles"] = [_rounded(float(edges[min(rank, BINS - 1)])) for rank in ranks] if total else None
    octaves = np.add.reduceat(counts, [0, *range(1, BINS, STEPS)])
    found["histogram"] = {
        "from": [float(edge) for edge in [0.0, *edges[1::STEPS]]],
        "rows": octaves.tolist(),
    }
    reference = next((item for item in manifest.reference.scores if item.name == name), None)
    if reference is not None:
        found["reference_mean"] = _rounded(reference.mean)
        inner = np.searchsorted(edges, np.array(reference.quantiles[1:-1]), side="right") - 1
        distinct = np.unique(inner)
        expected = np.diff(np.append(np.searchsorted(inner, distinct, side="right") / 10.0, 1.0), prepend=0.0)
        here = np.diff(np.append(np.cumsum(counts)[distinct], total), prepend=0) / max(total, 1)
        found["psi"] = _rounded(psi(here, expected)) if total else None
    return found


def _quality(manifest: Manifest, tally: Tally, output: Output) -> dict[str, Any]:
    name, kind, task = output.name, output.kind, output.task
    given = next(each.given for each in manifest.tasks if each.name == task)
    negative, positive = tally.labels[name]
    rows, positives = int((negative + positive).sum()), int(positive.sum())
    loss, total = tally.losses[name]
    rate = positives / rows if rows else 0.0
    clipped = min(max(rate, EPSILON), 1 - EPSILON)
    entropy = -(rate * np.log(clipped) + (1 - rate) * np.log(1 - clipped))
    return {
        "output": name,
        "task": task,
        "rows": "given" if kind == "conditional" and given else "all",
        "count": rows,
        "positives": positives,
        "auc": _rounded(auc(negative, positive)),
        "log_loss": _rounded(_rate(loss, rows)),
        "log_loss_of_the_rate": _rounded(float(entropy) if rows else None),
        "pcoc": _rounded(_rate(total, positives)),
    }


def _rate(count: float, total: float) -> float | None:
    return count / total if total else None


def _rounded(value: float | None) -> float | None:
    """To DECIMALS significant digits: what is merged in another order may differ after them."""
    return None if value is None else float(f"{value:.{DECIMALS}g}")
