"""training/datasets/criteo.py: the impressions become a log with a funnel that holds."""

import gzip
import random
from pathlib import Path

import pyarrow.parquet
import pytest

from contract.errors import ColumnMissing, DataInvalid, LabelInvalid, SourceMissing
from tests.training.datasets.learning import learn
from training.datasets.criteo import TYPES, convert

NAME = "criteo_attribution_dataset.tsv.gz"
# one row of each kind: no click; a click; a conversion without a click; after a click; and attributed
ROWS = (
    (0, 20073966, 22589171, 0, -1, -1, 0, 0, -1, -1, 1e-05, 0.39, -1),
    (2, 24607497, 884761, 0, -1, -1, 0, 1, -1, -1, 2e-05, 0.4, 423858),
    (2, 28474333, 18975823, 1, 1449193, 3063962, 0, 0, -1, -1, 0.000183, 0.07, 8879),
    (3, 7306395, 29427842, 1, 1449194, 3063963, 0, 1, 0, 7, 0.0001, 0.2, -1),
    (4, 25357769, 13365547, 1, 1449195, 3063964, 1, 1, 6, 7, 0.0001, 0.2, 7),
)


def _text(rows: int) -> str:
    draw, lines = random.Random(0), ["\t".join(TYPES)]
    for row in range(rows):
        values = ROWS[row] if row < len(ROWS) else (row, draw.randrange(9), draw.randrange(5), *draw.choice(ROWS)[3:])
        lines.append("\t".join(map(str, [*values, *(draw.randrange(4) for _ in range(9))])))
    return "\n".join(lines) + "\n"


def _source(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / NAME).write_bytes(gzip.compress(text.encode()))
    return folder


def test_every_value_arrives_with_minus_one_as_missing_and_labels_that_nest(tmp_path: Path) -> None:
    source = _source(tmp_path / "source", _text(40))
    found = pyarrow.parquet.read_table(convert(source, tmp_path / "out") / "log.parquet").slice(0, 5).to_pydict()
    for number, name in enumerate(list(TYPES)[:13]):
        absent = -1 if name in {"conversion_timestamp", "conversion_id", "click_pos", "time_since_last_click"} else None
        expected = [None if row[number] == absent else row[number] for row in ROWS]
        assert found[name] == pytest.approx(expected), name
    assert found["click_nb"] == [-1, -1, -1, 7, 7]
    assert found["clicked_conversion"] == [0, 0, 0, 1, 1]
    assert found["attributed"] == [0, 0, 0, 0, 1]


def test_the_run_learns_from_the_first_days_and_reads_nothing_of_what_comes_after(tmp_path: Path) -> None:
    log = learn(convert(_source(tmp_path / "source", _text(1000)), tmp_path / "out"))
    assert [log.log.rows(split) for split in range(3)] == [800, 100, 100]
    names = {feature.name for feature in log.run.features}
    assert names == {"uid", "time_since_last_click", "campaign", *(f"cat{number}" for number in range(1, 10))}
    assert [(task.label, task.given) for task in log.run.tasks] == [("click", None), ("clicked_conversion", "click")]


def test_the_file_itself_and_the_unpacked_file_are_sources_too(tmp_path: Path) -> None:
    packed = _source(tmp_path / "packed", _text(300)) / NAME
    (tmp_path / NAME.removesuffix(".gz")).write_text(_text(300))
    one = convert(packed, tmp_path / "one") / "log.parquet"
    two = convert(tmp_path / NAME.removesuffix(".gz"), tmp_path / "two") / "log.parquet"
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "kind", "message"),
    [
        ("\tcpo\t", "\tprice\t", ColumnMissing, "line 1: no column 'cpo'"),
        ("20073966\t", "", DataInvalid, "line 2: Expected 22 columns, got 21"),
        ("\n2\t28474333\t18975823\t1", "\n2\t28474333\t18975823\t5", LabelInvalid, "line 4: conversion is 5"),
    ],
)
def test_a_file_of_another_form_is_refused(
    tmp_path: Path, old: str, new: str, kind: type[DataInvalid], message: str
) -> None:
    with pytest.raises(kind, match=rf"dataset\.tsv\.gz, {message}"):
        convert(_source(tmp_path / "source", _text(40).replace(old, new, 1)), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_download_cut_short_is_told(tmp_path: Path) -> None:
    path = _source(tmp_path / "source", _text(5000)) / NAME
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataInvalid, match=r"dataset\.tsv\.gz, after line \d+: Truncated"):
        convert(path.parent, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_source_without_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="no file criteo_attribution_dataset"):
        convert(tmp_path, tmp_path / "out")
