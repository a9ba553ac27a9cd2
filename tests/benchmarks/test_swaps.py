"""The benchmark of changing the model, in small."""

from pathlib import Path

import pytest

from benchmarks.swaps import Phase, main, table
from tests.service.toy_bundle import publish_toy


def test_a_line_for_each_kind_with_medians_and_sums() -> None:
    steady = [Phase(1.0, 4.0, 0, 0), Phase(3.0, 2.0, 0, 0), Phase(2.0, 10.0, 0, 0)]
    lines = table({"none": steady, "all": [Phase(2.0, 6.0, 1, 5), Phase(2.0, 6.0, 2, 7)]}).splitlines()
    assert lines[2:] == ["| none | 2.00 | 4.00 | 1.00x | 0 | 0 |", "| all | 2.00 | 6.00 | 1.50x | 12 | 3 |"]


def test_it_swaps_a_real_service_and_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish_toy(tmp_path / "toy")
    load = ["--candidates", "3", "--rate", "20", "--seconds", "1", "--every", "0.5", "--repetitions", "1"]
    main(["--bundle", str(tmp_path / "toy"), "--workers", "1", *load])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[-1] for row in rows] == ["0 |"] * 3
    none, some, most = (int(row[-2]) for row in rows)
    assert none == 0 < some < most
