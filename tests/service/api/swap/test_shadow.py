"""A model that scores in the shadow, without processes."""

import threading
from typing import Any

import numpy as np

from service.api.swap.shadow import Differences, Shadow
from service.scoring.scorer import Feeds, Scorer, Scores

TABLES: tuple[Any, Any] = ({"user_id": ["u1"]}, {"item_id": ["i1", "i2"]})


def tables() -> tuple[Any, Any]:
    return TABLES


class Told:
    """What came of each comparison."""

    def __init__(self) -> None:
        self.results: list[str] = []
        self.differences: list[Differences] = []
        self.news = threading.Semaphore(0)

    def __call__(self, result: str, differences: Differences) -> None:
        self.results.append(result)
        self.differences.append(differences)
        self.news.release()


def test_one_in_so_many_is_compared_with_what_was_answered_and_nobody_else_hears_of_it(scorer: Scorer) -> None:
    told, seen = Told(), Told()
    shadow = Shadow(scorer.unwatched(), 3, told)
    watched = scorer.unwatched()
    watched.observer = seen  # type: ignore[assignment]  # which has no method that could be called
    for _ in range(7):
        shadow.offer(watched, tables, scorer.read(*TABLES))
        if len(told.results) < shadow._seen // 3:
            assert told.news.acquire(timeout=30)
    shadow.close()
    assert told.results == ["compared", "compared"] and not seen.results
    assert {name: values.tolist() for name, values in told.differences[0].items()} == {
        name: [0.0, 0.0] for name in ("pctr", "pcvr", "pctcvr")
    }


def test_while_one_is_compared_others_are_dropped_and_nobody_waits(scorer: Scorer) -> None:
    told, go = Told(), threading.Event()
    slow = scorer.unwatched()

    def blocked(feeds: Feeds) -> Scores:
        assert go.wait(30)
        return {name: np.zeros(2, np.float32) for name in ("pctr", "pcvr", "pctcvr")}

    slow._through = blocked
    shadow = Shadow(slow, 1, told)
    feeds = scorer.read(*TABLES)
    for _ in range(3):
        shadow.offer(scorer, tables, feeds)
    assert told.results == ["dropped", "dropped"]
    go.set()
    shadow.close()
    assert told.results[2:] == ["compared"]
    answered = scorer.score(*TABLES)
    assert np.allclose(told.differences[2]["pctr"], answered["pctr"])


def test_what_fails_in_the_shadow_is_counted_and_the_next_is_compared(scorer: Scorer) -> None:
    told, broken = Told(), scorer.unwatched()
    shadow = Shadow(broken, 1, told)
    shadow.offer(scorer, lambda: ({}, {"stranger": [1, 2]}), scorer.read(*TABLES))
    assert told.news.acquire(timeout=30)
    until_free(shadow)
    shadow.offer(scorer, tables, scorer.read(*TABLES))
    shadow.close()
    assert told.results == ["failed", "compared"]
    shadow.offer(scorer, tables, scorer.read(*TABLES))  # closed: nothing happens
    assert len(told.results) == 2


def until_free(shadow: Shadow) -> None:
    with shadow._busy:
        pass
