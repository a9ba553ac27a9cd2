"""`fullfunnel simulate`."""

from pathlib import Path

import pytest

pytest.importorskip("training.simulator")

from cli.main import main


def test_a_log_and_its_truth_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow.parquet as pq

    out = tmp_path / "log"
    assert main(["simulate", str(out), "--rows", "2000", "--seed", "3", "--days", "2"]) == 0
    assert capsys.readouterr().out == f"2,000 impressions over 2 days in {out}\n"
    assert {file.name for file in out.iterdir()} == {"log.parquet", "truth.parquet"}
    assert pq.read_metadata(out / "log.parquet").num_rows == 2000


def test_what_cannot_be_simulated_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", str(tmp_path / "log"), "--rows", "0"]) == 1
    assert "fullfunnel simulate: " in capsys.readouterr().err
    assert not (tmp_path / "log").exists()
