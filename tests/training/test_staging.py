"""The log is read once into codes and numbers; what is wrong is said with the file, its rows and the column."""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from contract.errors import (
    ColumnMissing,
    ColumnTypeInvalid,
    DataInvalid,
    FullfunnelError,
    LabelInvalid,
    LabelWithoutParent,
    MixedTypes,
)
from tests.training import small
from training import source, staging
from training.columns import ABSENT
from training.encoders import unify
from training.pipeline import read_log
from training.run import parse_run
from training.split import TEST, Log
from training.staging import Codes, Staged, stage


def staged_log(run_keys: small.Document, directory: Path, extra: tuple[str, ...] = ()) -> tuple[Log, Staged]:
    run = parse_run(run_keys)
    log = read_log(run)
    return log, stage(log, run.features, run.tasks, extra, directory, small.nothing)


def values_of(codes: Codes) -> list[Any]:
    """The values of a column of single values, in the log's order."""
    values, maps = unify([codes])
    known = [*values.to_pylist(), None]
    return [known[to[code]] for batch, to in zip(codes.batches(), maps[0], strict=True) for code in batch[:, 0]]


@pytest.fixture
def run(tmp_path: Path) -> small.Document:
    return small.document(small.write(tmp_path / "log.parquet", small.columns()))


def test_columns_come_back_as_they_were(run: small.Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "BATCH_ROWS", 90)
    log = {name: column.to_pylist() for name, column in small.columns().items()}
    _, staged = staged_log(run, tmp_path, ("user_id", "time"))
    assert values_of(staged.codes["user_id"]) == log["user_id"]
    assert values_of(staged.codes["city"]) == [city or None for city in log["city"]]
    assert values_of(staged.codes["position"]) == log["position"]
    assert values_of(staged.extra["time"]) == log["time"]
    assert values_of(staged.extra["user_id"]) == log["user_id"]
    prices = staged.floats["price"].read()
    assert np.array_equal(prices, np.array(log["price"], np.float32))
    ages = [None if np.isnan(x) else float(x) for x in staged.floats["age"].read()]
    assert ages == log["age"]
    assert staged.labels.tolist() == [[a, int(b)] for a, b in zip(log["click"], log["conversion"], strict=True)]


def test_types_are_taken_from_the_columns_unless_declared(run: small.Document, tmp_path: Path) -> None:
    small.feature(run, "position")["dtype"] = "string"
    _, staged = staged_log(run, tmp_path)
    assert staged.dtypes == {
        **dict.fromkeys(("user_id", "city", "member", "recent", "item_id", "brand", "position"), "string"),
        **dict.fromkeys(("actions", "shop"), "int64"),
    }


def test_codes_are_written_batch_by_batch_with_their_own_dictionaries(tmp_path: Path) -> None:
    codes = Codes(tmp_path / "codes", width=2)
    codes.append(np.array([[0, 1], [1, ABSENT]], np.int32), pa.array(["a", "b"]))
    codes.append(np.array([[0, 0]], np.int32), pa.array(["b"]))
    codes.finish()
    assert [batch.tolist() for batch in codes.batches()] == [[[0, 1], [1, ABSENT]], [[0, 0]]]
    assert codes.rows == [2, 1]


def test_progress_counts_the_rows_to_the_end(
    run: small.Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "BATCH_ROWS", 100)
    parsed, told = parse_run(run), list[int]()
    stage(read_log(parsed), parsed.features, parsed.tasks, (), tmp_path, told.append)
    assert told == sorted(told)
    assert told[-1] == small.ROWS


@pytest.mark.parametrize(("limit", "every"), [(12_000, 1), (40, 4), (50, 3)])
def test_held_out_rows_are_raw_test_rows_spread_evenly(
    limit: int, every: int, run: small.Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "HELD_OUT_ROWS", limit)
    monkeypatch.setattr(source, "BATCH_ROWS", 77)
    log, staged = staged_log(run, tmp_path)
    assert np.array_equal(staged.held_out_rows, np.flatnonzero(log.split == TEST)[::every])
    for name, column in small.columns().items():
        if name in staged.held_out.column_names:
            plain = column.to_pylist()
            assert staged.held_out.column(name).to_pylist() == [plain[row] for row in staged.held_out_rows]


def told(run: small.Document, directory: Path, kind: type[FullfunnelError]) -> FullfunnelError:
    """The error with which the log is refused."""
    with pytest.raises(kind) as caught:
        staged_log(run, directory)
    assert type(caught.value) is kind
    assert caught.value.remedy
    return caught.value


def test_missing_feature_column_is_reported_with_the_nearest_one(run: small.Document, tmp_path: Path) -> None:
    small.feature(run, "price")["name"] = "prize"
    error = told(run, tmp_path, ColumnMissing)
    assert error.fact == "no column 'prize' (did you mean 'price'?)"
    assert error.place == str(tmp_path / "log.parquet")


def test_missing_label_column_is_reported_with_the_nearest_one(run: small.Document, tmp_path: Path) -> None:
    run["tasks"] = [{"name": "click", "label": "clicked"}]
    assert told(run, tmp_path, ColumnMissing).fact == "no column 'clicked' (did you mean 'click'?)"


def test_infinite_number_is_reported_with_file_rows_and_column(run: small.Document, tmp_path: Path) -> None:
    prices = small.columns()["price"].to_pylist()
    prices[412] = float("inf")
    small.write(tmp_path / "log.parquet", small.columns() | {"price": pa.array(prices)})
    error = told(run, tmp_path, DataInvalid)
    assert error.place == f"{tmp_path}/log.parquet, rows 300 to 599, column 'price'"
    assert error.fact == "an infinite number (row 112 of these)"


@pytest.mark.parametrize(
    ("name", "column", "kind", "words"),
    [
        ("recent", pa.array(["a"] * small.ROWS), ColumnTypeInvalid, "not lists"),
        ("item_id", pa.array([["a"]] * small.ROWS), ColumnTypeInvalid, "not strings"),
        ("shop", pa.array([0.5] * small.ROWS), ColumnTypeInvalid, "not whole numbers"),
        ("position", pa.array([0] * small.ROWS, pa.timestamp("s")), ColumnTypeInvalid, "cannot be categorical"),
        ("price", pa.array(["1"] * small.ROWS), ColumnTypeInvalid, "not numbers"),
        ("click", pa.array([2] + [0] * (small.ROWS - 1)), LabelInvalid, "2 in row 0 is neither 0 nor 1"),
        ("click", pa.array([None] + [0] * (small.ROWS - 1)), LabelInvalid, "missing in row 0"),
        ("conversion", pa.array([1] * small.ROWS), LabelWithoutParent, "conversion without click in row"),
    ],
)
def test_column_that_does_not_fit_is_reported_with_its_place(
    name: str, column: pa.Array, kind: type[FullfunnelError], words: str, run: small.Document, tmp_path: Path
) -> None:
    small.write(tmp_path / "log.parquet", small.columns() | {name: column})
    error = told(run, tmp_path, kind)
    assert words in error.fact
    assert f"column {name!r}" in error.place


@pytest.mark.parametrize("declared", [{}, {"dtype": "string"}])
def test_sequence_of_mixed_types_is_reported(declared: dict[str, str], run: small.Document, tmp_path: Path) -> None:
    kinds = pa.array([i % 2 for i in range(small.ROWS)], pa.int8())
    numbers, texts = pa.array(range(small.ROWS)), pa.array([f"i{i}" for i in range(small.ROWS)])
    mixed = pa.UnionArray.from_sparse(kinds, [numbers, texts])
    lists = pa.ListArray.from_arrays(pa.array(range(small.ROWS + 1), pa.int32()), mixed)
    table = pa.table(small.columns() | {"recent": lists})
    with pa.OSFile(str(tmp_path / "log.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    run["data"]["path"] = str(tmp_path / "log.arrow")
    small.feature(run, "recent").update(declared)
    error = told(run, tmp_path, MixedTypes)
    gc.collect()  # a file left open would warn now
    assert error.place == "column 'recent'"
    assert "several types" in error.fact


def test_test_file_of_another_type_than_the_log_is_reported(run: small.Document, tmp_path: Path) -> None:
    run["data"]["test_path"] = str(tmp_path / "test.parquet")
    small.write(tmp_path / "test.parquet", small.columns() | {"user_id": pa.array(range(small.ROWS))})
    error = told(run, tmp_path, MixedTypes)
    assert error.fact == "holds numbers where the first file holds text"
    assert error.place == f"{tmp_path}/test.parquet, column 'user_id'"


def test_integers_of_another_width_in_the_test_file_are_the_same_values(run: small.Document, tmp_path: Path) -> None:
    log = small.columns()
    run["data"]["test_path"] = str(tmp_path / "test.parquet")
    small.write(tmp_path / "test.parquet", log | {"position": log["position"].cast(pa.int32())})
    _, staged = staged_log(run, tmp_path, ("position",))
    assert values_of(staged.codes["position"]) == values_of(staged.extra["position"]) == log["position"].to_pylist() * 2


def test_log_that_grows_while_it_is_read_is_reported(run: small.Document, tmp_path: Path) -> None:
    parsed = parse_run(run)
    log = read_log(parsed)
    with pytest.raises(DataInvalid, match="800 rows where 790 were counted a moment ago"):
        stage(Log(log.sources, log.split[:790]), parsed.features, parsed.tasks, (), tmp_path, small.nothing)
