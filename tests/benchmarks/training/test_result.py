import sys
import time

import pytest

from benchmarks.training.result import WARM_UP_STEPS, Pace, Result


def test_a_result_is_read_from_the_last_line_of_what_was_printed(capsys: pytest.CaptureFixture[str]) -> None:
    result = Result(10.0, 2.0, 1.0, 0.7, 0.8)
    sys.stdout.write("epoch 1: {}\n")
    result.print()
    assert Result.read(capsys.readouterr().out) == result


def test_the_best_of_two_is_taken_figure_by_figure() -> None:
    fast, steady = Result(10.0, 2.0, 1.0, 0.7, 0.8), Result(20.0, 3.0, 1.5, 0.7, 0.8)
    assert fast.best(steady) == steady.best(fast) == Result(20.0, 2.0, 1.0, 0.7, 0.8)


def test_the_first_steps_do_not_count() -> None:
    pace = Pace()
    pace.times = [100.0 * i for i in range(WARM_UP_STEPS + 1)]
    pace.times += [pace.times[-1] + 2.0, pace.times[-1] + 4.0]
    pace.rows = [0] + [8] * (len(pace.times) - 1)
    assert pace.rows_per_second() == 4.0


def test_few_steps_still_have_a_pace() -> None:
    pace = Pace()
    for _ in range(2):
        time.sleep(0.001)
        pace.add(100)
    assert 0 < pace.rows_per_second() < 100_000
