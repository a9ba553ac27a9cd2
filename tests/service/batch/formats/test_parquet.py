"""Parquet, block by block."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.batch.formats import codec, parquet
from service.batch.formats.codec import Block, Wanted
from service.batch.formats.parquet import Parquet
from tests.service.batch.tables import toy_table, write

WANTED = Wanted(("row_id", "recent_items", "item_id"), {"item_id": "string"}, frozenset())


def _chunks(path: Path, block: Block, wanted: Wanted = WANTED) -> list[pa.RecordBatch]:
    with pa.OSFile(str(path)) as file:
        return [chunk.batch for chunk in Parquet().chunks(file, block, wanted)]


def test_a_survey_tells_schema_and_row_groups_and_changes_with_the_file(tmp_path: Path) -> None:
    path = write(toy_table(25), tmp_path / "a.parquet", row_group_size=10)
    with pa.OSFile(str(path)) as file:
        survey = Parquet().survey(file, WANTED)
    assert survey.blocks == (Block(10, 0), Block(10, 1), Block(5, 2))
    assert survey.schema.equals(toy_table(0).schema)
    with pa.OSFile(str(write(toy_table(25, 1), path, row_group_size=10))) as file:
        assert Parquet().survey(file, WANTED).digest != survey.digest


def test_only_the_wanted_columns_are_read_and_strings_stay_dictionaries(tmp_path: Path) -> None:
    table = toy_table(25)
    path = write(table, tmp_path / "a.parquet", row_group_size=10)
    (batch,) = _chunks(path, Block(10, 1))
    assert sorted(batch.schema.names) == sorted(WANTED.columns)
    assert pa.types.is_dictionary(batch.schema.field("item_id").type)
    assert batch["row_id"].to_pylist() == list(range(10, 20))
    assert batch["recent_items"].to_pylist() == table["recent_items"].to_pylist()[10:20]


def test_rows_without_any_wanted_column_are_counted(tmp_path: Path) -> None:
    path = write(toy_table(25), tmp_path / "a.parquet")
    (batch,) = _chunks(path, Block(25, 0), Wanted((), {}, frozenset()))
    assert batch.num_rows == 25


def test_names_with_dots_are_names(tmp_path: Path) -> None:
    table = pa.table({"a": ["x"], "a.b": ["y"], "ab": ["z"]})
    (batch,) = _chunks(write(table, tmp_path / "a.parquet"), Block(1, 0), Wanted(("a.b", "ab"), {}, frozenset()))
    assert batch.select(["a.b", "ab"]).to_pylist() == [{"a.b": "y", "ab": "z"}]


def test_long_rows_are_read_in_small_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "CHUNK_BYTES", 2**16)
    table = pa.table({"row_id": range(600), "item_id": [f"{row:01000d}" for row in range(600)]})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, use_dictionary=False)
    batches = _chunks(path, Block(600, 0), Wanted(("row_id", "item_id"), {}, frozenset()))
    assert max(batch.num_rows for batch in batches) <= 64
    assert [row for batch in batches for row in batch["row_id"].to_pylist()] == list(range(600))


def test_what_is_written_in_batches_is_one_table_and_joined_it_is_the_same(tmp_path: Path) -> None:
    table = toy_table(50)
    paths = [str(tmp_path / f"{part}.parquet") for part in range(2)]
    for part, path in enumerate(paths):
        with open(path, "wb") as sink:
            writer = Parquet().writer(sink, table.schema)
            for batch in table.slice(part * 20, 20 + 10 * part).to_batches(7):
                writer.write(batch)
            writer.close()
    with open(tmp_path / "joined.parquet", "wb") as sink:
        Parquet().join(paths, sink, table.schema)
    assert str(pq.read_table(tmp_path / "joined.parquet").to_pylist()) == str(table.to_pylist())


def test_a_chunk_cut_keeps_the_reasons_of_its_rows() -> None:
    chunk = codec.Chunk(toy_table(10).combine_chunks().to_batches()[0], {2: "a", 5: "b", 7: "c"})
    assert chunk.cut(4, 7).refused == {1: "b"}
    assert chunk.cut(4, 7).batch["row_id"].to_pylist() == [4, 5, 6]
