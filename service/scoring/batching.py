"""Requests that arrive close together, scored in one run.

One thread owns the queue. A run takes what has come until it has `max_rows` candidates or the first request has waited
`max_wait_ms`; users of different requests meet through `row_user`. What was cancelled or has waited too long is dropped
before it costs. Knows arrays and time. Does not know what a request looked like.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import Overloaded, ScoreInvalid
from service.scoring.scorer import Feeds, Scorer, Scores


@dataclass(frozen=True, eq=False)
class Job:
    """What one request wants scored, and by whom. Cancelling `scores` withdraws it."""

    scorer: Scorer
    feeds: Feeds
    rows: int
    arrived: float = field(default_factory=time.monotonic)
    scores: "Future[Scores]" = field(default_factory=Future)


class Batcher:
    """Runs scorers for many requests at once, on a thread of its own; `close` ends it."""

    def __init__(
        self,
        *,
        max_rows: int,
        max_wait_ms: float,
        max_queue_ms: float,
        queued: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._queued = queued  # told how many seconds each job has waited
        self._max_rows = max_rows
        self._max_wait_s, self._max_queue_s = max_wait_ms / 1000, max_queue_ms / 1000
        self._queue: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="batching", daemon=True)
        self._thread.start()

    def put(self, scorer: Scorer, feeds: Feeds) -> "Future[Scores]":
        """Have these arrays, which the scorer's `read` made, scored. Raises: Overloaded, once closed."""
        job = Job(scorer, feeds, len(feeds[scorer.manifest.row_user]))
        with self._changed:
            if self._closed:
                raise Overloaded("the service is stopping", remedy="send requests elsewhere")
            self._queue.append(job)
            self._changed.notify()
        return job.scores

    def close(self) -> None:
        """Score what is waiting, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while self._wait():
            jobs = self._take()
            if jobs:
                self._run(jobs)

    def _wait(self) -> bool:
        """Until it is time for a run; false once closed and empty."""
        with self._changed:
            while not self._queue:
                if self._closed:
                    return False
                self._changed.wait()
            until = self._queue[0].arrived + self._max_wait_s
            while not self._closed and sum(job.rows for job in self._queue) < self._max_rows:
                if (left := until - time.monotonic()) <= 0:
                    break
                self._changed.wait(left)
            return True

    def _take(self) -> list[Job]:
        """The jobs of the next run, first come, first served, of one scorer; what is not wanted any more is no work."""
        jobs: list[Job] = []
        rows = 0
        too_old = time.monotonic() - self._max_queue_s
        with self._changed:
            while self._queue and (not jobs or rows + self._queue[0].rows <= self._max_rows):
                if jobs and self._queue[0].scorer is not jobs[0].scorer:
                    break
                job = self._queue.popleft()
                if not job.scores.set_running_or_notify_cancel():
                    continue
                if job.arrived < too_old:
                    error = Overloaded("it has waited too long", remedy="send the request again a little later")
                    job.scores.set_exception(error)
                    continue
                jobs.append(job)
                rows += job.rows
        return jobs

    def _run(self, jobs: Sequence[Job]) -> None:
        now = time.monotonic()
        for job in jobs:
            self._queued(now - job.arrived)
        try:
            scorer = jobs[0].scorer
            scores = scorer.run(merged(scorer, [job.feeds for job in jobs]))
        except ScoreInvalid as error:
            if len(jobs) == 1:
                jobs[0].scores.set_exception(error)
                return
            for job in jobs:  # the fault of one is not the others'
                self._run([job])
            return
        except BaseException as error:
            for job in jobs:
                job.scores.set_exception(error)
            return
        for job, part in zip(jobs, split(scores, [job.rows for job in jobs]), strict=True):
            job.scores.set_result(part)


def merged(scorer: Scorer, parts: Sequence[Feeds]) -> Feeds:
    """The arrays of several requests as those of one: their users one after the other, and so their candidates.

    Sequences are padded to the longest of all.
    """
    row_user = scorer.manifest.row_user
    users = [_users(scorer, part) for part in parts]
    first = np.cumsum([0, *users[:-1]])
    found = {
        name: _stacked([part[name] for part in parts], scorer.padding(name)) for name in parts[0] if name != row_user
    }
    return {**found, row_user: np.concatenate([part[row_user] + n for part, n in zip(parts, first, strict=True)])}


def split(scores: Scores, counts: Sequence[int]) -> Iterator[Scores]:
    """The scores of one run as those of the requests that shared it, of so many candidates each."""
    stop = 0
    for count in counts:
        start, stop = stop, stop + count
        yield {name: values[start:stop] for name, values in scores.items()}


def _users(scorer: Scorer, part: Feeds) -> int:
    """How many users a request has; where the model takes nothing of them, it does not matter."""
    return next((len(part[name]) for name in scorer.users.features), 1)


def _stacked(arrays: Sequence[NDArray[Any]], padding: Any) -> NDArray[Any]:
    width = max(array.shape[-1] for array in arrays)
    if arrays[0].ndim == 1 or all(array.shape[1] == width for array in arrays):
        return np.concatenate(arrays)
    padded = [np.full((len(array), width), padding, dtype=array.dtype) for array in arrays]
    for row, array in zip(padded, arrays, strict=True):
        row[:, : array.shape[1]] = array
    return np.concatenate(padded)
