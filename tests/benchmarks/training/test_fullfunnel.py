from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.training.fullfunnel import Stopwatch, benchmark_run
from benchmarks.training.settings import ARCHITECTURES, IDS, NUMBERS, cuts
from training.pipeline import read_log
from training.split import TEST, TRAIN, VALIDATION


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_run_has_every_column_as_a_feature(architecture: str, log_folder: Path) -> None:
    run = benchmark_run(architecture, log_folder)
    assert {feature.name for feature in run.features} == {*IDS, *NUMBERS}
    assert run.training.objective == "entire_space"


def test_it_trains_and_is_judged_on_the_rows_of_the_other_systems(log_folder: Path) -> None:
    split = read_log(benchmark_run("esmm", log_folder)).split
    validation, test = cuts(len(split))
    expected = np.repeat([TRAIN, VALIDATION, TEST], [validation, test - validation, len(split) - test])
    np.testing.assert_array_equal(split, expected)


def test_the_stopwatch_notes_every_step_and_changes_nothing() -> None:
    told: list[int] = []

    def train(*args: Any, on_progress: Any, seed: int) -> Any:
        for seen in (5, 9, 12):
            on_progress(seen)
        return args, seed

    stopwatch = Stopwatch(train)
    answer: Any = stopwatch("rows", on_progress=told.append, seed=3)
    assert answer == (("rows",), 3)
    assert told == [5, 9, 12]
    assert stopwatch.pace.rows == [0, 5, 4, 3]
    assert stopwatch.seconds > 0
