"""What training reads equals a slow reference row by row, however the file is cut into batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from contract.features import Numeric
from contract.features import Sequence as SequenceFeature
from tests.training import reference, small
from training import source, tensors
from training.split import TEST, TRAIN, VALIDATION
from training.tensors import Tensors

SPLITS = (TRAIN, VALIDATION, TEST)


def columns_of(prepared: small.Prepared, rows: Tensors) -> dict[str, NDArray[Any]]:
    """Each feature's columns [rows, width], by the documented order: user before item, values before sequences."""
    features = prepared.fitted.features
    found: dict[str, NDArray[Any]] = {}
    ordered = sorted(features, key=lambda f: (f.side != "user", isinstance(f, SequenceFeature)))
    for dim in rows.ids:
        start = 0
        for feature in ordered:
            if not isinstance(feature, Numeric) and feature.dim == dim:
                width = feature.max_length if isinstance(feature, SequenceFeature) else 1
                found[feature.name] = rows.ids[dim][:, start : start + width]
                start += width
        assert start == rows.ids[dim].shape[1]
    numeric = [feature for feature in ordered if isinstance(feature, Numeric)]
    assert rows.numbers.shape[1] == len(numeric)
    for i, feature in enumerate(numeric):
        found[feature.name] = rows.numbers[:, i : i + 1]
    return found


def assert_equal_to_reference(prepared: small.Prepared, log: small.Columns) -> None:
    """Every cell of every split."""
    plain = {name: column.to_pylist() for name, column in log.items()}
    features, split = prepared.fitted.features, prepared.log.split
    expected = reference.tables(plain, features, [code == TRAIN for code in split.tolist()])
    for code in SPLITS:
        rows = np.flatnonzero(split == code)
        found = columns_of(prepared, prepared.tensors[code])
        assert np.array_equal(prepared.tensors[code].row, rows)
        for feature in features:
            cells = np.array([reference.encoded(plain, feature, expected, row) for row in rows.tolist()])
            assert np.array_equal(found[feature.name], cells.astype(np.float32), equal_nan=True), feature.name


def write_arrow(path: Path, log: small.Columns) -> Path:
    pyarrow.feather.write_feather(pa.table(log), str(path), compression="uncompressed", chunksize=170)
    return path


@pytest.mark.parametrize("batch_rows", [7, 2**17])
@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_every_cell_equals_the_reference(
    ending: str, batch_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "BATCH_ROWS", batch_rows)
    log = small.columns()
    path = (small.write if ending == "parquet" else write_arrow)(tmp_path / f"log.{ending}", log)
    assert_equal_to_reference(small.prepare(small.document(path), tmp_path), log)


@pytest.mark.parametrize("feature", small.POLICIES, ids=str)
def test_every_policy_equals_the_reference(
    feature: small.Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "BATCH_ROWS", 150)
    log = small.columns()
    run = small.document(small.write(tmp_path / "log.parquet", log))
    run["features"] = [{"kind": "categorical", "side": "user", **feature}]
    assert_equal_to_reference(small.prepare(run, tmp_path), log)


def test_sequences_and_values_of_both_sides_may_share_a_table(tmp_path: Path) -> None:
    log = small.columns() | {"last": pa.array([f"i{x}" for x in np.random.default_rng(5).integers(0, 60, small.ROWS)])}
    run = small.document(small.write(tmp_path / "log.parquet", log))
    run["features"] = [
        {"kind": "categorical", "name": "last", "side": "user", "share": "item_id"},
        {"kind": "sequence", "name": "recent", "side": "user", "share": "item_id", "max_length": 2},
        {"kind": "categorical", "name": "item_id", "side": "item", "min_count": 10},
    ]
    assert_equal_to_reference(small.prepare(run, tmp_path), log)


def test_blocks_are_cut_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "BLOCK_ROWS", 13)
    monkeypatch.setattr(source, "BATCH_ROWS", 100)
    log = small.columns()
    run = small.document(small.write(tmp_path / "log.parquet", log))
    run["split"] = {"by": "row"}
    assert_equal_to_reference(small.prepare(run, tmp_path), log)


def test_log_in_several_files_is_one_log(tmp_path: Path) -> None:
    log = small.columns()
    table = pa.table(log)
    for name, part in (("c", table.slice(500)), ("a", table.slice(0, 90)), ("b", table.slice(90, 410))):
        pq.write_table(part, tmp_path / f"log_{name}.parquet")
    run = small.document(tmp_path / "log_*.parquet")
    assert_equal_to_reference(small.prepare(run, tmp_path), log)


def test_numbers_alone_make_tensors(tmp_path: Path) -> None:
    log = small.columns()
    run = small.document(small.write(tmp_path / "log.parquet", log))
    run["features"] = [feature for feature in run["features"] if feature["kind"] == "numeric"]
    found = small.prepare(run, tmp_path)
    assert found.tensors[TRAIN].ids == {}
    assert_equal_to_reference(found, log)


def test_labels_and_row_numbers_go_with_the_rows(prepared: small.Prepared) -> None:
    log = small.columns()
    labels = np.stack([np.array(log[name].to_pylist(), np.uint8) for name in ("click", "conversion")], axis=1)
    for code in SPLITS:
        rows = prepared.tensors[code]
        assert np.array_equal(rows.row, np.flatnonzero(prepared.log.split == code))
        assert np.array_equal(rows.labels, labels[rows.row])
        assert len(rows) == len(rows.row)


def test_taken_rows_are_copies_in_memory(prepared: small.Prepared) -> None:
    rows = prepared.tensors[TRAIN]
    index = np.array([5, 3, 3])
    part = rows.take(index)
    assert len(part) == 3
    assert np.array_equal(part.labels, rows.labels[index])
    assert np.array_equal(part.row, rows.row[index])
    assert all(np.array_equal(part.ids[dim], rows.ids[dim][index]) for dim in rows.ids)
    assert not isinstance(part.numbers, np.memmap)
    part.numbers[:] = 0  # the file is read-only
