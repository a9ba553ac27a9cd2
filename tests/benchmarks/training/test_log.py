from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.training.log import CARDINALITIES, cardinalities, make_log
from benchmarks.training.settings import IDS, LABELS, NUMBERS, TIME


def test_two_million_rows_hold_785_000_values_in_26_columns() -> None:
    assert (len(CARDINALITIES), sum(CARDINALITIES)) == (26, 785_000)
    assert cardinalities(2_000_000) == list(CARDINALITIES)


def test_every_value_occurs(log_folder: Path) -> None:
    ids = np.load(log_folder / "ids.npy")
    assert len(np.unique(ids)) == ids.max() + 1 == sum(cardinalities(len(ids)))


def test_the_tensors_number_the_strings_of_the_log(log_folder: Path) -> None:
    table = pq.read_table(log_folder / "log.parquet")
    ids = np.load(log_folder / "ids.npy")
    for column in (0, 5, 12, 13, 25):
        name = IDS[column]
        word = table[name].to_numpy()
        _, index = np.unique(word, return_inverse=True)
        pairs = np.unique(np.stack([index, ids[:, column]]), axis=1)
        assert pairs.shape[1] == len(np.unique(word)) == len(np.unique(ids[:, column]))


def test_numbers_and_labels_are_those_of_the_log(log_folder: Path) -> None:
    table = pq.read_table(log_folder / "log.parquet")
    for names, file in ((NUMBERS, "numbers.npy"), (LABELS, "labels.npy")):
        columns = np.stack([table[name].to_numpy() for name in names], axis=1)
        np.testing.assert_array_equal(columns, np.load(log_folder / file))


def test_strings_are_plain_and_rows_in_time_order(log_folder: Path) -> None:
    table = pq.read_table(log_folder / "log.parquet")
    assert {str(table.schema.field(name).type) for name in IDS} == {"string"}
    assert (np.diff(table[TIME].to_numpy()) > 0).all()


def test_rates_are_realistic_and_only_clicks_convert(log_folder: Path) -> None:
    click, conversion = np.load(log_folder / "labels.npy").T
    assert click.mean() == pytest.approx(0.045, abs=0.005)
    assert conversion.sum() / click.sum() == pytest.approx(0.09, abs=0.03)
    assert not (conversion > click).any()


def test_columns_have_long_tails(log_folder: Path) -> None:
    ids = np.load(log_folder / "ids.npy")
    counts = np.sort(np.unique(ids[:, 0], return_counts=True)[1])[::-1]
    assert counts[0] > 100 * np.median(counts)
    assert counts[:100].sum() > 0.3 * len(ids)


def test_one_seed_gives_one_log(log_folder: Path, tmp_path: Path) -> None:
    again = make_log(tmp_path, len(np.load(log_folder / "ids.npy")))
    other = make_log(tmp_path, len(np.load(log_folder / "ids.npy")), seed=1)
    for name in ("log.parquet", "ids.npy", "numbers.npy", "labels.npy"):
        assert (again / name).read_bytes() == (log_folder / name).read_bytes()
        assert (other / name).read_bytes() != (log_folder / name).read_bytes()


def test_a_log_is_made_once(log_folder: Path) -> None:
    before = (log_folder / "log.parquet").stat().st_mtime_ns
    assert make_log(log_folder.parent, len(np.load(log_folder / "ids.npy"))) == log_folder
    assert (log_folder / "log.parquet").stat().st_mtime_ns == before
