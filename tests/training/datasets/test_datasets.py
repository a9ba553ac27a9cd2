"""training/datasets: the list of data sets, and what converting one brings along."""

import importlib
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


@pytest.mark.parametrize("dataset", DATASETS, ids=lambda dataset: dataset.name)
def test_source_and_terms_of_every_data_set_are_stated(dataset: Dataset) -> None:
    text = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text()
    section = text.split(f"\n## `{dataset.name}`: ")[1].split("\n## ")[0]
    for fact in ("**Source**", "**Terms**", "**Files**", "**Written**", "https://"):
        assert fact in section
    converter = importlib.import_module(f"training.datasets.{dataset.name}")
    assert "Publisher: " in (converter.__doc__ or "") and "Terms: " in (converter.__doc__ or "")
