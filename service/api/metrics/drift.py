"""What the values and scores of late look like, beside the bundle's reference statistics.

One read and one run in so many are looked at. Counts for PSI are kept for a window, in slots of which the oldest is
emptied when it is due again. Knows features, words and the reference. Does not know requests, nor who asks.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.features import Numeric
from contract.manifest import Manifest
from service.api.metrics.cells import Block, Counter, Histogram
from service.api.metrics.families import DIFFERENCES, PROBABILITIES
from service.scoring.drift import bins_between, expected_shares, psi, three
from service.scoring.scorer import Feeds, Scorer, Scores

SLOTS = 12
LEAST = 100  # values, below which no drift is told
Array = NDArray[Any]


class Layout:
    """Which cells hold what, for one model: the same in every process.

    Begins at cell `start`, which holds the model's `turn`: in a row where another stands, another model is counted.
    """

    def __init__(self, manifest: Manifest, start: int, turn: int = 0) -> None:
        self.start, self.turn = start, turn
        references = {item.name: item for item in manifest.reference.features}
        self.features = {feature.name: references.get(feature.name) for feature in manifest.features}
        self.outputs = {item.name: bins_between(item.quantiles) for item in manifest.reference.scores}
        self.numbers = {
            feature.name: expected_shares(reference)
            for feature in manifest.features
            if isinstance(feature, Numeric) and (reference := references.get(feature.name)) and reference.quantiles
        }
        at = start + 1
        self.values = {name: at + 3 * index for index, name in enumerate(self.features)}  # values, missing, unknown
        at += 3 * len(self.features)
        self.scores: dict[str, int] = {}
        self.differences: dict[str, int] = {}
        for output in manifest.outputs:
            self.scores[output.name] = at
            at += Histogram.size(PROBABILITIES)
            self.differences[output.name] = at
            at += Histogram.size(DIFFERENCES)
        self.slots, offset = at, 2  # each begins with its number, and the runs looked at in it
        self.bins: dict[tuple[str, str], tuple[int, int]] = {}  # where in a slot, and how many
        for name in self.features:
            count = len(self.numbers[name][1]) if name in self.numbers else 3
            self.bins["feature", name] = (offset, count)
            offset += count
        for name, (_, shares) in self.outputs.items():
            self.bins["score", name] = (offset, len(shares))
            offset += len(shares)
        self.slot_size = offset
        self.stop = at + SLOTS * offset

    def begin(self, row: "memoryview[float]") -> None:
        """Empty the cells of a row, unless they hold this model already."""
        if row[self.start] != self.turn:
            for cell in range(self.start, self.stop):
                row[cell] = 0.0
            row[self.start] = self.turn

    def counts(self, block: Block) -> NDArray[np.float64]:
        """All cells from the first of the row, of the workers that have this model: [workers, stop]."""
        cells = block.values(0, self.stop)
        mine: NDArray[np.float64] = cells[cells[:, self.start] == self.turn]
        return mine


class Drift:
    """Looks at what a scorer reads and runs; writes the cells of one worker."""

    def __init__(
        self,
        scorer: Scorer,
        layout: Layout,
        row: "memoryview[float]",
        *,
        every: int,
        window_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._layout, self._row, self._every, self._clock = layout, row, every, clock
        self._slot_s = window_s / SLOTS
        self._reads = self._runs = 0
        self.closely = False  # whether the scores of every run are looked at
        self._sides = (scorer.users, scorer.candidates)
        self._scores = {name: Histogram(row, at, PROBABILITIES) for name, at in layout.scores.items()}

    def read(self, counts: tuple[int, int], feeds: Feeds) -> None:
        """What was asked: how many users and candidates there are, and their arrays."""
        self._reads += 1
        if self._reads % self._every:
            return
        slot = self._slot()
        for side, rows in zip(self._sides, counts, strict=True):
            for name, reads in side.readers.items():
                present, unknown = _present(feeds[name], side.padding(name)), 0
                if reads.rows is not None:
                    unknown = int((present & (feeds[name] == reads.rows.unknown)).sum())
                if side.is_sequence(name):
                    self._see_sequence(slot, name, rows, present, unknown)
                else:
                    self._see(slot, name, rows, rows - int(present.sum()), unknown, feeds[name])

    def ran(self, scores: Scores) -> None:
        """What the model answered."""
        self._runs += 1
        if self._runs % self._every and not self.closely:
            return
        slot = self._slot()
        self._row[slot + 1] += 1
        for name, values in scores.items():
            self._scores[name].observe_all(values)
            if name in self._layout.outputs:
                self._add(slot, ("score", name), np.searchsorted(self._layout.outputs[name][0], values))

    def _see(self, slot: int, name: str, rows: int, missing: int, unknown: int, fed: Array) -> None:
        self._count(name, rows, missing, unknown)
        if name in self._layout.numbers:
            edges, shares = self._layout.numbers[name]
            places = np.where(np.isnan(fed), len(shares) - 1, np.searchsorted(edges, fed))
            self._add(slot, ("feature", name), places)
        else:
            self._add_three(slot, name, rows, missing, unknown)

    def _see_sequence(self, slot: int, name: str, rows: int, present: Array, unknown: int) -> None:
        """A sequence is missing where it is empty; its members are the values that a vocabulary may not know."""
        empty, members = rows - int(present.any(axis=1).sum()), int(present.sum())
        self._count(name, rows, empty, min(unknown, rows))
        share = unknown / members if members else 0.0
        self._add_three(slot, name, rows, empty, round(share * (rows - empty)))

    def _count(self, name: str, rows: int, missing: int, unknown: int) -> None:
        at = self._layout.values[name]
        for offset, amount in enumerate((rows, missing, unknown)):
            Counter(self._row, at + offset).add(amount)

    def _add_three(self, slot: int, name: str, rows: int, missing: int, unknown: int) -> None:
        start = slot + self._layout.bins["feature", name][0]
        for offset, amount in enumerate((missing, unknown, rows - missing - unknown)):
            self._row[start + offset] += amount

    def _add(self, slot: int, key: tuple[str, str], places: Array) -> None:
        start, count = self._layout.bins[key]
        for offset, amount in enumerate(np.bincount(places, minlength=count).tolist()):
            self._row[slot + start + offset] += amount

    def _slot(self) -> int:
        """The first cell of the slot of now, emptied if it holds an older one."""
        number = int(self._clock() / self._slot_s)
        at = self._layout.slots + (number % SLOTS) * self._layout.slot_size
        if self._row[at] != number:
            for cell in range(at, at + self._layout.slot_size):
                self._row[cell] = 0.0
            self._row[at] = number
        return at


def drifts(
    block: Block, layout: Layout, window_s: float, now: float | None = None
) -> tuple[dict[str, float], dict[str, float], int]:
    """PSI of features, of outputs, and how many runs were looked at, over the window and all workers.

    What has too few values, or no reference, is left out.
    """
    newest = int((time.time() if now is None else now) / (window_s / SLOTS))
    slots = layout.counts(block)[:, layout.slots :].reshape(-1, SLOTS, layout.slot_size)
    fresh = slots[:, :, 0] > newest - SLOTS
    total = (slots * fresh[:, :, None]).sum(axis=(0, 1))
    features: dict[str, float] = {}
    outputs: dict[str, float] = {}
    for (kind, name), (start, count) in layout.bins.items():
        counts = total[start : start + count]
        expected = _expected(layout, kind, name)
        if expected is None or counts.sum() < LEAST:
            continue
        (features if kind == "feature" else outputs)[name] = psi(counts / counts.sum(), expected)
    return features, outputs, int(total[1])


def _expected(layout: Layout, kind: str, name: str) -> NDArray[np.float64] | None:
    if kind == "score":
        return layout.outputs[name][1]
    if name in layout.numbers:
        return layout.numbers[name][1]
    reference = layout.features[name]
    return None if reference is None else three(reference.missing_rate, reference.unknown_rate)


def _present(fed: Array, missing: Any) -> NDArray[np.bool_]:
    """Which values are there."""
    present: NDArray[np.bool_] = ~np.isnan(fed) if fed.dtype == np.float32 else fed != missing
    return present
