"""Where a prediction is made, and that its place is given back."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from contract.errors import Overloaded, ValueInvalid
from service.api.lifecycle import Lifecycle
from service.api.predictions import INLINE_BYTES, Predictions
from service.api.settings import Limits, Settings
from service.scoring.scorer import Scorer


@dataclass(frozen=True)
class Asked:
    count: int


def thread_of_the_answer(scorer: Scorer, asked: Any) -> str:
    return threading.current_thread().name


def make(scorer: Scorer, talk: Callable[[Predictions, Lifecycle], Any], **settings: Any) -> Any:
    async def loaded() -> Any:
        chosen = Settings(**settings)
        lifecycle = Lifecycle(chosen, lambda: scorer)
        await lifecycle.start()
        try:
            return await talk(Predictions(chosen, lifecycle), lifecycle)
        finally:
            lifecycle.threads.shutdown()

    return asyncio.run(loaded())


@pytest.mark.parametrize(
    ("asked", "size", "in_thread"),
    [
        (Asked(1), 10, False),
        (Asked(99), 10, True),
        ([Asked(1), Asked(1)], 10, False),
        ([Asked(50), Asked(49)], 10, True),
        (Asked(1), INLINE_BYTES, False),
        (Asked(1), INLINE_BYTES + 1, True),
    ],
)
def test_what_takes_long_goes_to_a_thread(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch, asked: Any, size: int, in_thread: bool
) -> None:
    monkeypatch.setattr(scorer, "row_ms", 1.0)

    async def talk(predictions: Predictions, _: Lifecycle) -> str:
        return await predictions.make(lambda *_: asked, thread_of_the_answer, bytes(size))

    assert make(scorer, talk, inline_ms=50).startswith("scoring") == in_thread


def test_a_place_is_taken_while_it_answers_and_given_back_whatever_happens(scorer: Scorer) -> None:
    async def talk(predictions: Predictions, lifecycle: Lifecycle) -> None:
        def inner(_: Scorer, asked: Asked) -> None:
            with pytest.raises(Overloaded), lifecycle.prediction():
                pass

        def refuse(*_: Any) -> Asked:
            raise ValueInvalid("wrong")

        await predictions.make(lambda *_: Asked(1), inner, b"")
        with pytest.raises(ValueInvalid):
            await predictions.make(refuse, inner, b"")
        with lifecycle.prediction():
            pass

    make(scorer, talk, limits=Limits(max_concurrency=1))
