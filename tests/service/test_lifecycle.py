"""Which scorer answers, and how much is taken on."""

import asyncio
import logging
import threading

import pytest

from contract.errors import BundleCorrupt, NotReady, Overloaded
from service.api.lifecycle import Lifecycle
from service.api.settings import Limits, Settings
from service.scoring import plain
from service.scoring.scorer import Scorer

SETTINGS = Settings(limits=Limits(max_concurrency=2, max_buffered_bytes=100))


def test_it_is_ready_from_the_load_to_the_drain(scorer: Scorer) -> None:
    lifecycle = Lifecycle(SETTINGS, lambda: scorer)
    for ask in (lambda: lifecycle.scorer, lifecycle.check_ready):
        with pytest.raises(NotReady):
            ask()
    asyncio.run(lifecycle.start())
    lifecycle.check_ready()
    lifecycle.draining = True
    with pytest.raises(NotReady, match="stopping"):
        lifecycle.check_ready()
    assert lifecycle.scorer is scorer  # what still comes in is still answered


@pytest.mark.parametrize("compiled", [True, False])
def test_it_says_so_where_there_is_no_compiled_code(
    scorer: Scorer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    monkeypatch.setattr(plain, "_plain", object() if compiled else None)
    with caplog.at_level(logging.INFO, "fullfunnel"):
        asyncio.run(Lifecycle(SETTINGS, lambda: scorer).start())
    assert ("no compiled code was installed" in caplog.text) != compiled


def test_loading_leaves_the_event_loop_free(scorer: Scorer) -> None:
    turned = threading.Event()

    def load() -> Scorer:
        assert turned.wait(timeout=10)
        return scorer

    async def scenario() -> None:
        lifecycle = Lifecycle(SETTINGS, load)
        loading = asyncio.create_task(lifecycle.start())
        await asyncio.sleep(0)
        turned.set()  # deadlocks unless the loop turns while `load` waits
        await loading
        assert lifecycle.scorer is scorer

    asyncio.run(scenario())


def test_a_load_that_fails_is_kept_and_nothing_becomes_ready() -> None:
    def load() -> Scorer:
        raise BundleCorrupt("damaged")

    lifecycle = Lifecycle(SETTINGS, load)
    asyncio.run(lifecycle.start())
    assert isinstance(lifecycle.failure, BundleCorrupt)
    with pytest.raises(NotReady):
        lifecycle.check_ready()


def test_predictions_beyond_the_limit_are_refused_until_one_ends(scorer: Scorer) -> None:
    lifecycle = Lifecycle(SETTINGS, lambda: scorer)
    with lifecycle.prediction():
        with lifecycle.prediction(), pytest.raises(Overloaded), lifecycle.prediction():
            pass
        with lifecycle.prediction():
            pass
    with pytest.raises(ZeroDivisionError), lifecycle.prediction():
        raise ZeroDivisionError
    with lifecycle.prediction(), lifecycle.prediction():
        pass


def test_bytes_beyond_the_limit_are_refused_until_some_are_released(scorer: Scorer) -> None:
    lifecycle = Lifecycle(SETTINGS, lambda: scorer)
    lifecycle.hold(60)
    with pytest.raises(Overloaded):
        lifecycle.hold(41)
    lifecycle.hold(40)
    lifecycle.release(60)
    lifecycle.hold(60)
