"""The table of the systems: its columns, its means, and who is ahead of whom."""

import json
from pathlib import Path

import pytest

from benchmarks import funnel
from benchmarks.funnel import SINGLE, columns_of, simulated, table, verdict
from benchmarks.records import Figures

KEY = "auc pcvr truth"


def measured(*values: float) -> list[Figures]:
    return [{KEY: value, "parameters": 1000.0} for value in values]


def test_a_line_is_the_mean_over_the_seeds_and_the_best_is_bold() -> None:
    found = {"mmoe": measured(0.7, 0.9), SINGLE: measured(0.6, 0.6)}
    text = table([SINGLE, "mmoe"], found, [(KEY, "AUC"), ("parameters", "parameters")])
    assert text.splitlines()[2:] == ["| single task | 0.6000 | 1,000 |", "| mmoe | **0.8000** | 1,000 |"]


def test_verdict_counts_the_seeds_in_which_a_system_is_ahead_and_starts_with_the_best_mean() -> None:
    found = {"mmoe": measured(0.75, 0.5), "ple": measured(0.75, 0.9), SINGLE: measured(0.72, 0.6)}
    text = verdict([SINGLE, "mmoe", "ple"], found, [1, 2], KEY)
    assert "seeds of 2 in which a system is above single_task, the best mean first: ple 2, mmoe 1." in text
    assert "seed 2: ple 0.9000, single_task 0.6000." in text


def test_every_system_has_the_truth_of_all_rows_among_its_columns() -> None:
    run = simulated("mmoe", 3, Path("somewhere"))
    assert run.seed == 3
    keys = [key for key, _ in columns_of(run)]
    assert keys[:4] == ["auc pctr all", "auc pctcvr all", "auc pcvr given", KEY]
    assert {"pcoc pcvr truth", "training, s", "parameters", "ms a request"} <= set(keys)


def test_a_system_is_measured_through_the_whole_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(funnel, "REQUESTS", 3)
    name = "mmoe"
    options = ["--rows", "20000", "--data", str(tmp_path), "--systems", name, "--seeds", "1", "--one"]
    funnel.main(options)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["ms a request"] > 0
    assert figures["training, s"] > 0
    assert 0.3 < figures[KEY] < 1
