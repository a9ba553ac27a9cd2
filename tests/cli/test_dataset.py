"""`fullfunnel dataset`."""

from pathlib import Path

import pytest

from cli.main import main
from training.datasets import DATASETS


def test_help_names_every_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["dataset", "--help"])
    shown = capsys.readouterr().out
    for dataset in DATASETS:
        assert dataset.name in shown
        assert dataset.help in shown


def test_an_unknown_data_set_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["dataset", "nowhere", "a", "b"])
    assert left.value.code == 2


@pytest.mark.parametrize("name", [dataset.name for dataset in DATASETS])
def test_a_source_that_is_not_there_is_a_message(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset", name, str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 1
    assert f"fullfunnel dataset: {tmp_path / 'nowhere'}" in capsys.readouterr().err
