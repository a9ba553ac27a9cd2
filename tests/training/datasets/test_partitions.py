"""training/datasets/partitions.py: every row lies in the partition of its key, in its order."""

from pathlib import Path

import pyarrow as pa

from training.datasets.partitions import Partitions


def _table(first: int, rows: int, column: str = "value") -> pa.Table:
    numbers = range(first, first + rows)
    return pa.table({"key": [f"k{number % 17}" for number in numbers], column: list(numbers)})


def test_rows_are_all_there_in_order_and_a_key_lies_in_one_partition(tmp_path: Path) -> None:
    with Partitions(tmp_path / "p", 4) as partitions:
        for first in range(0, 300, 100):
            partitions.write(_table(first, 100))
    found = [partitions.table(part).to_pydict() for part in range(4)]
    assert sorted(value for part in found for value in part["value"]) == list(range(300))
    assert all(part["value"] == sorted(part["value"]) for part in found)
    assert sum(len(set(part["key"])) for part in found) == 17
    assert sum(bool(part["key"]) for part in found) > 1, "the keys are spread"


def test_two_tables_of_as_many_partitions_go_together(tmp_path: Path) -> None:
    with Partitions(tmp_path / "one", 5) as one, Partitions(tmp_path / "two", 5) as two:
        one.write(_table(0, 17))
        two.write(_table(5, 40, "other"))
    for part in range(5):
        assert set(two.table(part)["key"].to_pylist()) == set(one.table(part)["key"].to_pylist())


def test_a_partition_without_rows_has_the_columns(tmp_path: Path) -> None:
    with Partitions(tmp_path / "p", 50) as partitions:
        partitions.write(_table(0, 1))
    sizes = [len(partitions.table(part)) for part in range(50)]
    assert sorted(sizes) == [0] * 49 + [1]
    assert partitions.table(sizes.index(0)).schema == _table(0, 1).schema
