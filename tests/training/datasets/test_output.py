"""training/datasets/output.py: Parquet files and their run appear together, or not at all."""

import tomllib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from contract.errors import RunInvalid, TargetUnwritable
from training.datasets import output as module
from training.datasets.output import Keys, as_text, categorical, funnel, numeric, publishing, sequence
from training.run import load_run

TABLE = pa.table(
    {
        "click": [1, 0],
        "conversion": [0, 0],
        "item": ["a", "b"],
        "fixed": ["a", "a"],
        "price": [1.0, None],
        "void": pa.array([None, None], pa.float32()),
        "tags": pa.array([[], [1]], pa.list_(pa.int64())),
        "no_tags": pa.array([[], None], pa.list_(pa.int64())),
    }
)


def _document() -> Keys:
    return {
        "name": "any",
        "data": {"path": "log.parquet"},
        "model": {"architecture": "separate_towers", "tower": [4]},
        "tasks": funnel("click", "conversion"),
        "features": [
            categorical("item", "item"),
            categorical("fixed", "item"),
            numeric("price", "item", scale="log1p"),
            numeric("void", "item"),
            sequence("tags", "user", max_length=3),
            sequence("no_tags", "user"),
        ],
    }


def test_the_files_and_the_run_appear_together_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "new" / "out"
    with publishing(target) as output:
        output.write("log.parquet", TABLE)
        output.write_run("About it.", _document())
        assert not target.exists()
    assert sorted(path.name for path in target.iterdir()) == ["log.parquet", "run.toml"]
    assert [path.name for path in target.parent.iterdir()] == ["out"]
    assert pyarrow.parquet.read_table(target / "log.parquet").equals(TABLE)


def test_a_fault_on_the_way_leaves_what_was_there_before(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "run.toml").write_text("before")
    with pytest.raises(ValueError, match="on the way"), publishing(target) as output:
        output.write("log.parquet", TABLE)
        raise ValueError("on the way")
    assert [path.read_text() for path in target.iterdir()] == ["before"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_features_that_never_vary_are_left_out_and_named(tmp_path: Path) -> None:
    with publishing(tmp_path / "out") as output:
        for row in range(2):  # each of them alone varies in nothing
            output.write("log.parquet", TABLE.slice(row, 1))
        output.write_run("About it.", _document())
    run = load_run(tmp_path / "out" / "run.toml")
    assert [feature.name for feature in run.features] == ["item", "price", "tags"]
    assert "never change in log.parquet: fixed, void, no_tags." in (tmp_path / "out" / "run.toml").read_text()


def test_paths_start_where_the_user_stands_and_are_no_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with publishing(Path("data/[1]")) as output:
        output.write("log.parquet", TABLE)
        output.write_run("About it.", _document())
    assert load_run(Path("data/[1]/run.toml")).data.path == "data/[[]1]/log.parquet"


def test_a_run_that_cannot_be_carried_out_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(RunInvalid), publishing(tmp_path / "out") as output:
        output.write("log.parquet", TABLE)
        output.write_run("About it.", _document() | {"model": {"architecture": "nothing"}})
    assert not (tmp_path / "out").exists()


def test_small_pieces_become_large_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP_ROWS", 6)
    with publishing(tmp_path / "out") as output:
        for _ in range(7):
            output.write("log.parquet", TABLE)
        assert output.rows == {"log.parquet": 14}
        output.write_run("About it.", _document())
    metadata = pyarrow.parquet.ParquetFile(tmp_path / "out" / "log.parquet").metadata
    assert [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)] == [6, 6, 2]


def test_an_unwritable_target_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TargetUnwritable, match="file/out"), publishing(tmp_path / "file" / "out"):
        pass


def test_text_says_what_the_keys_say() -> None:
    document = _document() | {
        "seed": 1,
        "training": {"learning_rate": 1e-5, "epochs": 2},
        "description": 'a "b" \\ é\x7f',
    }
    text = as_text("First.\nSecond.", document)
    assert tomllib.loads(text) == document
    assert text.startswith("# First.\n# Second.\nname = ")
