"""training/datasets: the list of data sets, and what converting one brings along."""

import subprocess
import sys
from pathlib import Path

import pytest

from contract.errors import SourceMissing
from training.datasets import DATASETS, Dataset


def test_names_are_unique() -> None:
    assert len({dataset.name for dataset in DATASETS}) == len(DATASETS)


@pytest.mark.parametrize("dataset", DATASETS, ids=lambda dataset: dataset.name)
def test_every_data_set_names_a_missing_source(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="absent"):
        dataset.convert(tmp_path / "absent", tmp_path / "out")


def test_listing_the_data_sets_imports_no_converter() -> None:
    code = "import sys, training.datasets; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
