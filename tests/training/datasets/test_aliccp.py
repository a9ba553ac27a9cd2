"""training/datasets/aliccp.py: skeletons and common features are joined, in however many partitions."""

import gzip
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from contract.errors import DataInvalid, LabelInvalid, SourceMissing
from tests.training.datasets.learning import learn
from training.datasets import aliccp, delimited
from training.datasets.aliccp import ITEM, MATCHES, STEPS, USER, USER_LISTS, convert

Features = list[tuple[str, int, float]]
USER_A: Features = [("101", 11, 1.0), ("109_14", 1, 0.5), ("109_14", 2, 2.5), ("109_14", 3, 1.5), ("121", 70, 1.0)]
ITEM_A: Features = [("205", 900, 1.0), ("206", 5, 1.0), ("210", 8, 1.0), ("210", 9, 1.0), ("508", 44, 2.5)]
ITEM_B: Features = [("301", 3, 1.0), ("205", 901, 1.0), ("853", 45, 0.25), ("853", 46, 0.75), ("999", 1, 1.0)]
SMALL: dict[str, list[Any]] = {
    "sample_skeleton": [
        ("s1", 1, 1, "aa", ITEM_A),
        ("s2", 0, 1, "aa", ITEM_A),  # a purchase without a click
        ("s3", 0, 0, "zz", ITEM_B),  # no such user, and a field that nobody has documented
        ("s4", 1, 0, "bb", []),
    ],
    "common_features": [("bb", []), ("aa", USER_A)],
}


def _line(row: tuple[Any, ...]) -> str:
    *cells, features = row
    packed = "\x01".join(f"{field}\x02{number}\x03{value}" for field, number, value in features)
    return ",".join(map(str, [*cells, len(features), packed])) + "\n"


def _source(folder: Path, files: dict[str, list[Any]]) -> Path:
    for split in ("train", "test"):
        (folder / f"sample_{split}").mkdir(parents=True)
        for name, rows in files.items():
            (folder / f"sample_{split}" / f"{name}_{split}.csv").write_text("".join(map(_line, rows)))
    return folder


def _drawn(rows: int, users: int) -> dict[str, list[Any]]:
    """Every field drawn at random; one user in ten has no common features."""
    draw = random.Random(0)
    keys = [f"{draw.getrandbits(64):016x}" for _ in range(users)]
    common: list[Any] = []
    for number, key in enumerate(keys):
        found: Features = [(field, draw.randrange(6), 1.0) for field in USER]
        found += [(field, draw.randrange(99), round(draw.random(), 3)) for field in USER_LISTS for _ in range(30)]
        if number % 10:
            common.append((key, draw.sample(found, len(found))))
    skeleton: list[Any] = []
    for row in range(rows):
        click = int(draw.random() < 0.5)
        found = [(field, draw.randrange(6), 1.0) for field in (*ITEM, "210", "301")]
        found += [(field, draw.randrange(6), round(draw.random(), 3)) for field in MATCHES if draw.random() < 0.5]
        skeleton.append((f"s{row}", click, click * int(draw.random() < 0.5), draw.choice(keys), found))
    return {"sample_skeleton": skeleton, "common_features": common}


def _rows(path: Path) -> dict[str, dict[str, Any]]:
    return {row["sample_id"]: row for row in pyarrow.parquet.read_table(path).to_pylist()}


def _expected(sample: tuple[Any, ...], common: dict[str, Features]) -> dict[str, Any]:
    """The row of the log, feature by feature, as a slow reader of the files would say it."""
    name, click, conversion, key, features = sample
    row: dict[str, Any] = {"sample_id": name, "click": click, "conversion": conversion}
    for field, column in {**ITEM, "301": "scene", **MATCHES, **USER}.items():
        source = common.get(key, []) if field in USER else features
        found = sorted((entry for entry in source if entry[0] == field), key=lambda entry: entry[2])
        row[column] = found[-1][1] if found else None
        if field in MATCHES:
            row[f"{column}_value"] = pytest.approx(found[-1][2]) if found else None
    for field, column in {"210": "intention", **USER_LISTS}.items():
        source = common.get(key, []) if field in USER_LISTS else features
        found = sorted((entry for entry in source if entry[0] == field), key=lambda entry: entry[2])
        row[column] = [entry[1] for entry in found[-STEPS:]]
        if field in USER_LISTS and key not in common:
            row[column] = None
    return row


def test_a_row_has_its_own_features_and_those_of_its_user(tmp_path: Path) -> None:
    rows = _rows(convert(_source(tmp_path / "source", SMALL), tmp_path / "out") / "train.parquet")
    assert set(rows) == {"s1", "s3", "s4"}, "s2 is a purchase without a click"
    one, alone, bare = rows["s1"], rows["s3"], rows["s4"]
    assert (one["user_id"], one["profile"], one["item_id"], one["category"]) == (11, 70, 900, 5)
    assert one["categories"] == [1, 3, 2], "the largest value last"
    assert one["intention"] == [8, 9] and one["shops"] == []
    assert (one["category_match"], one["category_match_value"], one["shop_match"]) == (44, 2.5, None)
    assert (alone["user_id"], alone["categories"], alone["item_id"], alone["scene"]) == (None, None, 901, 3)
    assert (alone["intention_match"], alone["intention_match_value"]) == (46, 0.75), "the largest value of a field"
    assert (bare["user_id"], bare["categories"], bare["item_id"], bare["intention"]) == (None, [], None, [])


@pytest.mark.parametrize("partition_bytes", [2**27, 2000])
def test_the_join_is_right_however_the_files_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partition_bytes: int
) -> None:
    monkeypatch.setattr(aliccp, "PARTITION_BYTES", partition_bytes)
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 5000)
    files = _drawn(300, 40)
    out = convert(_source(tmp_path / "source", files), tmp_path / "out")
    common = dict(files["common_features"])
    assert _rows(out / "test.parquet") == {row[0]: _expected(row, common) for row in files["sample_skeleton"]}
    alone = 2 * sum(row[3] not in common for row in files["sample_skeleton"])
    assert alone > 0 and f"{alone:,} rows have no common features" in (out / "run.toml").read_text()
    assert sorted(path.name for path in out.iterdir()) == ["run.toml", "test.parquet", "train.parquet"]


def test_the_run_learns(tmp_path: Path) -> None:
    log = learn(convert(_source(tmp_path / "source", _drawn(600, 40)), tmp_path / "out"))
    assert sum(log.log.rows(split) for split in range(3)) == 1200
    names = {feature.name for feature in log.run.features}
    assert names == {
        *USER.values(), *USER_LISTS.values(), *ITEM.values(), "intention", "scene", *MATCHES.values(),
        *(f"{name}_value" for name in MATCHES.values()),
    }  # fmt: skip


def test_packed_files_convert_alike(tmp_path: Path) -> None:
    plain, packed = (_source(tmp_path / name, _drawn(50, 5)) for name in ("plain", "packed"))
    for path in sorted(packed.rglob("*.csv")):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    one, two = (convert(path, tmp_path / f"{path.name}-out") / "train.parquet" for path in (plain, packed))
    assert _rows(one) == _rows(two)


@pytest.mark.parametrize(
    ("name", "old", "new", "kind", "message"),
    [
        ("sample_skeleton", "s3,0,0,", "s3,0,", DataInvalid, "line 3: Expected 6 columns, got 5"),
        ("sample_skeleton", "s3,0", "s3,4", LabelInvalid, "line 3: click is 4"),
        ("sample_skeleton", "s1,1,1", "s1,yes,1", DataInvalid, "line 1: column 'click': .*'yes'"),
        ("common_features", "", "", DataInvalid, "line 2: 4 features where 5 are declared"),
        ("common_features", "121\x02", "121", DataInvalid, r"line 2: a feature is not FIELD"),
    ],
)
def test_a_file_of_another_form_is_refused(
    tmp_path: Path, name: str, old: str, new: str, kind: type[DataInvalid], message: str
) -> None:
    path = _source(tmp_path / "source", SMALL) / "sample_train" / f"{name}_train.csv"
    text = path.read_text()
    path.write_text(text[: text.rindex("\x01")] + "\n" if "declared" in message else text.replace(old, new, 1))
    with pytest.raises(kind, match=rf"{name}_train\.csv, {message}"):
        convert(tmp_path / "source", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (_source(tmp_path / "source", SMALL) / "sample_test" / "common_features_test.csv").unlink()
    with pytest.raises(SourceMissing, match=r"source: no file common_features_test\.csv"):
        convert(tmp_path / "source", tmp_path / "out")
