"""A table from its bytes: bounds, refused rows, and the pieces that answer."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import DataInvalid, FullfunnelError, RowsRefused, SettingInvalid, TableTooLarge
from service.batch import posted
from service.batch.formats import arrow, csv, format_named, parquet
from service.batch.formats.arrow import StreamWriter
from service.batch.posted import Asked, Bounds, Outcome, PostedTable, told
from service.batch.weight import expanded_bytes
from service.scoring.scorer import Scorer
from tests.service.batch.tables import ITEM, USER, assert_scored, toy_table

OUTPUTS = ["pctr", "pcvr", "pctcvr"]
FORMATS = ("parquet", "arrow", "csv", "ndjson")
WIDE = Bounds(rows=10**6, columns=1000, expanded_bytes=10**9)


def as_bytes(table: pa.Table, name: str, rows: int | None = None) -> bytes:
    """`rows` in each row group or record batch."""
    sink = io.BytesIO()
    if name == "parquet":
        pq.write_table(table, sink, row_group_size=rows)
        return sink.getvalue()
    writer = StreamWriter(sink, table.schema) if name == "arrow" else format_named(name).writer(sink, table.schema)
    for batch in table.to_batches(max_chunksize=rows):
        writer.write(batch)
    writer.close()
    return sink.getvalue()


def answer(table: PostedTable) -> pa.Table:
    return pa.ipc.open_stream(b"".join(table.pieces())).read_all()


def with_bad(table: pa.Table, *rows: int) -> pa.Table:
    """These rows have no item, which the model refuses."""
    values = [None if row in rows else value for row, value in enumerate(table["item_id"].to_pylist())]
    return table.set_column(table.schema.get_field_index("item_id"), "item_id", pa.array(values, pa.string()))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks, that begin elsewhere in each module."""
    for module, rows in ((posted, 7), (arrow, 16), (csv, 13), (parquet, 11)):
        monkeypatch.setattr(module, "CHUNK_ROWS", rows)


# ---------------------------------------------------------------- scores


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("keep", [(), ("row_id",), ("price", "row_id")])
@pytest.mark.parametrize("name", FORMATS)
def test_rows_of_many_chunks_and_their_scores_stay_together(scorer: Scorer, name: str, keep: tuple[str, ...]) -> None:
    table = toy_table(100, 1, users=9, in_order=False)
    bad = {0, 15, 16, 40, 99}
    sent = PostedTable(scorer, as_bytes(with_bad(table, *bad), name, 30), Asked(name, "arrow", keep, len(bad)), WIDE)
    outcome = sent.score()
    assert (outcome.rows, outcome.refused, set(outcome.reasons)) == (100, len(bad), bad)
    found, left = answer(sent), table.filter(pa.array([row not in bad for row in range(100)]))
    assert found.column_names == [*keep, *OUTPUTS]
    assert_scored(found, scorer, left)
    if "row_id" in keep:
        assert [int(row) for row in found["row_id"].to_pylist()] == left["row_id"].to_pylist()


@pytest.mark.parametrize("name", ["arrow", "csv"])
def test_no_rows_are_answered_with_the_columns_of_the_answer(scorer: Scorer, name: str) -> None:
    sent = PostedTable(scorer, as_bytes(toy_table(0), name), Asked(name, "arrow", ("row_id",)), WIDE)
    assert sent.score() == Outcome(0, 0, {})
    found = answer(sent)
    assert (found.num_rows, found.column_names) == (0, ["row_id", *OUTPUTS])


@pytest.mark.parametrize("rows", [None, 3])
def test_row_groups_without_rows_are_passed_over(scorer: Scorer, rows: int | None) -> None:
    table, sink = toy_table(rows or 0), io.BytesIO()
    with pq.ParquetWriter(sink, table.schema) as writer:
        for part in (table.slice(0, 0), table, table.slice(0, 0)):
            writer.write_table(part)
    posted_table = PostedTable(scorer, sink.getvalue(), Asked("parquet", "arrow"), WIDE)
    assert posted_table.score().rows == table.num_rows
    assert_scored(answer(posted_table), scorer, table)


def test_a_dictionary_that_is_kept_is_written_as_its_values(scorer: Scorer) -> None:
    table = toy_table(6).append_column("word", pa.array(["a", None, "b"] * 2).dictionary_encode())
    sent = PostedTable(scorer, as_bytes(table, "arrow"), Asked("arrow", "arrow", ("word",)), WIDE)
    sent.score()
    found = answer(sent)
    assert found["word"].type == pa.string()
    assert found["word"].to_pylist() == ["a", None, "b"] * 2


# ---------------------------------------------------------------- refused rows


@pytest.mark.parametrize(("max_bad", "allowed"), [(0, "none is allowed"), (2, "2 are allowed")])
def test_one_refused_row_more_than_allowed_ends_it_with_the_first_of_them(
    scorer: Scorer, max_bad: int, allowed: str
) -> None:
    body = as_bytes(with_bad(toy_table(30), 4, 20, 29), "arrow", 10)
    with pytest.raises(RowsRefused) as said:
        PostedTable(scorer, body, Asked("arrow", "arrow", (), max_bad), WIDE).score()
    assert said.value.place == "body, row 4"
    assert said.value.fact.startswith(f"cannot be scored, and {allowed}: item_id: ")
    assert PostedTable(scorer, body, Asked("arrow", "arrow", (), 3), WIDE).score().refused == 3


@pytest.mark.usefixtures("small_chunks")
def test_of_many_refused_rows_all_are_counted_and_the_first_are_told(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posted, "MAX_TOLD", 5)
    body = as_bytes(with_bad(toy_table(60), *range(12, 60, 4)), "arrow")
    outcome = PostedTable(scorer, body, Asked("arrow", "arrow", (), 99), WIDE).score()
    assert (outcome.rows, outcome.refused, list(outcome.reasons)) == (60, 12, [12, 16, 20, 24, 28])


def test_what_is_told_is_short_ascii_json() -> None:
    assert told(Outcome()) == "[]"
    assert json.loads(told(Outcome(9, 2, {3: "ü" * 300, 7: "x"}))) == [
        {"row": 3, "reason": "ü" * 200},
        {"row": 7, "reason": "x"},
    ]
    many = told(Outcome(99, 20, dict.fromkeys(range(20), "ü" * 200)))
    assert many.isascii() and len(many) <= 4096
    assert [one["row"] for one in json.loads(many)] == [0, 1, 2]


def test_as_many_rows_are_told_as_4096_bytes_hold() -> None:
    reasons = dict.fromkeys(range(100, 132), "x" * 100)
    assert len(told(Outcome(200, 32, reasons))) == 4096
    reasons[131] += "x"
    assert [one["row"] for one in json.loads(told(Outcome(200, 32, reasons)))] == list(range(100, 131))


# ---------------------------------------------------------------- bounds


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("bound", "size"), [("rows", 20), ("columns", 12)])
def test_a_table_as_large_as_its_bounds_is_scored_and_one_beyond_is_not(
    scorer: Scorer, name: str, bound: str, size: int
) -> None:
    body, asked = as_bytes(toy_table(20), name), Asked(name, "arrow")
    assert PostedTable(scorer, body, asked, bounds(**{bound: size})).score().rows == 20
    with pytest.raises(TableTooLarge, match=f"body: more than {size - 1} {bound}"):
        PostedTable(scorer, body, asked, bounds(**{bound: size - 1}))


def bounds(rows: int = 1000, columns: int = 1000, expanded_bytes: int = 10**9) -> Bounds:
    return Bounds(rows, columns, expanded_bytes)


def test_what_the_features_take_when_they_are_decoded_is_bounded(scorer: Scorer) -> None:
    table = toy_table(60).append_column("note", pa.array(["x" * 1000] * 60))
    body, asked = as_bytes(table, "arrow", 20), Asked("arrow", "arrow")
    size = sum(expanded_bytes(batch.select([*USER, *ITEM])) for batch in pa.ipc.open_stream(body))
    assert PostedTable(scorer, body, asked, bounds(expanded_bytes=size)).score().rows == 60
    with pytest.raises(TableTooLarge, match=f"more than {size - 1} bytes when it is decoded"):
        PostedTable(scorer, body, asked, bounds(expanded_bytes=size - 1)).score()
    kept = PostedTable(scorer, body, Asked("arrow", "arrow", ("note",)), bounds(expanded_bytes=size))
    with pytest.raises(TableTooLarge, match="bytes when it is decoded"):
        kept.score()


def test_what_a_parquet_file_unfolds_to_is_bounded_before_any_of_it_is_decoded(scorer: Scorer) -> None:
    body, asked = as_bytes(toy_table(60), "parquet"), Asked("parquet", "arrow")
    with pytest.raises(TableTooLarge, match="more than 100 bytes when it is decoded"):
        PostedTable(scorer, body, asked, bounds(expanded_bytes=100))


@pytest.mark.parametrize("name", ["parquet", "arrow"])
def test_a_table_of_very_many_small_blocks_is_refused(
    scorer: Scorer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posted, "MAX_BLOCKS", 5)
    assert PostedTable(scorer, as_bytes(toy_table(10), name, 2), Asked(name, "arrow"), WIDE).score().rows == 10
    with pytest.raises(TableTooLarge, match="more than 5 row groups or record batches"):
        PostedTable(scorer, as_bytes(toy_table(11), name, 2), Asked(name, "arrow"), WIDE)


def test_memory_that_is_not_there_makes_a_table_too_large(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = PostedTable(scorer, as_bytes(toy_table(3), "arrow"), Asked("arrow", "arrow"), WIDE)

    def chunks(*_: Any) -> Iterator[Any]:
        raise MemoryError

    monkeypatch.setattr(arrow.Arrow, "chunks", chunks)
    with pytest.raises(TableTooLarge, match="takes more memory to read than there is"):
        sent.score()


# ---------------------------------------------------------------- what is no table


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("parquet", b""),
        ("parquet", b"PAR1secret"),
        ("parquet", as_bytes(toy_table(9), "parquet")[:-9]),
        ("arrow", b"secret"),
        ("arrow", as_bytes(toy_table(9), "arrow")[:-300]),
        ("csv", b"secret\xff,b\n1,2\n"),
        ("csv", as_bytes(toy_table(9), "csv") + b"\xffsecret\n"),
        ("ndjson", b'{"secret": "\xc3"}\n'),
    ],
)
def test_bytes_that_are_not_of_the_format_are_named_and_not_repeated(scorer: Scorer, name: str, body: bytes) -> None:
    with pytest.raises(DataInvalid, match=f"^body: cannot be read as {name}. Remedy") as said:
        PostedTable(scorer, body, Asked(name, "arrow"), WIDE)
    assert "secret" not in str(said.value)


@pytest.mark.parametrize(
    ("body", "fact"),
    [
        (b"x" * 200_000 + b",b\n1,2\n", "the header cannot be read"),
        (b"a,b\r1,2\n3,4\n", "the first line holds more than the header"),
        (b"\n1,2\n", "the first line is no header"),
    ],
    ids=["a long name", "a carriage return", "a blank line"],
)
def test_what_a_format_says_of_a_body_has_its_place(scorer: Scorer, body: bytes, fact: str) -> None:
    with pytest.raises(DataInvalid, match=f"^body: {fact}"):
        PostedTable(scorer, body, Asked("csv", "arrow"), WIDE)


@pytest.mark.parametrize("line", [b"null", b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}"], ids=["null", "deep"])
@pytest.mark.parametrize("row", [0, 3])
def test_lines_that_a_reader_may_not_survive_are_refused_rows(scorer: Scorer, line: bytes, row: int) -> None:
    lines = as_bytes(toy_table(6), "ndjson").splitlines(keepends=True)
    lines.insert(row, line + b"\n")
    sent = PostedTable(scorer, b"".join(lines), Asked("ndjson", "arrow", max_bad=1), WIDE)
    outcome = sent.score()
    assert (outcome.rows, list(outcome.reasons)) == (7, [row])
    assert_scored(answer(sent), scorer, toy_table(6))


def test_a_file_that_says_it_has_fewer_than_no_rows_is_refused(scorer: Scorer) -> None:
    body = as_bytes(toy_table(50), "parquet")
    lying = body.replace(b"\x16\x64", b"\x16\x65")  # 50 and -51, as Thrift writes whole numbers of 64 bits
    assert pq.read_metadata(pa.BufferReader(lying)).row_group(0).num_rows == -51
    with pytest.raises(DataInvalid, match="says that it has fewer than no rows"):
        PostedTable(scorer, lying, Asked("parquet", "arrow"), WIDE)


def test_a_batch_that_is_broken_inside_is_found_when_it_is_scored(scorer: Scorer) -> None:
    table = toy_table(20)
    offsets = table["item_id"].combine_chunks().buffers()[1].to_pybytes()[: 21 * 4]
    body = as_bytes(table, "arrow")
    assert body.count(offsets) == 1
    body = body.replace(offsets, offsets[:4] + bytes([255, 255, 255, 127]) * 19 + offsets[-4:])
    sent = PostedTable(scorer, body, Asked("arrow", "arrow"), WIDE)
    with pytest.raises(DataInvalid, match="cannot be read as arrow"):
        sent.score()


@pytest.mark.parametrize(
    ("keep", "error", "fact"),
    [
        (("nothing",), DataInvalid, "no column 'nothing' to keep"),
        (("pctr",), SettingInvalid, "would be called 'pctr' like a score"),
        (("blob",), DataInvalid, "cannot be kept"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_anything_is_scored(
    scorer: Scorer, keep: tuple[str, ...], error: type[FullfunnelError], fact: str
) -> None:
    table = toy_table(3).append_column("pctr", pa.array([0.1] * 3))
    table = table.append_column("blob", pa.array([b"ab"] * 3, pa.binary(2)))
    with pytest.raises(error, match=fact):
        PostedTable(scorer, as_bytes(table, "arrow"), Asked("arrow", "arrow", keep), WIDE)


def test_what_the_format_of_the_answer_cannot_hold_is_refused_before_anything_is_scored(scorer: Scorer) -> None:
    table = toy_table(3).append_column("when", pa.array([[1]] * 3, pa.list_(pa.timestamp("ns"))))
    body = as_bytes(table, "parquet")
    assert PostedTable(scorer, body, Asked("parquet", "parquet", ("when",)), WIDE).score().rows == 3
    with pytest.raises(DataInvalid, match=r"^body, column 'when': columns of type .* cannot be written as ndjson"):
        PostedTable(scorer, body, Asked("parquet", "ndjson", ("when",)), WIDE)


# ---------------------------------------------------------------- pieces


@pytest.mark.usefixtures("small_chunks")
def test_an_answer_comes_in_pieces_of_which_only_the_last_ends_it(scorer: Scorer) -> None:
    sent = PostedTable(scorer, as_bytes(toy_table(50), "arrow"), Asked("arrow", "arrow", ("row_id",)), WIDE)
    sent.score()
    *some, last = sent.pieces()
    assert len(some) == 4  # of 16 rows, as they are read
    end = b"\xff\xff\xff\xff\0\0\0\0"
    assert last.endswith(end) and not any(piece.endswith(end) for piece in some)


@pytest.mark.parametrize("name", FORMATS)
def test_an_answer_can_be_made_again_and_is_the_same(scorer: Scorer, name: str) -> None:
    sent = PostedTable(scorer, as_bytes(toy_table(50), "arrow", 9), Asked("arrow", name, ("row_id",)), WIDE)
    sent.score()
    assert b"".join(sent.pieces()) == b"".join(sent.pieces()) != b""


class Gone(Exception):
    pass


@pytest.mark.usefixtures("small_chunks")
def test_whether_to_go_on_is_asked_between_chunks(scorer: Scorer) -> None:
    asked: list[int] = []

    def proceed() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise Gone

    sent = PostedTable(scorer, as_bytes(toy_table(160), "arrow"), Asked("arrow", "arrow"), WIDE)
    with pytest.raises(Gone):
        sent.score(proceed)
    assert len(asked) == 3
