"""Requests that share a run get the scores that each would have got alone."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

import numpy as np
import pytest

from contract.errors import Overloaded, ScoreInvalid
from service.scoring.batching import Batcher, merged
from service.scoring.scorer import Feeds, Scorer, Scores
from tests.service.conftest import MakeApi

REQUESTS: list[tuple[dict[str, Any], dict[str, Any], list[int]]] = [
    (
        {"city": ["Berlin"], "recent_items": [["i1", "i2", "i3"]], "recent_actions": [["view", None, "buy"]]},
        {"item_id": ["i1", "i2"], "tags": [[1, 2], None]},
        [0, 0],
    ),
    ({"city": [None, "Rome"]}, {"item_id": ["i3", "i9", "i1"]}, [1, 0, 1]),
    ({"user_id": ["u1"]}, {"item_id": ["i5"], "tags": [[3, 1, 2]], "price": [7.5]}, [0]),
]


def feeds_of(scorer: Scorer) -> list[Feeds]:
    return [scorer.read(users, items, np.array(rows, np.int64)) for users, items, rows in REQUESTS]


class Blocked:
    """A scorer whose runs wait until they are let go, and are counted."""

    def __init__(self, scorer: Scorer) -> None:
        self.runs: list[int] = []
        self.started, self.go = threading.Semaphore(0), threading.Event()
        self.scorer = scorer.through(scorer.run)
        self.scorer.run = self.run  # type: ignore[method-assign]
        self.inner = scorer.run

    def run(self, feeds: Feeds) -> Scores:
        self.runs.append(len(feeds["row_user"]))
        self.started.release()
        assert self.go.wait(30)
        return self.inner(feeds)


Start = Callable[..., tuple[Batcher, Blocked]]


@pytest.fixture
def start(scorer: Scorer) -> Iterator[Start]:
    """A batcher whose first run, of one request, is under way."""
    made: list[tuple[Batcher, Blocked]] = []

    def first(max_rows: int = 100, max_wait_ms: float = 0.0, max_queue_ms: float = 60_000) -> tuple[Batcher, Blocked]:
        blocked = Blocked(scorer)
        batcher = Batcher(max_rows=max_rows, max_wait_ms=max_wait_ms, max_queue_ms=max_queue_ms)
        made.append((batcher, blocked))
        batcher.put(blocked.scorer, feeds_of(scorer)[2])
        assert blocked.started.acquire(timeout=30)
        return batcher, blocked

    yield first
    for batcher, blocked in made:
        blocked.go.set()
        batcher.close()


def same(found: Scores, scorer: Scorer, index: int) -> bool:
    users, items, rows = REQUESTS[index]
    expected = scorer.score(users, items, np.array(rows, np.int64))
    return all(np.allclose(found[name], values, rtol=0, atol=1e-7) for name, values in expected.items())


def test_arrays_of_several_requests_are_those_of_one(scorer: Scorer) -> None:
    parts = feeds_of(scorer)
    whole = merged(scorer, parts)
    assert whole["row_user"].tolist() == [0, 0, 2, 1, 2, 3]
    assert whole["recent_items"].shape == (4, 3) and whole["tags"].shape == (6, 3)
    scores, start = scorer.run(whole), 0
    for index, part in enumerate(parts):
        stop = start + len(part["row_user"])
        assert same({name: values[start:stop] for name, values in scores.items()}, scorer, index)
        start = stop


def test_what_waits_while_a_run_is_under_way_shares_the_next(start: Start, scorer: Scorer) -> None:
    batcher, blocked = start()
    futures = [batcher.put(blocked.scorer, feeds) for feeds in feeds_of(scorer)]
    blocked.go.set()
    for index, future in enumerate(futures):
        assert same(future.result(30), scorer, index)
    assert blocked.runs == [1, 6]


def test_a_run_has_no_more_rows_than_it_may_and_order_is_kept(start: Start, scorer: Scorer) -> None:
    batcher, blocked = start(max_rows=3)
    futures = [batcher.put(blocked.scorer, feeds) for feeds in [*feeds_of(scorer), feeds_of(scorer)[2]]]
    blocked.go.set()
    for future in futures:
        future.result(30)
    assert blocked.runs == [1, 2, 3, 2]


def test_a_first_request_waits_for_others_but_not_longer_than_it_must(scorer: Scorer) -> None:
    blocked = Blocked(scorer)
    blocked.go.set()
    batcher = Batcher(max_rows=6, max_wait_ms=60_000, max_queue_ms=60_000)
    first = batcher.put(blocked.scorer, feeds_of(scorer)[0])
    assert not blocked.started.acquire(timeout=0.05), "alone it waits"
    others = [batcher.put(blocked.scorer, feeds) for feeds in feeds_of(scorer)[1:]]
    for future in (first, *others):
        future.result(30)
    assert blocked.runs == [6], "six rows are enough"
    batcher.close()
    short = Batcher(max_rows=6, max_wait_ms=1, max_queue_ms=60_000)
    assert same(short.put(blocked.scorer, feeds_of(scorer)[0]).result(30), scorer, 0)
    short.close()


def test_what_was_cancelled_or_has_waited_too_long_costs_no_run(
    start: Start, scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher, blocked = start()
    cancelled, late = (batcher.put(blocked.scorer, feeds) for feeds in feeds_of(scorer)[:2])
    assert cancelled.cancel()
    with monkeypatch.context() as patch:
        patch.setattr("service.scoring.batching.time.monotonic", lambda: time.perf_counter() + 1e9)
        blocked.go.set()
        with pytest.raises(Overloaded, match="waited too long"):
            late.result(30)
    with pytest.raises(CancelledError):
        cancelled.result(30)
    assert same(batcher.put(blocked.scorer, feeds_of(scorer)[0]).result(30), scorer, 0)
    assert blocked.runs == [1, 2]


def test_a_request_whose_scores_are_invalid_fails_alone(start: Start, scorer: Scorer) -> None:
    batcher, blocked = start()
    run = blocked.inner

    def no_probability(feeds: Feeds) -> Scores:
        if len(feeds["row_user"]) in (2, 6):  # the request of two rows, alone or among the others
            raise ScoreInvalid("no probability")
        return run(feeds)

    blocked.inner = no_probability
    futures = [batcher.put(blocked.scorer, feeds) for feeds in feeds_of(scorer)]
    blocked.go.set()
    with pytest.raises(ScoreInvalid):
        futures[0].result(30)
    assert same(futures[1].result(30), scorer, 1) and same(futures[2].result(30), scorer, 2)
    assert blocked.runs == [1, 6, 2, 3, 1]


def test_any_other_failure_reaches_all_who_wait_and_the_next_are_served(start: Start, scorer: Scorer) -> None:
    batcher, blocked = start()
    run = blocked.inner

    def fail(feeds: Feeds) -> Scores:
        raise MemoryError

    futures = [batcher.put(blocked.scorer, feeds) for feeds in feeds_of(scorer)[:2]]
    blocked.inner = fail
    blocked.go.set()
    for future in futures:
        with pytest.raises(MemoryError):
            future.result(30)
    blocked.inner = run
    assert same(batcher.put(blocked.scorer, feeds_of(scorer)[0]).result(30), scorer, 0)


def test_once_closed_it_scores_what_waits_and_takes_nothing_more(start: Start, scorer: Scorer) -> None:
    batcher, blocked = start()
    waiting: Future[Scores] = batcher.put(blocked.scorer, feeds_of(scorer)[0])
    blocked.go.set()
    batcher.close()
    assert same(waiting.result(0), scorer, 0)
    with pytest.raises(Overloaded, match="stopping"):
        batcher.put(blocked.scorer, feeds_of(scorer)[0])


def test_requests_over_http_share_runs_and_get_their_own_answers(make_api: MakeApi, scorer: Scorer) -> None:
    counts: list[int] = []
    run = scorer.session.run
    bodies = [{"user": {"city": "Berlin"}, "candidates": {"item_id": ["i1", "i2"][: 1 + n % 2]}} for n in range(8)]
    alone = [make_api().post("/v1/predict", body).json() for body in bodies]

    def counted(outputs: Any, feeds: Feeds) -> Any:
        counts.append(len(feeds["row_user"]))
        return run(outputs, feeds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer.session, "run", counted)
        api = make_api(batch_wait_ms=60_000, batch_rows=12, queue_ms=60_000)
        found = api.gather(*[("/v1/predict", body) for body in bodies])
        invalid = api.gather(*[("/v1/predict", {"candidates": {"item_id": [n]}}) for n in range(2)])
        api.lifecycle.close()
    assert counts == [12], "one run for all of them"
    assert [response.json() for response in found] == alone
    assert [response.status_code for response in invalid] == [422, 422], "which wait for nobody"


def test_a_client_that_hangs_up_costs_no_run(make_api: MakeApi, scorer: Scorer) -> None:
    api = make_api(batch_wait_ms=60_000)
    body = b'{"candidates": {"item_id": ["i1"]}}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    scope = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": headers, "query_string": b""}
    messages = [{"type": "http.request", "body": body}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def receive() -> Any:
        if len(messages) == 1:
            while not api.lifecycle.batcher or not api.lifecycle.batcher._queue:
                await asyncio.sleep(0.001)
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    api._runner.run(api.app(scope, receive, send))
    assert api.lifecycle.batcher is not None
    assert [job.scores.cancelled() for job in api.lifecycle.batcher._queue] == [True]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer.session, "run", lambda *_: pytest.fail("nobody waits for this"))
        api.lifecycle.close()


def test_requests_of_different_models_never_share_a_run(start: Start, scorer: Scorer) -> None:
    batcher, blocked = start()
    other = scorer.through(scorer.run)
    scorers = [blocked.scorer, blocked.scorer, other, blocked.scorer]
    futures = [batcher.put(each, feeds_of(scorer)[0]) for each in scorers]
    blocked.go.set()
    assert all(same(future.result(30), scorer, 0) for future in futures)
    assert blocked.runs == [1, 4, 2], "the two before it together, and the one after it"
