"""Runs of the model in a thread, one after the other, while the event loop reads and answers other requests.

What waits when a run ends shares the next one, as long as that is short. Pays where a core is left over. Knows arrays
and one thread. Does not know what a request looked like.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from service.scoring.batching import merged, split
from service.scoring.scorer import Feeds, Scorer, Scores

SHARED_MS = 2.0  # expected, of a shared run: what takes longer gains little, and its arrays leave the cache


@dataclass(frozen=True, eq=False)
class Work:
    """What is to be scored, and what the event loop does with the scores, or with None where the run failed."""

    scorer: Scorer
    feeds: Feeds
    rows: int
    requests: int
    finish: Callable[[Scores | None], None]
    arrived: float = field(default_factory=time.monotonic)


class Overlap:
    """A thread that runs. `put` and `flush` are for the event loop; `close` ends the thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, queued: Callable[[float], None] = lambda _: None) -> None:
        self._loop, self._queued = loop, queued  # which is told how many seconds each work has waited
        self._waiting: SimpleQueue[Work | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[Sequence[Work], Scores | None]] = SimpleQueue()
        self.under_way = 0  # requests that have been put and not finished
        self._thread = threading.Thread(target=self._work, name="overlap", daemon=True)
        self._thread.start()

    def put(self, work: Work) -> None:
        """Have it scored, and finished on the event loop."""
        self.under_way += work.requests
        self._waiting.put(work)

    def flush(self) -> None:
        """Wait for what is under way, and finish it."""
        while self.under_way:
            self._finish(*self._done.get())

    def close(self) -> None:
        """Score what is waiting, and end."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        ahead: Work | None = None
        while (work := ahead or self._waiting.get()) is not None:
            works, ahead = self._sharing(work)
            now = time.monotonic()
            for each in works:
                self._queued(now - each.arrived)
            self._done.put((works, _scores(works)))
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._finish_done)

    def _sharing(self, first: Work) -> tuple[list[Work], Work | None]:
        """What is to be run with `first`, and what was taken from the queue and is not."""
        works, rows, requests, most = [first], first.rows, first.requests, half(self.under_way)
        with suppress(Empty):
            while (work := self._waiting.get_nowait()) is not None:
                rows, requests = rows + work.rows, requests + work.requests
                too_many = requests > most or rows * first.scorer.row_ms > SHARED_MS
                if work.scorer is not first.scorer or too_many:
                    return works, work
                works.append(work)
            self._waiting.put(None)  # the end, for `_work` to see
        return works, None

    def _finish_done(self) -> None:
        with suppress(Empty):
            while True:
                self._finish(*self._done.get_nowait())

    def _finish(self, works: Sequence[Work], scores: Scores | None) -> None:
        self.under_way -= sum(work.requests for work in works)
        parts = [None] * len(works) if scores is None else split(scores, [work.rows for work in works])
        for work, part in zip(works, parts, strict=True):
            work.finish(part)


def half(requests: int) -> int:
    """How many of the requests under way may share a run: while they are scored, the others are read."""
    return (requests + 1) // 2


def _scores(works: Sequence[Work]) -> Scores | None:
    scorer = works[0].scorer
    try:
        return scorer.run(works[0].feeds if len(works) == 1 else merged(scorer, [work.feeds for work in works]))
    except Exception:  # whoever takes the request over will meet it again, and say what it is
        return None
