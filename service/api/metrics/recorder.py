"""Where a worker writes down what it does.

Costs a few additions for a request. Knows routes, outcomes and durations. Does not know how they are shown.
"""

import os
import time
from collections.abc import Callable, Mapping
from itertools import count
from threading import Lock
from typing import Any, Protocol
from weakref import ref

import numpy as np
from numpy.typing import NDArray

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
    SHADOW_DIFFERENCE,
    SHADOW_RUNS,
    SWAPS,
    Family,
    combinations,
)
from service.scoring.scorer import Feeds, Scorer, Scores, Tables

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


class Shadowing(Protocol):
    """A scorer that scores again what another has scored."""

    scorer: Scorer

    def offer(self, answering: Scorer, tables: Callable[[], Tables], feeds: Feeds) -> None:
        """A prediction that is about to be made, from the users and candidates that `tables` answers."""


class Recorder:
    """Writes the row of one worker."""

    def __init__(self, block: Block, worker: int = 0, *, drift_every: int = 0, drift_window_s: float = 3600.0) -> None:
        self.block, self.places = block, (places := Places())
        self.drift_window_s = drift_window_s
        self.layout: Layout | None = None
        self.drift: Drift | None = None
        self.scorer: Scorer | None = None
        self.shadow: Shadowing | None = None
        self.on_fault: Callable[[Scorer], None] | None = None  # told of a scorer that has failed, in any thread
        self._every = drift_every
        self._row = row = block.row(worker)
        self._requests = {key: Counter(row, at) for key, at in places.at[REQUESTS].items()}
        self._seconds = {
            route: Histogram(row, at, REQUEST_SECONDS.buckets) for (route,), at in places.at[REQUEST_SECONDS].items()
        }
        self._swaps = {result: Counter(row, at) for (result,), at in places.at[SWAPS].items()}
        self._shadow = {result: Counter(row, at) for (result,), at in places.at[SHADOW_RUNS].items()}
        self.lock = Lock()  # the model runs in threads
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

    def swapped(self, result: str) -> None:
        """A change of the model was asked for, and this came of it."""
        self._swaps[result].add()

    def watch(self, scorer: Scorer, turn: int = 0) -> None:
        """Note from now on what this scorer does, which answers requests and is the `turn`-th to do so.

        What the one before still does goes where it went: half of the cells are for models whose turn is even.
        """
        half = (self.block.cells - self.places.stop) // 2
        layout = Layout(scorer.manifest, self.places.stop + turn % 2 * half, turn)
        self.scorer, self.layout, self.drift = scorer, None, None
        if layout.stop - layout.start <= half:
            layout.begin(self._row)
            self.layout = layout
            if self._every:
                self.drift = Drift(scorer, layout, self._row, every=self._every, window_s=self.drift_window_s)
        scorer.observer = Watch(self, scorer, self.drift)

    def queued(self, seconds: float) -> None:
        """A prediction has waited so long for its run."""
        with self.lock:
            self._queue.observe(seconds)

    def ran(self, rows: int, seconds: float) -> None:
        """A model has run."""
        self._run.observe(seconds)
        self._run_candidates.observe(rows)

    def compared(self, result: str, differences: Mapping[str, NDArray[np.float32]]) -> None:
        """A prediction was chosen for the shadow, this came of it, and so far are its scores from those answered."""
        with self.lock:
            self._shadow[result].add()
            places = self.layout.differences if self.layout else {}
            for name in differences.keys() & places.keys():
                Histogram(self._row, places[name], SHADOW_DIFFERENCE.buckets).observe_all(differences[name])


class Watch:
    """The observer of one scorer, which it does not keep: so that a model goes with the last who has it."""

    def __init__(self, recorder: Recorder, scorer: Scorer, drift: Drift | None) -> None:
        self._recorder, self._scorer, self._drift = recorder, ref(scorer), drift

    def read(self, tables: Callable[[], Tables], counts: tuple[int, int], feeds: Any) -> None:
        """A prediction has become arrays."""
        if self._drift is not None:
            with self._recorder.lock:
                self._drift.read(counts, feeds)
        if self._recorder.shadow is not None and (scorer := self._scorer()) is not None:
            self._recorder.shadow.offer(scorer, tables, feeds)

    def ran(self, rows: int, seconds: float, scores: Scores) -> None:
        """The model has run."""
        with self._recorder.lock:
            self._recorder.ran(rows, seconds)
            if self._drift is not None:
                self._drift.ran(scores)

    def failed(self) -> None:
        """The model has failed."""
        if self._recorder.on_fault is not None and (scorer := self._scorer()) is not None:
            self._recorder.on_fault(scorer)
