"""training/datasets/aliexpress.py: the countries' files become one log of searches."""

import os
import random
import shutil
from pathlib import Path

import pyarrow.parquet
import pytest

from contract.errors import ColumnMissing, DataInvalid, LabelInvalid, SourceMissing
from tests.training.datasets.learning import learn
from training.datasets.aliexpress import CATEGORIES, NUMBERS, convert
from training.split import TEST, TRAIN

HEADER = ["search_id", *CATEGORIES, *NUMBERS, "click", "conversion"]


def _file(path: Path, rows: int, seed: int) -> Path:
    """Results of searches of five, in the documented form; row 3 is a purchase without a click."""
    draw, lines = random.Random(seed), [",".join(HEADER)]
    for row in range(rows):
        click = int(draw.random() < 0.5)
        conversion = 1 if row == 3 else click * int(draw.random() < 0.5)
        values = [row // 5, *(draw.randrange(4) for _ in CATEGORIES), *(round(draw.random(), 4) for _ in NUMBERS)]
        lines.append(",".join(map(str, [*values, 0 if row == 3 else click, conversion])))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def _country(folder: Path, seed: int = 0, rows: int = 200) -> Path:
    _file(folder / "train.csv", rows, seed)
    _file(folder / "test.csv", rows // 2, seed + 1)
    return folder


def _columns(path: Path) -> dict[str, list[object]]:
    columns: dict[str, list[object]] = pyarrow.parquet.read_table(path).to_pydict()
    return columns


def test_every_value_arrives_and_only_rows_that_are_no_funnel_are_left_out(tmp_path: Path) -> None:
    source = _country(tmp_path / "AliExpress_NL")
    out = convert(source, tmp_path / "out")
    for split in ("train", "test"):
        lines = [line.split(",") for line in (source / f"{split}.csv").read_text().splitlines()[1:]]
        lines.pop(3)
        found = _columns(out / f"{split}.parquet")
        assert list(found) == ["country", "search", *HEADER]
        assert found["country"] == ["NL"] * len(lines)
        assert found["search"] == [f"NL-{line[0]}" for line in lines]
        for number, name in enumerate(HEADER):
            assert found[name] == pytest.approx([float(line[number]) for line in lines])
    assert "on NL.\n# 2 rows with a purchase but no click" in (out / "run.toml").read_text()


def test_countries_are_written_one_after_another_and_their_searches_stay_apart(tmp_path: Path) -> None:
    for seed, country in enumerate(("NL", "ES")):
        _country(tmp_path / "all" / f"AliExpress_{country}", seed)
    found = _columns(convert(tmp_path / "all", tmp_path / "out") / "train.parquet")
    assert found["country"] == ["ES"] * 199 + ["NL"] * 199
    assert len(set(found["search"])) == 80 and len(set(found["search_id"])) == 40
    assert 'name = "country"' in (tmp_path / "out" / "run.toml").read_text()


def test_the_run_learns_and_keeps_searches_together(tmp_path: Path) -> None:
    log = learn(convert(_country(tmp_path / "plain", rows=400), tmp_path / "out"))
    assert (log.log.rows(TRAIN), log.log.rows(TEST)) == (399 - log.log.rows(1), 199)
    assert "country" not in {feature.name for feature in log.run.features}, "which the folder does not say"
    splits = dict[object, set[int]]()
    for search, split in zip(_columns(tmp_path / "out" / "train.parquet")["search"], log.log.split, strict=False):
        splits.setdefault(search, set()).add(int(split))
    assert all(len(found) == 1 for found in splits.values())


@pytest.mark.parametrize(
    ("old", "new", "kind", "message"),
    [
        ("numerical_63", "number_63", ColumnMissing, "no column 'numerical_63'"),
        ("\n1,", "\n1,1,", DataInvalid, "line 7: Expected 82 columns, got 83"),
        (",0,0\n", ",0,7\n", LabelInvalid, "conversion is 7"),
    ],
)
def test_a_file_of_another_form_is_refused(
    tmp_path: Path, old: str, new: str, kind: type[DataInvalid], message: str
) -> None:
    path = _country(tmp_path / "source") / "test.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(kind, match=rf"test\.csv, line \d+: .*{message.split(': ')[-1]}"):
        convert(tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_country_without_its_test_file_is_named(tmp_path: Path) -> None:
    (_country(tmp_path / "source") / "test.csv").unlink()
    with pytest.raises(SourceMissing, match=r"source: no file test\.csv"):
        convert(tmp_path / "source", tmp_path / "out")


def test_real_rows_convert_and_learn(tmp_path: Path) -> None:
    if not os.environ.get("FULLFUNNEL_REAL_DATA"):
        pytest.skip("FULLFUNNEL_REAL_DATA is not set: set it to the folder that holds aliexpress_2k/")
    (tmp_path / "AliExpress_XX").mkdir()
    for split in ("train", "test"):
        real = Path(os.environ["FULLFUNNEL_REAL_DATA"]) / "aliexpress_2k" / f"{split}_big.csv"
        shutil.copy(real, tmp_path / "AliExpress_XX" / f"{split}.csv")
    out = convert(tmp_path / "AliExpress_XX", tmp_path / "out")
    train, test = (_columns(out / f"{split}.parquet") for split in ("train", "test"))
    assert (len(train["click"]), sum(map(int, map(str, train["click"])))) == (1000, 29)
    assert (len(test["click"]), sum(map(int, map(str, test["conversion"])))) == (1000, 10)
    assert train["search_id"][0] == 363 and train["numerical_5"][0] == 0.75
    assert "never change in train.parquet: country, categorical_1" in (out / "run.toml").read_text()
    learn(out)
