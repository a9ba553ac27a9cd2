"""Public data sets in the form that runs read: a literal list, and one module each that converts the publisher's files.

Knows names and what converts them. Does not know where the files come from, and does not import a converter
before it is called. Where to get each and on which terms is in docs/datasets.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Report = Callable[[str, int], None]  # the file being read, and how many of its rows have been


def silent(file: str, rows: int) -> None:
    """A report to nobody."""


class Convert(Protocol):
    """Writes Parquet files and run.toml, which trains on them, into the folder `target`, and returns it.

    Raises: SourceMissing, ColumnMissing, LabelInvalid, DataInvalid, TargetUnwritable.
    """

    def __call__(self, source: Path, target: Path, report: Report = silent) -> Path: ...  # noqa: D102


@dataclass(frozen=True)
class Dataset:
    """A data set by the name that the command line knows it by."""

    name: str
    help: str
    convert: Convert


def _aliccp(source: Path, target: Path, report: Report = silent) -> Path:
    from training.datasets.aliccp import convert

    return convert(source, target, report)


def _aliexpress(source: Path, target: Path, report: Report = silent) -> Path:
    from training.datasets.aliexpress import convert

    return convert(source, target, report)


def _census(source: Path, target: Path, report: Report = silent) -> Path:
    from training.datasets.census import convert

    return convert(source, target, report)


def _criteo(source: Path, target: Path, report: Report = silent) -> Path:
    from training.datasets.criteo import convert

    return convert(source, target, report)


def _kuairand(source: Path, target: Path, report: Report = silent) -> Path:
    from training.datasets.kuairand import convert

    return convert(source, target, report)


DATASETS: tuple[Dataset, ...] = (
    Dataset("aliccp", "Ali-CCP: clicks and purchases of Taobao recommendations", _aliccp),
    Dataset("aliexpress", "AliExpress search: clicks and purchases, one country or several", _aliexpress),
    Dataset("census", "Census-Income (KDD): income and never-married of 299,285 persons", _census),
    Dataset("criteo", "Criteo attribution: clicks and conversions of 30 days of banners", _criteo),
    Dataset("kuairand", "KuaiRand-Pure: clicks and long views of short videos", _kuairand),
)
