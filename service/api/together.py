"""Predictions that have arrived together, answered in as few runs as are short.

Knows where the runs are done: on the event loop, or in a thread while the loop goes on, where a core is left over for
that. What would take long, waits for others, or is at fault is left to the application. Does not know what is in a body
or an answer: it is given functions that do.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Generic

from contract.errors import Overloaded, RequestInvalid, ScoreInvalid
from service.api.lifecycle import Lifecycle
from service.api.overlap import SHARED_MS, Overlap, Work, half
from service.api.predictions import Asked, expected_ms
from service.api.receiving import JSON
from service.api.settings import Limits, Settings
from service.api.shortcut import Answer, Posted
from service.scoring.scorer import Feeds, Scorer, Scores

Settle = Callable[[int, Answer | None], None]
Group = list[tuple[int, Asked]]


@dataclass(frozen=True)
class Exchange(Generic[Asked]):
    """From bodies to what one run takes, and from its scores to an answer for each."""

    read: Callable[[Scorer, Limits, Posted], Asked]
    arrays: Callable[[Scorer, Sequence[Asked]], Feeds]
    answers: Callable[[Scorer, Sequence[Asked], Scores], list[Answer]]
    media_types: frozenset[str] = JSON


class Together(Generic[Asked]):
    """A shortcut, see `service.api.shortcut`."""

    def __init__(self, settings: Settings, lifecycle: Lifecycle, exchange: Exchange[Asked]) -> None:
        self._settings, self._lifecycle, self._exchange = settings, lifecycle, exchange
        self.media_types = exchange.media_types

    def begin(self, asked: Sequence[Posted], settle: Settle) -> None:
        """Call `settle` once with the index of each request and its answer, now or a little later.

        The answer is None where the application is to answer. Raises: NotReady; then nothing is settled.
        """
        scorer, overlap = self._lifecycle.scorer, self._lifecycle.overlap
        most = len(asked) if overlap is None else half(overlap.under_way + len(asked))
        for group, expect_ms in self._groups(scorer, asked, settle, most):
            try:
                if overlap is None or expect_ms < self._floor_ms(len(group), most):
                    self._score(scorer, group, settle)
                else:
                    self._put(overlap, scorer, group, settle)
            except (Overloaded, RequestInvalid, ScoreInvalid):  # each alone, the application finds whose it is
                _refuse(group, settle)

    def finish(self) -> None:
        """Settle now what has been begun."""
        if self._lifecycle.overlap is not None:
            self._lifecycle.overlap.flush()

    def _groups(
        self, scorer: Scorer, posted: Sequence[Posted], settle: Settle, most: int
    ) -> Iterator[tuple[Group[Asked], float]]:
        """The requests that share a run, each with its index, and how many ms it is expected to take.

        They are `most`, or more where so many are too short.
        """
        group: Group[Asked] = []
        sum_ms = 0.0
        for index, each in enumerate(posted):
            try:
                asked = self._exchange.read(scorer, self._settings.limits, each)
            except RequestInvalid:
                settle(index, None)
                continue
            own_ms = expected_ms(scorer, asked)
            if own_ms > self._settings.inline_ms or self._lifecycle.batcher is not None:
                settle(index, None)
                continue
            enough = len(group) >= most and sum_ms >= self._floor_ms(len(group), most)
            if group and (enough or sum_ms + own_ms > SHARED_MS):
                yield group, sum_ms
                group, sum_ms = [], 0.0
            group.append((index, asked))
            sum_ms += own_ms
        if group:
            yield group, sum_ms

    def _score(self, scorer: Scorer, group: Group[Asked], settle: Settle) -> None:
        """On the event loop. Raises: RequestInvalid, ScoreInvalid, Overloaded."""
        self._lifecycle.enter()
        try:
            feeds = self._exchange.arrays(scorer, [asked for _, asked in group])
            self._lifecycle.recorder.queued(0.0)
            self._settle(scorer, group, settle, scorer.run(feeds))
        finally:
            self._lifecycle.leave()

    def _put(self, overlap: Overlap, scorer: Scorer, group: Group[Asked], settle: Settle) -> None:
        """In the thread. Raises: RequestInvalid, Overloaded."""
        feeds = self._exchange.arrays(scorer, [asked for _, asked in group])
        rows = len(feeds[scorer.manifest.row_user])
        self._lifecycle.enter()
        overlap.put(Work(scorer, feeds, rows, len(group), partial(self._leave, scorer, group, settle)))

    def _floor_ms(self, size: int, most: int) -> float:
        """From when on so many requests are run in the thread: twice as late where no others are left to be read."""
        return self._settings.overlap_ms * (1 if size <= most else 2)

    def _leave(self, scorer: Scorer, group: Group[Asked], settle: Settle, scores: Scores | None) -> None:
        self._lifecycle.leave()
        if scores is not None:
            with suppress(Exception):  # the application will meet it again, and say what it is
                self._settle(scorer, group, settle, scores)
                return
        _refuse(group, settle)

    def _settle(self, scorer: Scorer, group: Group[Asked], settle: Settle, scores: Scores) -> None:
        requests = [asked for _, asked in group]
        answers = self._exchange.answers(scorer, requests, scores)
        for asked in requests:
            self._lifecycle.note(asked)
        for (index, _), answer in zip(group, answers, strict=True):
            settle(index, answer)


def _refuse(group: Group[Asked], settle: Settle) -> None:
    for index, _ in group:
        settle(index, None)
