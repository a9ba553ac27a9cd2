"""Whether a new model has to go."""

from typing import Any

import numpy as np
import pytest

from contract.manifest import Reference, ScoreReference
from service.api.metrics.cells import Block
from service.api.metrics.recorder import Recorder
from service.api.swap.trial import MIN_RUNS, Trial, drift_of_scores
from service.scoring.scorer import Scorer

EVEN = tuple(np.linspace(0, 1, 11).tolist())
REFERENCE = Reference(
    rows=1000,
    scores=tuple(ScoreReference(name=name, mean=0.5, quantiles=EVEN) for name in ("pctr", "pcvr", "pctcvr")),
)


@pytest.fixture
def recorder(scorer: Scorer) -> Recorder:
    """Watches a scorer whose scores lay anywhere between 0 and 1, evenly, in its reference."""
    recorder = Recorder(Block(1), drift_every=1)
    watched = scorer.unwatched()
    watched.manifest = scorer.manifest.model_copy(update={"reference": REFERENCE})
    recorder.watch(watched)
    return recorder


def answer(recorder: Recorder, low: float, high: float, runs: int = MIN_RUNS) -> None:
    """Runs of 100 candidates whose scores lie between two numbers."""
    assert recorder.scorer is not None and recorder.scorer.observer is not None
    rng = np.random.default_rng(1)
    for _ in range(runs):
        scores = {name: rng.uniform(low, high, 100).astype(np.float32) for name in ("pctr", "pcvr", "pctcvr")}
        recorder.scorer.observer.ran(100, 0.001, scores)


def trial(recorder: Recorder, before: float | None = 0.1, **options: Any) -> Trial:
    found = {} if before is None else {"pctr": before}
    return Trial(recorder, found, **{"seconds": 60.0, "max_psi": 0.5, **options})


def test_scores_like_the_reference_are_no_reason(recorder: Recorder) -> None:
    answer(recorder, 0, 1)
    assert trial(recorder).shifted() is None


def test_scores_that_have_shifted_are_one_once_there_are_enough(recorder: Recorder) -> None:
    answer(recorder, 0.8, 1, runs=MIN_RUNS - 1)
    assert trial(recorder).shifted() is None
    answer(recorder, 0.8, 1, runs=1)
    assert trial(recorder).shifted() == "pctr"


def test_no_more_than_the_ones_before_they_are_none(recorder: Recorder) -> None:
    answer(recorder, 0.8, 1)
    shift, _ = drift_of_scores(recorder)
    assert trial(recorder, before=shift["pctr"] / 1.9).shifted() is None
    assert trial(recorder, before=shift["pctr"] / 2.1).shifted() == "pctr"
    assert trial(recorder, before=0.0, max_psi=shift["pctr"] + 0.1).shifted() is None


def test_where_nobody_knows_how_it_was_before_it_is_not_judged(recorder: Recorder) -> None:
    answer(recorder, 0.8, 1)
    assert trial(recorder, before=None).shifted() is None


def test_it_is_over_after_its_time(recorder: Recorder) -> None:
    now = [0.0]
    found = trial(recorder, seconds=60.0, clock=lambda: now[0])
    assert not found.over
    now[0] = 60.0
    assert found.over
