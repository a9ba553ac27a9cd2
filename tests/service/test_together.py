"""Which requests share a run, where it is done, and what is left to the application."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from contract.errors import ValueInvalid
from service.api.lifecycle import Lifecycle
from service.api.settings import Limits, Settings
from service.api.shortcut import Answer, Posted
from service.api.together import Exchange, Together
from service.scoring.scorer import Feeds, Scorer, Scores


@dataclass(frozen=True)
class Asked:
    count: int


class Spy:
    """An exchange whose bodies ask about as many candidates as they have bytes; the answer is that number."""

    def __init__(self, scorer: Scorer, refused: int | None = None) -> None:
        self.runs, self.threads, self.refused = list[list[int]](), set[str](), refused
        self.exchange = Exchange(self.read, self.arrays, self.answers)
        self._run = scorer.run

    def read(self, _: Scorer, __: Limits, posted: Posted) -> Asked:
        if not posted.body:
            raise ValueInvalid("wrong")
        return Asked(len(posted.body))

    def arrays(self, scorer: Scorer, asked: Sequence[Asked]) -> Feeds:
        counts = [each.count for each in asked]
        self.runs.append(counts)
        if self.refused in counts:
            raise ValueInvalid("wrong")
        rows = sum(counts)
        return scorer.read({"user_id": ["u1"]}, {"item_id": ["i1"] * rows}, np.zeros(rows, np.int64))

    def run(self, feeds: Feeds) -> Scores:
        self.threads.add(threading.current_thread().name)
        return self._run(feeds)

    def answers(self, _: Scorer, asked: Sequence[Asked], scores: Scores) -> list[Answer]:
        assert len(scores["pctr"]) == sum(each.count for each in asked)
        return [Answer(b"%d" % each.count) for each in asked]


def together(scorer: Scorer, spy: Spy, counts: Sequence[int], **settings: Any) -> list[bytes | None]:
    """The answers to bodies that ask about so many candidates."""

    async def talk() -> list[bytes | None]:
        chosen = Settings(**settings)
        lifecycle = Lifecycle(chosen, lambda: scorer)
        await lifecycle.start()
        found: dict[int, bytes | None] = {}

        def settle(index: int, answer: Answer | None) -> None:
            found[index] = None if answer is None else answer.content

        try:
            shortcut = Together(chosen, lifecycle, spy.exchange)
            shortcut.begin([Posted(bytes(count)) for count in counts], settle)
            shortcut.finish()
            assert lifecycle._predictions == 0  # every place was given back
            return [found[index] for index in range(len(counts))]
        finally:
            lifecycle.close()

    return asyncio.run(talk())


@pytest.fixture
def slow(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> Scorer:
    """A hundredth of a millisecond a candidate."""
    monkeypatch.setattr(scorer, "row_ms", 0.01)
    return scorer


@pytest.mark.parametrize("overlap", [False, True])
def test_what_comes_together_shares_a_run_as_long_as_that_is_short(slow: Scorer, overlap: bool) -> None:
    spy = Spy(slow)
    found = together(slow, spy, [100, 100, 0, 100, 300, 600, 10], inline_ms=5, overlap=overlap, overlap_ms=0)
    assert spy.runs == [[100, 100], [100], [300], [10]]
    assert found == [b"100", b"100", None, b"100", b"300", None, b"10"]


@pytest.mark.parametrize(
    ("settings", "runs"),
    [
        ({"overlap": False}, [[50, 50, 50, 50]]),
        ({"overlap": True, "overlap_ms": 0.9}, [[50, 50], [50, 50]]),
        ({"overlap": True, "overlap_ms": 1.1}, [[50, 50, 50, 50]]),
        ({"overlap": True, "overlap_ms": 1.9}, [[50, 50, 50, 50]]),
    ],
)
def test_while_one_half_is_scored_the_other_is_read_where_half_is_long_enough(
    slow: Scorer, settings: dict[str, Any], runs: list[list[int]]
) -> None:
    spy = Spy(slow)
    together(slow, spy, [50, 50, 50, 50], **settings)
    assert spy.runs == runs


@pytest.mark.parametrize(
    ("overlap", "counts", "thread"),
    [
        (True, [10, 10], "overlap"),
        (True, [9, 9], "MainThread"),
        (True, [9, 12], "overlap"),
        (True, [9], "MainThread"),
        (True, [10], "overlap"),
        (False, [99], "MainThread"),
    ],
)
def test_from_overlap_ms_on_the_thread_runs_and_of_all_that_is_there_from_twice_that(
    slow: Scorer, monkeypatch: pytest.MonkeyPatch, overlap: bool, counts: list[int], thread: str
) -> None:
    spy = Spy(slow)
    monkeypatch.setattr(slow, "run", spy.run)
    together(slow, spy, counts, overlap=overlap, overlap_ms=0.1)
    assert spy.threads == {thread}


@pytest.mark.parametrize("settings", [{"overlap": False}, {"overlap": True, "overlap_ms": 1.6}])
def test_where_one_is_at_fault_the_application_finds_out_which(slow: Scorer, settings: dict[str, Any]) -> None:
    spy = Spy(slow, refused=2)
    assert together(slow, spy, [1, 2, 150, 100], **settings) == [None, None, None, b"100"]


def test_more_than_are_allowed_at_once_are_left_to_the_application(slow: Scorer) -> None:
    spy = Spy(slow)
    settings = {"overlap": True, "overlap_ms": 0, "limits": Limits(max_concurrency=1)}
    assert together(slow, spy, [200, 200], **settings) == [b"200", None]


def test_where_runs_are_shared_by_waiting_nothing_is_answered_at_once(slow: Scorer) -> None:
    spy = Spy(slow)
    assert together(slow, spy, [1, 2], batch_wait_ms=1) == [None, None] and not spy.runs


def test_runs_overlap_by_themselves_where_cores_are_left_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    assert [Settings(workers=workers).overlaps for workers in (0, 1, 2, 3)] == [False, True, False, False]
    assert Settings(workers=2, overlap=True).overlaps and not Settings(overlap=False).overlaps
