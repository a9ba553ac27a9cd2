"""`fullfunnel train`, up to the door of the pipeline."""

from pathlib import Path

import pytest

from cli.main import main


def test_a_run_file_that_is_not_there_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("training.pipeline")
    assert main(["train", str(tmp_path / "run.toml")]) == 1
    assert f"fullfunnel train: {tmp_path / 'run.toml'}" in capsys.readouterr().err


def test_an_override_of_a_key_that_is_not_there_is_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("training.pipeline")
    (tmp_path / "run.toml").write_text('name = "x"\n[data]\npath = "nowhere.parquet"\n')
    assert main(["train", str(tmp_path / "run.toml"), "--set", "training.epoch=3"]) == 1
    assert "epoch" in capsys.readouterr().err
