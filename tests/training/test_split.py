"""Times and keys stay together, folds partition, and a row's split does not depend on the rows beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from contract.errors import ColumnMissing, ColumnTypeInvalid, EmptySplit
from training import source
from training.run import DataOptions, SplitOptions
from training.source import Source, open_source
from training.split import TEST, TRAIN, VALIDATION, assign

ROWS = 4000
KEYS = [f"u{x}" for x in np.random.default_rng(0).zipf(1.3, ROWS) % 700]
DATA = DataOptions(path="log")


def log(path: Path, **columns: Any) -> Source:
    """A log of these columns."""
    pq.write_table(pa.table(columns), path, row_group_size=900)
    return open_source(str(path))


def split(opened: Source, **options: Any) -> NDArray[np.uint8]:
    return assign(opened, None, None, DATA, SplitOptions(**options)).split


def share(codes: NDArray[np.uint8], code: int) -> float:
    return float((codes == code).mean())


def split_of_keys(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The one split of each of KEYS."""
    _, first, key = np.unique(KEYS, return_index=True, return_inverse=True)
    assert np.array_equal(codes, codes[first][key]), "a key is in two splits"
    return codes[first]


@pytest.mark.parametrize(
    "kind",
    [
        pa.int64(),
        pa.float64(),
        pa.timestamp("s"),
        pa.timestamp("ms", tz="UTC"),
        pa.date32(),
        pa.int32(),
        pa.time32("ms"),
        pa.duration("s"),
    ],
)
def test_last_times_test_and_those_before_validate(kind: pa.DataType, tmp_path: Path) -> None:
    times = np.random.default_rng(1).permutation(1000)
    column = pa.array(times, pa.int32() if kind.bit_width == 32 else pa.int64()).cast(kind)
    codes = split(log(tmp_path / "log.parquet", t=column), by="time", column="t", validation=0.1, test=0.2)
    assert np.array_equal(codes, np.where(times >= 800, TEST, np.where(times >= 700, VALIDATION, TRAIN)))


def test_times_of_nanoseconds_are_told_apart_as_finely_as_they_need(tmp_path: Path) -> None:
    times = pa.array(np.arange(1000) * 1001 + 1, pa.timestamp("ns"))
    codes = split(log(tmp_path / "log.parquet", t=times), by="time", column="t", validation=0.1, test=0.1)
    assert [int((codes == code).sum()) for code in (TRAIN, VALIDATION, TEST)] == [800, 100, 100]


def test_rows_of_one_time_stay_together(tmp_path: Path) -> None:
    times = np.random.default_rng(2).integers(0, 30, 3000)
    codes = split(log(tmp_path / "log.parquet", t=times), by="time", column="t")
    assert all(len(set(codes[times == time])) == 1 for time in range(30))
    order = np.argsort(times, kind="stable")
    assert np.all(np.diff(codes[order].astype(int)) >= 0)
    assert share(codes, TEST) == pytest.approx(0.1, abs=0.04)


def test_missing_times_are_the_earliest(tmp_path: Path) -> None:
    times = pa.array([None, *range(1, 1000)], pa.int64())
    assert split(log(tmp_path / "log.parquet", t=times), by="time", column="t")[0] == TRAIN


@pytest.mark.parametrize("kind", ["string", "dictionary", "int64"])
def test_rows_of_one_key_stay_together(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "BATCH_ROWS", 251)
    keys = pa.array(KEYS)
    if kind == "int64":
        keys = pa.array([int(key[1:]) for key in KEYS])
    if kind == "dictionary":
        keys = keys.dictionary_encode()
    of_keys = split_of_keys(split(log(tmp_path / "log.parquet", k=keys), by="key", column="k"))
    for code in (VALIDATION, TEST):
        assert share(of_keys, code) == pytest.approx(0.1, abs=0.04)


def test_key_does_not_change_its_split_when_rows_and_files_come_before_it(tmp_path: Path) -> None:
    pq.write_table(pa.table({"k": KEYS}), tmp_path / "b.parquet")
    before = split(open_source(str(tmp_path)), by="key", column="k")
    pq.write_table(pa.table({"k": [f"new{x}" for x in range(77)]}), tmp_path / "a.parquet")
    after = split(open_source(str(tmp_path)), by="key", column="k")
    assert np.array_equal(after[77:], before)


def test_key_has_the_same_split_as_text_and_as_a_number(tmp_path: Path) -> None:
    numbers = [int(key[1:]) for key in KEYS]
    one = split(log(tmp_path / "a.parquet", k=numbers), by="key", column="k")
    other = split(log(tmp_path / "b.parquet", k=list(map(str, numbers))), by="key", column="k")
    assert np.array_equal(one, other)


def test_missing_keys_stay_together(tmp_path: Path) -> None:
    keys = [None if i % 7 == 0 else key for i, key in enumerate(KEYS)]
    codes = split(log(tmp_path / "log.parquet", k=keys), by="key", column="k")
    assert len(set(codes[::7])) == 1


@pytest.mark.parametrize("by", ["key", "row"])
def test_folds_partition_the_rows(by: str, tmp_path: Path) -> None:
    opened = log(tmp_path / "log.parquet", k=list(range(ROWS)))
    tested = np.zeros(ROWS, int)
    for fold in range(5):
        codes = split(opened, by=by, column="k", folds=5, fold=fold)
        tested += codes == TEST
        assert share(codes, TEST) == pytest.approx(0.2, abs=0.03)
        assert share(codes, VALIDATION) == pytest.approx(0.1, abs=0.03)
    assert np.all(tested == 1)


@pytest.mark.parametrize("by", ["key", "row"])
def test_folds_validate_on_rows_of_their_own(by: str, tmp_path: Path) -> None:
    opened = log(tmp_path / "log.parquet", k=list(range(ROWS)))
    codes = [split(opened, by=by, column="k", folds=5, fold=fold, validation=0.15) for fold in range(5)]
    assert np.sum([one == VALIDATION for one in codes], axis=0).max() == 1


def test_folds_keep_a_key_together(tmp_path: Path) -> None:
    codes = split(log(tmp_path / "log.parquet", k=KEYS), by="key", column="k", folds=4, fold=1)
    assert share(split_of_keys(codes), TEST) == pytest.approx(0.25, abs=0.06)


def test_rows_are_cut_by_share_and_do_not_follow_their_order(tmp_path: Path) -> None:
    codes = split(log(tmp_path / "log.parquet", k=KEYS), validation=0.2, test=0.3)
    assert share(codes, VALIDATION) == pytest.approx(0.2, abs=0.03)
    assert share(codes, TEST) == pytest.approx(0.3, abs=0.03)
    assert share(codes[: ROWS // 2], TEST) == pytest.approx(0.3, abs=0.04)
    neighbours = np.mean((codes[1:] == TEST) & (codes[:-1] == TEST))
    assert neighbours == pytest.approx(0.09, abs=0.02)


@pytest.mark.parametrize("by", ["row", "time"])
def test_files_that_are_given_are_not_cut_off_the_log(by: str, tmp_path: Path) -> None:
    train, validation, test = (log(tmp_path / f"{n}.parquet", t=list(range(n))) for n in (100, 30, 20))
    result = assign(train, validation, test, DATA, SplitOptions.model_validate({"by": by, "column": "t"}))
    assert np.array_equal(result.split, np.repeat([TRAIN, VALIDATION, TEST], [100, 30, 20]))
    assert result.sources == (train, validation, test)
    assert [result.rows(code) for code in (TRAIN, VALIDATION, TEST)] == [100, 30, 20]


def test_given_test_file_leaves_validation_to_be_cut_off(tmp_path: Path) -> None:
    train, test = (log(tmp_path / f"{n}.parquet", t=list(range(n))) for n in (100, 20))
    codes = assign(train, None, test, DATA, SplitOptions(by="time", column="t", validation=0.25)).split
    assert np.array_equal(codes, np.repeat([TRAIN, VALIDATION, TEST], [75, 25, 20]))


@pytest.mark.parametrize(
    ("options", "name"),
    [({"test": 0.0}, "test"), ({"validation": 0.0}, "validation"), ({"validation": 1e-9}, "validation")],
)
def test_empty_split_is_named(options: dict[str, float], name: str, tmp_path: Path) -> None:
    with pytest.raises(EmptySplit, match=f"no row falls into the {name} split") as caught:
        split(log(tmp_path / "log.parquet", k=list(range(50))), **options)
    assert caught.value.place == "log"
    assert "[split]" in caught.value.remedy


def test_log_of_one_time_leaves_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(EmptySplit, match="train split"):
        split(log(tmp_path / "log.parquet", t=[5] * 50), by="time", column="t")


def test_log_without_rows_is_reported(tmp_path: Path) -> None:
    empty = log(tmp_path / "log.parquet", t=pa.array([], pa.int64()))
    for options in ({"by": "time", "column": "t"}, {"by": "key", "column": "t"}, {"by": "row"}):
        with pytest.raises(EmptySplit):
            split(empty, **options)


@pytest.mark.parametrize("by", ["time", "key"])
def test_missing_column_is_reported_with_the_nearest_one(by: str, tmp_path: Path) -> None:
    with pytest.raises(ColumnMissing, match="did you mean 'time'"):
        split(log(tmp_path / "log.parquet", time=[1, 2]), by=by, column="tme")


@pytest.mark.parametrize("values", [["a", "b"], [True, False], [[1], [2]]])
def test_column_without_an_order_in_time_is_reported(values: list[Any], tmp_path: Path) -> None:
    with pytest.raises(ColumnTypeInvalid, match="no order in time") as caught:
        split(log(tmp_path / "log.parquet", t=values), by="time", column="t")
    assert caught.value.place.endswith("column 't'")
