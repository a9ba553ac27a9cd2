"""`fullfunnel score`: what it prints, and its exit codes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cli.main import main
from tests.service.batch.tables import toy_table, write


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(toy_table(100), tmp_path / "in.parquet")


def test_a_table_is_scored_and_its_quality_told(
    toy: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.parquet"
    assert main(["score", str(toy), str(source), str(out), "--keep", "row_id,click"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("100 rows in ")
    assert "against the labels" in said.err
    assert "pctcvr" in said.err
    assert pq.read_schema(out).names == ["row_id", "click", "pctr", "pcvr", "pctcvr"]


def test_a_finished_output_is_said_to_be_finished(
    toy: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["score", str(toy), str(source), str(tmp_path / "out"), "--keep", "all"]
    assert main([*arguments, "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert main(arguments) == 0
    assert "is finished already: 100 rows" in capsys.readouterr().err


def test_an_error_is_one_message(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(toy), str(tmp_path / "no.parquet"), str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("fullfunnel score: ")
    assert "no.parquet: no such file, folder or match" in said
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_it_and_the_same_command_ends_it(
    toy: Path, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    for number in range(60):
        write(toy_table(2000, number, users=2000), tmp_path / f"in/{number}.parquet", row_group_size=500)
    command = [sys.executable, "-m", "cli.main", "score", str(toy), str(tmp_path / "in"), str(tmp_path / "out")]
    process = subprocess.Popen([*command, "--workers", "2"], stderr=subprocess.PIPE, start_new_session=True)
    while not list((tmp_path / "out").glob("part-*.parquet")):
        assert process.poll() is None
        time.sleep(0.001)
    os.killpg(process.pid, sent)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert b"Traceback" not in said
    assert not (tmp_path / "out/_SUCCESS").exists()
    assert main(command[3:]) == 0
    assert pq.read_table(tmp_path / "out").num_rows == 120_000
