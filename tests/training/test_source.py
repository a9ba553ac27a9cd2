"""Files of any format, one or many, come out as the same rows; what cannot be read is said in one sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from contract.errors import ColumnMissing, DataInvalid, MixedTypes, SourceMissing
from training import source
from training.source import Source, open_source

TABLE = pa.table({"id": [f"u{i % 5}" for i in range(20)], "price": [i / 2 for i in range(20)], "click": [0, 1] * 10})


def parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, row_group_size=8)


def csv(table: pa.Table, path: Path) -> None:
    pyarrow.csv.write_csv(table, path)


def arrow(table: pa.Table, path: Path) -> None:
    pyarrow.feather.write_feather(table, str(path), compression="uncompressed")


WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {"parquet": parquet, "csv": csv, "arrow": arrow}
formats = pytest.mark.parametrize("ending", WRITERS)


def rows(opened: Source, columns: tuple[str, ...] = ("id", "price", "click")) -> dict[str, list[Any]]:
    """All rows by column, as Python values."""
    found: dict[str, list[Any]] = {name: [] for name in columns}
    for batch in opened.batches(columns):
        assert batch.schema.names == list(columns)
        for name in columns:
            found[name] += batch.column(name).to_pylist()
    return found


@formats
def test_file_gives_its_rows_in_order(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"log.{ending}"
    WRITERS[ending](TABLE, path)
    opened = open_source(str(path))
    assert rows(opened) == TABLE.to_pydict()
    assert opened.count() == 20


@formats
def test_folder_gives_its_files_in_the_order_of_their_names(ending: str, tmp_path: Path) -> None:
    for name, part in (("b", TABLE.slice(8)), ("a", TABLE.slice(0, 8))):
        WRITERS[ending](part, tmp_path / f"{name}.{ending}")
    opened = open_source(str(tmp_path))
    assert rows(opened) == TABLE.to_pydict()
    assert opened.count() == 20


@formats
def test_glob_gives_the_files_that_match(ending: str, tmp_path: Path) -> None:
    for name, part in (("day2", TABLE.slice(8)), ("day1", TABLE.slice(0, 8)), ("other", TABLE)):
        WRITERS[ending](part, tmp_path / f"{name}.{ending}")
    assert rows(open_source(str(tmp_path / f"day*.{ending}"))) == TABLE.to_pydict()


def test_url_of_a_file_system_is_opened(tmp_path: Path) -> None:
    parquet(TABLE, tmp_path / "log.parquet")
    assert rows(open_source(f"file://{tmp_path}/log.parquet")) == TABLE.to_pydict()


def test_file_without_an_ending_is_read_in_the_format_that_is_given(tmp_path: Path) -> None:
    csv(TABLE, tmp_path / "log")
    assert rows(open_source(str(tmp_path / "log"), "csv")) == TABLE.to_pydict()
    with pytest.raises(DataInvalid, match="cannot tell the format"):
        open_source(str(tmp_path / "log"))


def test_variable_in_a_path_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet(TABLE, tmp_path / "log.parquet")
    monkeypatch.setenv("LOGS", str(tmp_path))
    assert open_source("$LOGS/log.parquet").count() == 20


def test_batches_are_no_larger_than_their_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "BATCH_ROWS", 7)
    parquet(TABLE, tmp_path / "log.parquet")
    batches = list(open_source(str(tmp_path / "log.parquet")).batches(["price"]))
    assert max(batch.num_rows for batch in batches) <= 7
    assert sum(batch.num_rows for batch in batches) == 20


def test_strings_of_parquet_come_as_dictionaries(tmp_path: Path) -> None:
    parquet(TABLE, tmp_path / "log.parquet")
    batches = open_source(str(tmp_path / "log.parquet")).batches(["id"])
    assert all(pa.types.is_dictionary(batch.column(0).type) for batch in batches)


def test_text_column_of_csv_keeps_its_leading_zeros(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("zip,click\n00501,1\n,0\n")
    assert rows(open_source(str(tmp_path / "log.csv"), None, ["zip"]), ("zip",)) == {"zip": ["00501", None]}


@pytest.mark.parametrize("path", ["none.parquet", "no*.parquet"])
def test_missing_path_is_reported(path: str, tmp_path: Path) -> None:
    with pytest.raises(SourceMissing) as caught:
        open_source(str(tmp_path / path))
    assert caught.value.place.endswith(path)
    assert "[data]" in caught.value.remedy


def test_empty_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid):
        open_source(str(tmp_path))
    with pytest.raises(SourceMissing, match="holds no file"):
        open_source(str(tmp_path), "parquet")


def test_missing_column_is_reported_with_the_nearest_one(tmp_path: Path) -> None:
    parquet(TABLE, tmp_path / "log.parquet")
    with pytest.raises(ColumnMissing, match="no column 'prices' \\(did you mean 'price'\\?\\)") as caught:
        open_source(str(tmp_path / "log.parquet")).check_columns(["id", "prices"])
    assert caught.value.remedy == "the columns are 'id', 'price', 'click'"


def test_two_columns_of_one_name_are_reported(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("id,id\n1,2\n")
    with pytest.raises(DataInvalid, match="multiple columns named id"):
        open_source(str(tmp_path / "log.csv"))


@pytest.mark.parametrize("kept", [0, 100, 0.5, -10])
def test_truncated_parquet_is_reported(kept: float, tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    parquet(TABLE, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(DataInvalid, match="cannot be read as parquet") as caught:
        open_source(str(path))
    assert "check the file" in caught.value.remedy


@pytest.mark.parametrize("read", [Source.count, rows, lambda opened: opened.check_columns(["id"])])
def test_truncated_file_behind_a_whole_one_is_reported(read: Callable[[Source], Any], tmp_path: Path) -> None:
    parquet(TABLE, tmp_path / "a.parquet")
    parquet(TABLE, tmp_path / "b.parquet")
    content = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(content[:-20])
    with pytest.raises(DataInvalid, match=r"b\.parquet.*check that the file is whole"):
        read(open_source(str(tmp_path)))


def test_damaged_page_of_parquet_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"id": [str(i) for i in range(1000)]}), path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[40:400] = bytes(360)
    path.write_bytes(content)
    with pytest.raises(DataInvalid, match="check that the file is whole"):
        rows(open_source(str(path)), ("id",))


def test_other_content_has_another_fingerprint_and_another_folder_has_not(tmp_path: Path) -> None:
    prints = []
    for folder, table in (("a", TABLE), ("b", TABLE), ("c", TABLE.slice(1))):
        (tmp_path / folder).mkdir()
        parquet(table, tmp_path / folder / "log.parquet")
        prints.append(open_source(str(tmp_path / folder / "log.parquet")).fingerprint())
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (pa.array([1]), pa.array(["x"]), "holds text where the first file holds numbers"),
        (pa.array(["7"]), pa.array([7]), "holds numbers where the first file holds text"),
        (pa.array([[1]]), pa.array([["x"]]), "holds lists of text where the first file holds lists of numbers"),
        (pa.array([["x"]]), pa.array(["x"]), "holds text where the first file holds lists of text"),
    ],
)
def test_folder_whose_files_hold_different_types_is_reported(
    first: pa.Array, second: pa.Array, words: str, tmp_path: Path
) -> None:
    parquet(pa.table({"id": first}), tmp_path / "a.parquet")
    parquet(pa.table({"id": second}), tmp_path / "b.parquet")
    with pytest.raises(MixedTypes, match=words) as caught:
        open_source(str(tmp_path)).check_columns(["id"])
    assert caught.value.place == f"{tmp_path}/b.parquet, column 'id'"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([1], pa.int64()), pa.array([2], pa.int32())),
        (pa.array([1.5]), pa.array([2], pa.int32())),
        (pa.array(["x"]), pa.array([None], pa.string())),
        (pa.array([1]), pa.array([None])),
        (pa.array([["x"]]), pa.array([[]])),
        (pa.array(["x"]), pa.array(["y"]).dictionary_encode()),
    ],
)
def test_folder_whose_files_hold_types_that_fit_is_read(first: pa.Array, second: pa.Array, tmp_path: Path) -> None:
    parquet(pa.table({"id": first}), tmp_path / "a.parquet")
    parquet(pa.table({"id": second}), tmp_path / "b.parquet")
    opened = open_source(str(tmp_path))
    opened.check_columns(["id"])
    assert rows(opened, ("id",))["id"] == [*first.to_pylist(), *second.to_pylist()]


def test_file_of_a_folder_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    parquet(TABLE, tmp_path / "a.parquet")
    parquet(TABLE.drop_columns(["price"]), tmp_path / "b.parquet")
    with pytest.raises(ColumnMissing, match="no column 'price'") as caught:
        open_source(str(tmp_path)).check_columns(["id", "price"])
    assert caught.value.place == f"{tmp_path}/b.parquet"


def test_csv_column_that_starts_as_numbers_and_turns_to_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    padding = "x" * 2**15  # types are told from the first 16 MiB
    path.write_text("text,id\n" + f"{padding},1\n" * 600 + f"{padding},seven\n")
    with pytest.raises(MixedTypes, match="invalid value 'seven'") as caught:
        rows(open_source(str(path)), ("id",))
    assert caught.value.place == f"{path}, column 'id'"
    assert rows(open_source(str(path), None, ["id"]), ("id",))["id"][-1] == "seven"


def test_csv_with_a_line_too_long_is_reported(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("id,price\n1,2\n1,2,3\n")
    with pytest.raises(DataInvalid):
        rows(open_source(str(tmp_path / "log.csv")), ("id",))
