"""Public data sets in the form that runs read: a literal list, and one module each that converts the publisher's files.

Knows names and what converts them. Does not know where the files come from, and does not import a converter
before it is called.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Dataset:
    """`convert(source, target)` writes Parquet files into the folder `target` and returns it."""

    name: str
    help: str
    convert: Callable[[Path, Path], Path]


def _census(source: Path, target: Path) -> Path:
    from training.datasets.census import convert

    return convert(source, target)


DATASETS: tuple[Dataset, ...] = (
    Dataset("census", "Census-Income (KDD): income and never-married of 299,285 persons", _census),
)
