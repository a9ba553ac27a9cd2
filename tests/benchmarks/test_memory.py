"""benchmarks/memory.py on a real service of a small bundle."""

import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.memory import Started, enlarge, main, proportional_set, table
from contract.bundle import MODEL, read_bundle
from service.scoring.scorer import Scorer
from tests.service.toy_bundle import publish_toy


def test_a_larger_table_leaves_scores_as_they_are(tmp_path: Path) -> None:
    small = publish_toy(tmp_path / "toy")
    enlarge(tmp_path / "toy", tmp_path / "large", 3)
    large = read_bundle(tmp_path / "large")
    assert len(large.files[MODEL]) - len(small.files[MODEL]) == pytest.approx(3e6, rel=1e-3)
    assert large.golden == small.golden
    Scorer.load(tmp_path / "large")


def test_a_line_for_each_number_of_workers_with_medians(tmp_path: Path) -> None:
    text = table({1: [Started(1.0, 100.0), Started(3.0, 300.0), Started(2.0, 200.0)], 2: [Started(2.5, 250.0)]})
    assert "| 1 | 200 | 1.00x | 2.00 |" in text and "| 2 | 250 | 1.25x | 2.50 |" in text


def test_memory_of_this_process_is_counted() -> None:
    before = proportional_set(os.getpid())
    ballast = np.ones(2**28, np.uint8)
    assert 200 < proportional_set(os.getpid()) - before < 300
    del ballast


def test_the_command_measures_real_services(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish_toy(tmp_path / "toy")
    main(["--bundle", str(tmp_path / "toy"), "--megabytes", "1", "--starts", "1", "--workers", "1", "2", "--port", "0"])
    assert capsys.readouterr().out.count("\n") == 4
