"""training/datasets: the list of data sets, and the command that converts one."""

import subprocess
import sys
from pathlib import Path

import pytest

from training.datasets import DATASETS, Dataset


def test_names_are_unique() -> None:
    assert len({dataset.name for dataset in DATASETS}) == len(DATASETS)


@pytest.mark.parametrize("dataset", DATASETS, ids=lambda dataset: dataset.name)
def test_every_data_set_names_a_missing_source(dataset: Dataset, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training.datasets", dataset.name]
    result = subprocess.run([*command, str(tmp_path / "absent"), str(tmp_path / "out")], capture_output=True, text=True)
    assert result.returncode == 1
    assert str(tmp_path / "absent") in result.stderr and "Remedy" in result.stderr
    assert "Traceback" not in result.stderr


def test_listing_the_data_sets_imports_no_converter() -> None:
    code = "import sys, training.datasets; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
