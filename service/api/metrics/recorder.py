"""Where a worker writes down what it does.

Costs a few additions for a request. Knows routes, outcomes and durations. Does not know how they are shown.
"""

import os
import time
from itertools import count
from threading import Lock
from typing import Any

from service.api.metrics.cells import Block, Counter, Histogram
from service.api.metrics.drift import Drift, Layout
from service.api.metrics.families import (
    COUNTED,
    OTHER,
    PREDICTION_CANDIDATES,
    QUEUE_SECONDS,
    REQUEST_SECONDS,
    REQUESTS,
    RUN_CANDIDATES,
    RUN_SECONDS,
    Family,
    combinations,
)
from service.scoring.scorer import Scorer, Scores

Key = tuple[str, ...]
STATE = ("pid", "starts", "ready", "under_way")  # the first cells of a row


class Places:
    """Which cells of a row hold which family: the same in every process."""

    def __init__(self) -> None:
        self.at: dict[Family, dict[Key, int]] = {}
        free = len(STATE)
        for family in COUNTED:
            size = Histogram.size(family.buckets) if family.buckets else 1
            keys = combinations(family)
            self.at[family] = dict(zip(keys, count(free, size)))
            free += size * len(keys)
        self.stop = free


class Recorder:
    """Writes the row of one worker; also the observer of its scorer."""

    def __init__(self, block: Block, worker: int = 0, *, drift_every: int = 0, drift_window_s: float = 3600.0) -> None:
        self.block, self.places = block, (places := Places())
        self.drift_window_s = drift_window_s
        self.layout: Layout | None = None
        self.drift: Drift | None = None
        self.scorer: Scorer | None = None
        self._every = drift_every
        self._row = row = block.row(worker)
        self._requests = {key: Counter(row, at) for key, at in places.at[REQUESTS].items()}
        self._seconds = {
            route: Histogram(row, at, REQUEST_SECONDS.buckets) for (route,), at in places.at[REQUEST_SECONDS].items()
        }
        self._lock = Lock()  # the model runs in threads
        alone = (QUEUE_SECONDS, RUN_SECONDS, RUN_CANDIDATES, PREDICTION_CANDIDATES)
        self._queue, self._run, self._run_candidates, self._candidates = (
            Histogram(row, places.at[family][()], family.buckets) for family in alone
        )
        row[STATE.index("pid")] = os.getpid()
        row[STATE.index("starts")] += 1
        row[STATE.index("ready")] = row[STATE.index("under_way")] = 0

    def request(self, route: str, outcome: str, began: float) -> None:
        """A request has been answered that began at `began` (time.perf_counter)."""
        if route not in self._seconds:
            route = OTHER
        self._requests[route, outcome].add()
        self._seconds[route].observe(time.perf_counter() - began)

    def prediction(self, candidates: int) -> None:
        """A prediction asks about so many candidates."""
        self._candidates.observe(candidates)

    def state(self, ready: bool, under_way: int) -> None:
        """How things stand."""
        self._row[STATE.index("ready")] = ready
        self._row[STATE.index("under_way")] = under_way

    def watch(self, scorer: Scorer) -> None:
        """Note from now on what this scorer does, which answers requests."""
        self.scorer, layout = scorer, Layout(scorer.manifest, self.places.stop)
        if layout.stop <= self.block.cells:
            self.layout = layout
            if self._every:
                self.drift = Drift(scorer, layout, self._row, every=self._every, window_s=self.drift_window_s)
        scorer.observer = self

    def read(self, tables: tuple[Any, Any], counts: tuple[int, int], feeds: Any) -> None:
        """A prediction has become arrays."""
        if self.drift is not None:
            with self._lock:
                self.drift.read(tables, counts, feeds)

    def queued(self, seconds: float) -> None:
        """It has waited so long for its run."""
        with self._lock:
            self._queue.observe(seconds)

    def ran(self, rows: int, seconds: float, scores: Scores) -> None:
        """The model has run."""
        with self._lock:
            self._run.observe(seconds)
            self._run_candidates.observe(rows)
            if self.drift is not None:
                self.drift.ran(scores)
