"""What all workers have written, in the text that Prometheus scrapes.

Knows the cells, /proc, and prometheus_client's families. Does not know HTTP.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from service.api.metrics.cells import Histogram
from service.api.metrics.drift import Layout, drifts
from service.api.metrics.families import (
    COUNTED,
    CPU,
    DRIFT_RUNS,
    FEATURE_PSI,
    FILES,
    MEMORY,
    MISSING,
    MODEL,
    PREFIX,
    READY,
    SCORE,
    SCORE_PSI,
    SHADOW,
    SHADOW_DIFFERENCE,
    STARTS,
    UNDER_WAY,
    UNKNOWN,
    VALUES,
    Family,
)
from service.api.metrics.recorder import STATE, Key, Recorder
from service.scoring.scorer import Scorer

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TICKS, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
Values = NDArray[np.float64]


def exposition(recorder: Recorder) -> bytes:
    """Every metric that has a value. Label values that have never occurred are left out."""
    registry = CollectorRegistry()
    registry.register(Everything(recorder))
    return generate_latest(registry)


class Everything(Collector):
    """All families, read once."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def collect(self) -> Iterator[Metric]:
        """One after the other."""
        block, places = self._recorder.block, self._recorder.places
        cells = block.values(0, places.stop).sum(axis=0)
        for family in COUNTED:
            yield _counted(family, cells, places.at[family])
        yield from self._workers(block.values(0, len(STATE)))
        scorer = self._recorder.scorer
        if scorer is None:
            return
        yield _family(MODEL, {_named(scorer): 1.0})
        if self._recorder.shadow is not None:
            yield _family(SHADOW, {_named(self._recorder.shadow.scorer): 1.0})
        if self._recorder.layout is not None:
            yield from self._drift(self._recorder.layout)

    def _drift(self, layout: Layout) -> Iterator[Metric]:
        cells = layout.counts(self._recorder.block).sum(axis=0)
        for offset, family in enumerate((VALUES, MISSING, UNKNOWN)):
            yield _counted(family, cells, {(name,): at + offset for name, at in layout.values.items()})
        for family, places in ((SCORE, layout.scores), (SHADOW_DIFFERENCE, layout.differences)):
            yield _counted(family, cells, {(name,): at for name, at in places.items()})
        features, outputs, runs = drifts(self._recorder.block, layout, self._recorder.drift_window_s)
        for family, found in ((FEATURE_PSI, features), (SCORE_PSI, outputs)):
            yield _family(family, {(name,): value for name, value in found.items()})
        yield _family(DRIFT_RUNS, {(): float(runs)})

    def _workers(self, states: Values) -> Iterator[Metric]:
        column = {name: states[:, index] for index, name in enumerate(STATE)}
        for family, name in ((STARTS, "starts"), (READY, "ready"), (UNDER_WAY, "under_way")):
            yield _family(family, {(str(worker),): float(value) for worker, value in enumerate(column[name])})
        found: dict[Family, dict[Key, float]] = {MEMORY: {}, CPU: {}, FILES: {}}
        for worker, pid in enumerate(column["pid"].astype(int).tolist()):
            with suppress(OSError, IndexError):  # it has just gone
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                open_files = len(os.listdir(f"/proc/{pid}/fd"))
                found[CPU][str(worker),] = (int(fields[11]) + int(fields[12])) / TICKS
                found[MEMORY][str(worker),] = float(int(fields[21]) * PAGE)
                found[FILES][str(worker),] = float(open_files)
        for family, values in found.items():
            yield _family(family, values)


def _named(scorer: Scorer) -> Key:
    return scorer.manifest.name, scorer.manifest.version, scorer.digest


def _counted(family: Family, cells: Values, places: dict[Key, int]) -> Metric:
    if not family.buckets:
        return _family(family, {key: float(cells[at]) for key, at in places.items() if cells[at] or len(key) < 2})
    metric = HistogramMetricFamily(PREFIX + family.name, family.help, labels=family.labels)
    size = Histogram.size(family.buckets)
    edges = [*(repr(edge) for edge in family.buckets), "+Inf"]
    for key, at in places.items():
        *counts, total = cells[at : at + size].tolist()
        if any(counts) or not key:
            metric.add_metric(key, list(zip(edges, accumulate(counts), strict=True)), total)
    return metric


def _family(family: Family, values: dict[Key, float]) -> Metric:
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(PREFIX + family.name, family.help, labels=family.labels)
    for key, value in values.items():
        metric.add_metric(key, value)
    return metric
