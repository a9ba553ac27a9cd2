"""What runs in the thread: in order, together where that is short, each finished once and on the loop's own thread."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from contract.errors import ScoreInvalid
from service.api.overlap import Overlap, Work
from service.scoring.scorer import Feeds, Scorer, Scores

ROWS = {"item_id": ["i1", "i2", "i3"]}


class Held:
    """Stands in for the scorer's `run`: each says that it has begun, and waits until it may go on."""

    def __init__(self, scorer: Scorer, monkeypatch: pytest.MonkeyPatch, row_ms: float = 0.0) -> None:
        self.began, self.gate = threading.Semaphore(0), threading.Semaphore(0)
        self.runs, self._run = list[int](), scorer.run
        self.fails = False
        monkeypatch.setattr(scorer, "run", self.run)
        monkeypatch.setattr(scorer, "row_ms", row_ms)
        self._row_user = scorer.manifest.row_user

    def run(self, feeds: Feeds) -> Scores:
        self.runs.append(len(feeds[self._row_user]))
        self.began.release()
        self.gate.acquire()
        if self.fails:
            raise ScoreInvalid("planted")
        return self._run(feeds)

    def go_on(self, times: int = 1) -> None:
        """Let one run after the other end, each as soon as it has begun; the last may still be ending."""
        for _ in range(times):
            assert self.began.acquire(timeout=30)
            self.gate.release()


@contextmanager
def overlapping() -> Iterator[tuple[Overlap, asyncio.Runner]]:
    with asyncio.Runner() as runner:
        overlap = Overlap(runner.get_loop())
        try:
            yield overlap, runner
        finally:
            overlap.close()


def work(scorer: Scorer, finish: Callable[[Scores | None], Any], user: str = "u1") -> Work:
    feeds = scorer.read({"user_id": [user]}, ROWS)
    return Work(scorer, feeds, 3, 1, finish)


def test_what_waits_while_a_run_is_under_way_shares_the_next(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = {user: scorer.score({"user_id": [user]}, ROWS) for user in ("u1", "u2", "u3")}
    held, found = Held(scorer, monkeypatch), list[Any]()
    with overlapping() as (overlap, _):
        overlap.put(work(scorer, found.append, "u1"))
        assert held.began.acquire(timeout=30)
        overlap.put(work(scorer, found.append, "u2"))
        overlap.put(work(scorer, found.append, "u3"))
        held.gate.release()
        held.go_on()
        overlap.flush()
    assert held.runs == [3, 6]
    for user, scores in zip(alone, found, strict=True):
        for name, values in alone[user].items():
            np.testing.assert_allclose(scores[name], values, atol=1e-6)


def test_a_shared_run_is_short(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    held, found = Held(scorer, monkeypatch, row_ms=0.3), list[Any]()
    with overlapping() as (overlap, _):
        overlap.put(work(scorer, found.append))
        assert held.began.acquire(timeout=30)
        for _ in range(5):  # 0.9 ms each, of at most 2
            overlap.put(work(scorer, found.append))
        held.gate.release()
        held.go_on(3)
        overlap.flush()
    assert held.runs == [3, 6, 6, 3] and len(found) == 6


def test_a_run_takes_at_most_half_of_what_is_under_way(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    held, found = Held(scorer, monkeypatch), list[Any]()
    with overlapping() as (overlap, _):
        overlap.put(work(scorer, found.append))
        assert held.began.acquire(timeout=30)
        for _ in range(4):
            overlap.put(work(scorer, found.append))
        held.gate.release()
        held.go_on(2)
        overlap.flush()
    assert held.runs == [3, 9, 3] and len(found) == 5 and overlap.under_way == 0


def test_it_is_finished_on_the_loop(scorer: Scorer) -> None:
    async def talk(overlap: Overlap) -> int:
        done = asyncio.get_running_loop().create_future()
        overlap.put(work(scorer, lambda _: done.set_result(threading.get_ident())))
        return int(await done)

    with overlapping() as (overlap, runner):
        assert runner.run(talk(overlap)) == threading.get_ident()


def test_a_run_that_fails_is_told_to_all_that_share_it_and_the_next_goes_on(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, found = Held(scorer, monkeypatch), list[Any]()
    held.fails = True
    with overlapping() as (overlap, _):
        overlap.put(work(scorer, found.append))
        held.gate.release(1)
        overlap.flush()
        held.fails = False
        overlap.put(work(scorer, found.append))
        held.gate.release(1)
        overlap.flush()
    assert found[0] is None and found[1].keys() == {"pctr", "pcvr", "pctcvr"}


def test_closing_runs_what_waits(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(scorer, monkeypatch)
    with overlapping() as (overlap, _):
        for _ in range(3):
            overlap.put(work(scorer, lambda _: None))
        held.gate.release(3)
    assert sum(held.runs) == 9
