"""Fullfunnel on the same log: the run that `fullfunnel train` would carry out.

Knows `training`'s pipeline and where its loop reports progress.
`python -m benchmarks.training.fullfunnel ARCHITECTURE LOG_FOLDER`
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console

from benchmarks.training.result import Pace, Result
from benchmarks.training.settings import (
    BATCH_ROWS,
    DIM,
    EMBEDDING_LEARNING_RATE,
    EXPERT,
    EXPERTS,
    ITEM_IDS,
    ITEM_NUMBERS,
    LEARNING_RATE,
    LEVELS,
    PRIVATE,
    SHARED,
    TIME,
    TOWER,
    TOWER_OF_ESMM,
    USER_IDS,
    USER_NUMBERS,
    VALIDATION,
)
from contract.bundle import Manifest
from training import loop, pipeline
from training.run import Run, parse_run

MODELS: dict[str, dict[str, Any]] = {
    "esmm": {"architecture": "separate_towers", "tower": TOWER_OF_ESMM},
    "mmoe": {"architecture": "mmoe", "experts": EXPERTS, "expert": EXPERT, "tower": TOWER},
    "ple": {
        "architecture": "ple",
        "levels": LEVELS,
        "private": PRIVATE,
        "shared": SHARED,
        "expert": EXPERT,
        "tower": TOWER,
    },
}


class Stopwatch:
    """Stands in for the loop's `train`, which it calls, and notes when steps end and when training does."""

    def __init__(self, train: Callable[..., loop.History]) -> None:
        self.train = train
        self.started = time.perf_counter()
        self.pace = Pace()
        self.seconds = 0.0

    def __call__(self, *args: Any, on_progress: Callable[[int], None], **options: Any) -> loop.History:
        """What `training.loop.train` does."""
        seen = 0
        self.pace = Pace()

        def noted(rows: int) -> None:
            nonlocal seen
            self.pace.add(rows - seen)
            seen = rows
            on_progress(rows)

        history = self.train(*args, on_progress=noted, **options)
        self.seconds = time.perf_counter() - self.started
        return history


def benchmark_run(architecture: str, folder: Path) -> Run:
    """A run of the shared sizes. Values seen once get a row of their own, as the other systems give them one."""
    features: list[dict[str, Any]] = []
    for side, ids, numbers in (("user", USER_IDS, USER_NUMBERS), ("item", ITEM_IDS, ITEM_NUMBERS)):
        features += [
            {"kind": "categorical", "name": name, "side": side, "dim": DIM, "dtype": "string", "min_count": 1}
            for name in ids
        ]
        features += [{"kind": "numeric", "name": name, "side": side} for name in numbers]
    return parse_run(
        {
            "name": f"benchmark-{architecture}",
            "data": {"path": str(folder / "log.parquet")},
            "split": {"by": "time", "column": TIME, "validation": VALIDATION, "test": VALIDATION},
            "features": features,
            "model": MODELS[architecture],
            "training": {
                "objective": "entire_space",
                "batch_rows": BATCH_ROWS,
                "learning_rate": LEARNING_RATE,
                "embedding_learning_rate": EMBEDDING_LEARNING_RATE,
            },
        }
    )


def run(architecture: str, folder: Path) -> Result:
    """Train, publish the bundle into a scratch folder, and take the AUCs from its manifest."""
    stopwatch = Stopwatch(loop.train)
    with tempfile.TemporaryDirectory() as directory, mock.patch.object(loop, "train", stopwatch):
        stopwatch.started = time.perf_counter()
        bundle = pipeline.train(benchmark_run(architecture, folder), Path(directory) / "bundle", Console(stderr=True))
    return Result(
        stopwatch.pace.rows_per_second(),
        stopwatch.seconds,
        stopwatch.pace.times[0] - stopwatch.started,
        _auc(bundle.manifest, "pctr"),
        _auc(bundle.manifest, "pctcvr"),
    )


def _auc(manifest: Manifest, output: str) -> float:
    return next(m.value for m in manifest.metrics if (m.name, m.output, m.rows) == ("auc", output, "all"))


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2])).print()
