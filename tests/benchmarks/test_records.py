"""A measurement is made once, and not again after an interruption."""

import json
from pathlib import Path

import pytest

from benchmarks.records import Figures, Job, Records, complete, in_process

JOBS = [Job("a", 1, "x"), Job("a", 2, "x"), Job("b", 1, "y")]


def test_what_was_measured_before_is_not_measured_again(tmp_path: Path) -> None:
    asked: list[Job] = []

    def measure(job: Job) -> Figures:
        asked.append(job)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return {"auc": float(job.seed)}

    path = tmp_path / "kept" / "figures.jsonl"
    with pytest.raises(KeyboardInterrupt):
        complete(Records(path), JOBS, 1, measure)
    complete(Records(path), JOBS, 1, measure)
    records = Records(path)
    assert asked == [*JOBS, JOBS[2]]
    assert [records[job]["auc"] for job in JOBS] == [1.0, 2.0, 1.0]


def test_other_settings_are_measured_anew(tmp_path: Path) -> None:
    records = Records(tmp_path / "figures.jsonl")
    records.add(JOBS[0], {"auc": 0.5})
    assert JOBS[0] in Records(records.path)
    assert Job("a", 1, "other") not in Records(records.path)


def test_a_child_that_fails_ends_the_benchmark_with_its_name() -> None:
    with pytest.raises(SystemExit, match=r"-m benchmarks.nothing 7 ended with 1"):
        in_process("benchmarks.nothing", [7])


def test_lines_are_json(tmp_path: Path) -> None:
    records = Records(tmp_path / "figures.jsonl")
    records.add(JOBS[0], {"auc": 0.5})
    assert json.loads(records.path.read_text())["figures"] == {"auc": 0.5}
