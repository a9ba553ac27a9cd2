"""What is counted while rows are scored: missing and unknown values, scores, and labels where there are any.

Counts of several shards add up, so that a summary of any number of rows takes the same little memory. Knows the
manifest's reference statistics. Does not know what becomes of the counts.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.bundle import Manifest
from contract.features import Numeric
from contract.tasks import Output, Task
from service.batch.scoring import Scored

OCTAVES, STEPS = 30, 256  # bins of scores: 256 in each halving of the probability, down to 2^-30
BINS = OCTAVES * STEPS + 2  # all that is less is the first, and 1 itself the last
SHIFT = 15  # of a float32's bits, which leaves 8 of its fraction
LOWEST = ((127 - OCTAVES) << 23) >> SHIFT
EPSILON = 2.0**-24
SAMPLED = 8  # numbers are put in bins in one chunk of so many

Counts = NDArray[np.int64]


class Tally:
    """The counts of one shard, or of several."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._chunks = 0
        self.rows = self.scored = 0
        self.features: dict[str, Counts] = {}  # missing rows, present values, unknown values (-1: cannot be told)
        self.numbers: dict[str, Counts] = {}  # rows in each bin of `edges_of`, then missing ones
        self.scores: dict[str, Counts] = {entry.name: np.zeros(BINS, np.int64) for entry in manifest.outputs}
        self.sums: dict[str, float] = dict.fromkeys(self.scores, 0.0)
        self.labels: dict[str, Counts] = {}  # by output: negative and positive rows in each bin of scores
        self.losses: dict[str, list[float]] = {}  # by output: sum of losses, sum of scores
        self._edges = edges_of(manifest)
        self._items = {feature.name for feature in manifest.features if feature.side == "item"}

    def add(self, scored: Scored) -> None:
        """Count a chunk."""
        self.rows += scored.source.num_rows
        self.scored += scored.table.num_rows
        for name, seen in scored.ready.seen.items():
            counts = np.array([seen.missing, seen.present, -1 if seen.unknown is None else seen.unknown])
            self._sum_features(name, counts)
        if self._chunks % SAMPLED == 0:
            self._add_numbers(scored)
        self._chunks += 1
        places = {}
        for name, values in scored.scores.items():
            places[name] = bins_of(values)
            self.scores[name] += np.bincount(places[name], minlength=BINS)
            self.sums[name] += float(values.sum(dtype=np.float64))
        self._add_labels(scored, places)

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "rows": [self.rows, self.scored],
            "features": {name: counts.tolist() for name, counts in self.features.items()},
            "numbers": {name: counts.tolist() for name, counts in self.numbers.items()},
            "scores": {name: _sparse(counts) for name, counts in self.scores.items()},
            "sums": self.sums,
            "labels": {name: [_sparse(row) for row in counts] for name, counts in self.labels.items()},
            "losses": self.losses,
        }

    @classmethod
    def of(cls, manifest: Manifest, several: Iterable[Mapping[str, Any]]) -> "Tally":
        """The sum of what `plain` made."""
        tally = cls(manifest)
        for one in several:
            tally.rows += one["rows"][0]
            tally.scored += one["rows"][1]
            for name, counts in one["features"].items():
                tally._sum_features(name, np.array(counts))
            for name, counts in one["numbers"].items():
                tally.numbers[name] = tally.numbers.get(name, 0) + np.array(counts)
            for name, sparse in one["scores"].items():
                tally.scores[name] += _dense(sparse)
                tally.sums[name] += one["sums"][name]
            for name, rows in one["labels"].items():
                tally.labels[name] = tally.labels.get(name, 0) + np.stack([_dense(row) for row in rows])
                tally.losses[name] = [
                    a + b for a, b in zip(tally.losses.get(name, [0.0, 0.0]), one["losses"][name], strict=True)
                ]
        return tally

    def _sum_features(self, name: str, counts: Counts) -> None:
        before = self.features.get(name)
        if before is None:
            self.features[name] = counts
            return
        total = before + counts
        total[2] = -1 if before[2] < 0 else total[2]
        self.features[name] = total

    def _add_numbers(self, scored: Scored) -> None:
        for name, edges in self._edges.items():
            values = scored.ready.feeds[name]
            weights = None if name in self._items else scored.ready.per_user
            bins = np.where(np.isnan(values), len(edges), np.searchsorted(edges[:-1], values))
            found = np.bincount(bins, weights=weights, minlength=len(edges) + 1).astype(np.int64)
            self.numbers[name] = self.numbers.get(name, 0) + found

    def _add_labels(self, scored: Scored, places: Mapping[str, NDArray[np.int64]]) -> None:
        known = scored.source.schema.names
        labels = {
            task.name: label_of(scored.source.column(task.label), task)
            for task in self._manifest.tasks
            if task.label in known
        }
        if not labels:
            return
        kept = slice(None) if scored.ready.refused is None else ~scored.ready.refused
        for output in self._manifest.outputs:
            measured = measured_rows(output, self._manifest.tasks, labels)
            if measured is None:
                continue
            rows, label = measured[kept], labels[output.task][kept]
            score = scored.scores[output.name][rows].astype(np.float64)
            positive = label[rows] == 1
            place = places[output.name][rows]
            found = np.stack([np.bincount(place[positive == side], minlength=BINS) for side in (False, True)])
            self.labels[output.name] = self.labels.get(output.name, 0) + found
            clipped = np.clip(score, EPSILON, 1 - EPSILON)
            loss = -float(np.log(np.where(positive, clipped, 1 - clipped)).sum())
            before = self.losses.get(output.name, [0.0, 0.0])
            self.losses[output.name] = [before[0] + loss, before[1] + float(score.sum())]


def bins_of(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """The bin of each probability: equally wide in their logarithm, nearly, by the bits of the number itself."""
    bits = np.ascontiguousarray(scores).view(np.int32) >> SHIFT
    return np.asarray(np.clip(bits - (LOWEST - 1), 0, BINS - 1), np.int64)


def lower_edges() -> NDArray[np.float64]:
    """The least probability of each bin."""
    bits = (np.arange(BINS) + LOWEST - 1).astype(np.int32) << SHIFT
    edges: NDArray[np.float64] = bits.astype(np.int32).view(np.float32).astype(np.float64)
    edges[0] = 0.0
    return edges


def edges_of(manifest: Manifest) -> dict[str, NDArray[np.float64]]:
    """The distinct upper edges of the bins of each number that has reference quantiles."""
    numeric = {feature.name for feature in manifest.features if isinstance(feature, Numeric)}
    found = {}
    for item in manifest.reference.features:
        if item.quantiles and item.name in numeric:
            edges = np.unique(np.array(item.quantiles[1:]))
            found[item.name] = edges
    return found


def label_of(column: pa.Array, task: Task) -> NDArray[np.float64]:
    """1 and 0, and NaN for what is neither."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        if task.positive is not None:
            found = pc.is_in(column, value_set=pa.array(list(task.positive)).cast(column.type))
            values = pc.if_else(pc.is_valid(column), found, None).cast(pa.float64())
        else:
            values = column.cast(pa.uint8()) if pa.types.is_boolean(column.type) else column
            values = values.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):  # no cast: a label in no sense
        return np.full(len(column), np.nan)
    numbers = np.asarray(values.to_numpy(zero_copy_only=False), np.float64)
    return np.asarray(np.where((numbers == 0) | (numbers == 1), numbers, np.nan))


def measured_rows(
    output: Output, tasks: tuple[Task, ...], labels: Mapping[str, NDArray[np.float64]]
) -> NDArray[np.bool_] | None:
    """The rows an output is measured on: a conditional one where its condition held. None if labels are not there."""
    if output.task not in labels:
        return None
    rows = ~np.isnan(labels[output.task])
    given = next(task.given for task in tasks if task.name == output.task)
    if output.kind == "joint" or given is None:
        return rows
    return rows & (labels[given] == 1) if given in labels else None


def _sparse(counts: Counts) -> list[list[int]]:
    places = np.flatnonzero(counts)
    return [places.tolist(), counts[places].tolist()]


def _dense(sparse: list[list[int]]) -> Counts:
    counts = np.zeros(BINS, np.int64)
    counts[sparse[0]] = sparse[1]
    return counts
