"""The first minute of a new model: whether it is so much worse than the one before that it has to go.

Worse is a model that fails, or whose scores lie twice as far from its own reference as those of the one before lay
from its. What both models' traffic has in common cancels out: a page of only the best candidates is far from any
validation split, before and after. Knows counts and time. Does not know how to go back.
"""

import time
from collections.abc import Callable

from service.api.metrics.drift import drifts
from service.api.metrics.recorder import Recorder

MIN_RUNS = 30  # looked at, below which scores say nothing
TOO_FAR = 2.0  # times as far as the one before


class Trial:
    """Looks at the scores of every run of whatever `recorder` watches, for `seconds`.

    `before` is the drift of outputs (PSI) before the change, `max_psi` what no model is taken back for.
    """

    def __init__(
        self,
        recorder: Recorder,
        before: dict[str, float],
        *,
        seconds: float,
        max_psi: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recorder, self._before, self._max_psi, self._clock = recorder, before, max_psi, clock
        self._until = clock() + seconds
        self._look(closely=True)

    def end(self) -> None:
        """Look no closer than ever."""
        self._look(closely=False)

    @property
    def over(self) -> bool:
        """Whether it has passed."""
        return self._clock() >= self._until

    def shifted(self) -> str | None:
        """The output whose scores have shifted too far, if there is one by now."""
        found, runs = drift_of_scores(self._recorder)
        if runs < MIN_RUNS:
            return None
        return next((name for name, psi in found.items() if psi > self._limit(name)), None)

    def _look(self, *, closely: bool) -> None:
        if self._recorder.drift is not None:
            self._recorder.drift.closely = closely

    def _limit(self, name: str) -> float:
        return max(self._max_psi, TOO_FAR * self._before.get(name, float("inf")))


def drift_of_scores(recorder: Recorder) -> tuple[dict[str, float], int]:
    """PSI of each output of the model that answers, and how many runs it is told from."""
    if recorder.layout is None:
        return {}, 0
    _, outputs, runs = drifts(recorder.block, recorder.layout, recorder.drift_window_s)
    return outputs, runs
