"""A model in the shadow: it scores again what another answers, and only the differences are kept.

One prediction in so many is chosen. It is scored by both models in a thread, after it was read and apart from its
answer; while one is being compared, others are dropped and counted. Knows scorers. Does not know who asks.
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from service.api.metrics.families import BROKEN, COMPARED, DROPPED
from service.scoring.scorer import Feeds, Scorer, Tables

Differences = Mapping[str, NDArray[np.float32]]  # |shadow - answered|, [N] by output

log = logging.getLogger("fullfunnel")


class Shadow:
    """Compares `scorer` with those that answer; `tell` gets what came of each comparison. `close` ends it."""

    def __init__(self, scorer: Scorer, every: int, tell: Callable[[str, Differences], None]) -> None:
        self.scorer, self._every, self._tell = scorer, every, tell
        self._seen = 0
        self._busy = Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow")

    def offer(self, answering: Scorer, tables: Callable[[], Tables], feeds: Feeds) -> None:
        """A prediction that is about to be made, from the users and candidates that `tables` answers."""
        self._seen += 1
        if self._seen % self._every:
            return
        if not self._busy.acquire(blocking=False):
            self._tell(DROPPED, {})
            return
        try:
            self._thread.submit(self._compare, answering, tables(), feeds)
        except RuntimeError:  # closed meanwhile
            self._busy.release()

    def close(self) -> None:
        """Finish what is being compared, and take no more."""
        self._thread.shutdown()

    def _compare(self, answering: Scorer, tables: Tables, feeds: Feeds) -> None:
        try:
            answered = answering.unwatched().run(feeds)
            scores = self.scorer.score(*tables, feeds[answering.manifest.row_user])
            self._tell(COMPARED, {name: np.abs(scores[name] - values) for name, values in answered.items()})
        except Exception as error:  # of a model that answers nobody
            log.error("the shadow could not score what was answered (%s)", type(error).__name__)
            self._tell(BROKEN, {})
        finally:
            self._busy.release()
