"""CSV as records of text: where they are cut, what their fields become, and which are refused."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import DataInvalid
from service.batch.formats import csv as module
from service.batch.formats import lines
from service.batch.formats.codec import Chunk, Wanted
from service.batch.formats.csv import Csv
from service.batch.formats.ndjson import Ndjson

DTYPES = {"word": "string", "number": "float32", "whole": "int64", "ids": "int64", "words": "string"}
WANTED = Wanted(("word", "number", "whole", "ids", "words"), DTYPES, frozenset({"ids", "words"}))
KEPT = Wanted(("a", "b"), {}, frozenset())


def chunks(content: bytes, wanted: Wanted) -> list[Chunk]:
    """What a file of this content is read as, block after block."""
    file = pa.BufferReader(content)
    survey = Csv().survey(file, wanted)
    return [chunk for block in survey.blocks for chunk in Csv().chunks(file, block, wanted)]


def rows(content: bytes, wanted: Wanted) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for chunk in chunks(content, wanted) for row in chunk.batch.to_pylist()]


def read(name: str, *fields: str) -> tuple[list[Any], dict[int, str]]:
    """The values of one column, and which rows are refused."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[name, "end"], *([field, "."] for field in fields)])
    (chunk,) = chunks(text.getvalue().encode(), Wanted((name,), WANTED.dtypes, WANTED.lists))
    return chunk.batch[name].to_pylist(), dict(chunk.refused)


# ---------------------------------------------------------------- the header


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (b"a,b\n", ["a", "b"]),
        (b"a,b\r\n", ["a", "b"]),
        (b"\xef\xbb\xbfa,b\n", ["a", "b"]),
        (b'\xef\xbb\xbf"a",b\n', ["a", "b"]),
        (b'"a,b","c ""d""",\xc3\xbc\n', ["a,b", 'c "d"', "ü"]),
        (b'"a\n\nb",c\n', ["a\n\nb", "c"]),
        (b"a,,\n", ["a", "", ""]),
    ],
)
def test_a_header_is_a_record_as_any_other(header: bytes, names: list[str]) -> None:
    survey = Csv().survey(pa.BufferReader(header + b"1,2\n"), KEPT)
    assert survey.schema.names == names
    assert [(block.rows, block.start, block.stop) for block in survey.blocks] == [(1, len(header), len(header) + 4)]


@pytest.mark.parametrize("content", [b"", b"\n", b"\na,b\n1,2\n", b",\n1,2\n", b"\xef\xbb\xbf", b'""\n'])
def test_a_first_line_without_names_is_no_header(content: bytes) -> None:
    with pytest.raises(DataInvalid, match="the first line is no header"):
        Csv().survey(pa.BufferReader(content), KEPT)


@pytest.mark.parametrize(
    "content",
    [b"a,b\r1,2\n3,4\n", b"a,b\r1,2\r3,4\r", b"a,b\r\r1,2\n", b'"a\n",b\r1,2\n', b'a,x"y\n1,2\n3,z"\n4,5\n'],
)
def test_records_are_not_lost_in_the_first_line(content: bytes) -> None:
    with pytest.raises(DataInvalid, match="the first line holds more than the header") as said:
        Csv().survey(pa.BufferReader(content), KEPT)
    assert "newlines at the ends of lines" in said.value.remedy


def test_a_header_may_end_with_returns_and_hold_one_in_quotes() -> None:
    assert rows(b"a,b\r\r\n1,2\r\r\n3,4\r\n", KEPT) == [("1", "2"), ("3", "4")]
    assert rows(b'"a\rc",b\n1,2\n', Wanted(("a\rc",), {}, frozenset())) == [("1",)]


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (b'a,"b\n1,2\n', r"the header does not end in the first 4 MiB \(a quote that is not closed\?\)"),
        (b"a" * 2**22 + b"\n1\n", "the header does not end in the first 4 MiB$"),
        ("é".encode() * 2**21 + b"a\n1\n", "the header does not end in the first 4 MiB$"),
        (b"a," + b"b" * 2**17 + b"c\n1,2\n", r"the header cannot be read \(field larger than field limit \(131072\)\)"),
    ],
    ids=["a quote", "a name", "a cut letter", "a long name"],
)
def test_a_header_that_is_too_long_to_be_one_is_refused(content: bytes, fact: str) -> None:
    with pytest.raises(DataInvalid) as said:
        Csv().survey(pa.BufferReader(content), KEPT)
    assert re.match(fact, said.value.fact) and said.value.remedy


def test_the_longest_names_are_read() -> None:
    name = "b" * 2**17
    assert rows(f"a,{name}\n1,2\n".encode(), Wanted((name,), {}, frozenset())) == [("2",)]


@pytest.mark.parametrize("content", [b"a,b", b"a,b\n", b"a,b\n\n\r\n"])
def test_a_header_alone_is_a_table_without_records(content: bytes) -> None:
    survey = Csv().survey(pa.BufferReader(content), KEPT)
    assert (survey.schema.names, survey.blocks) == (["a", "b"], ())


def test_columns_have_the_types_that_their_features_are_read_as() -> None:
    survey = Csv().survey(pa.BufferReader(b"ids,words,number,whole,word,other\n"), WANTED)
    kinds = [pa.list_(pa.int64()), pa.list_(pa.string()), pa.float64(), pa.string(), pa.string(), pa.string()]
    assert survey.schema.types == kinds


# ---------------------------------------------------------------- records


def test_a_newline_inside_quotes_does_not_end_a_record() -> None:
    content = b'a,b\n"x\ny",1\n"\n\n","say ""no"", or\n"\nz,2\n'
    assert rows(content, KEPT) == [("x\ny", "1"), ("\n\n", 'say "no", or\n'), ("z", "2")]


FIELD = st.lists(st.sampled_from(["x", '"', "\n", ",", " ", "é"]), min_size=1, max_size=5).map("".join)


@given(st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=9), st.integers(1, 30))
def test_blocks_are_the_same_records_wherever_pieces_begin(table: list[tuple[str, str]], size: int) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([("a", "b"), *table])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "PIECE_BYTES", size)  # most begin in the middle of a record
        assert rows(text.getvalue().encode(), KEPT) == table


def test_a_block_is_read_without_those_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "PIECE_BYTES", 12)
    file = pa.BufferReader(b'a,b\n"x\n1",one\ntwo\n"y\n2",three\nz,four\n')
    blocks = Csv().survey(file, KEPT).blocks
    assert len(blocks) > 2
    (chunk,) = Csv().chunks(file, blocks[-1], KEPT)
    assert chunk.batch.to_pylist()[-1] == {"a": "z", "b": "four"}
    refused = [dict(chunk.refused) for block in blocks for chunk in Csv().chunks(file, block, KEPT)]
    assert [why for each in refused for why in each.values()] == ["1 fields where the header has 2"]


def test_columns_come_in_the_order_they_are_asked_for_and_no_others() -> None:
    assert rows(b"a,b,c\n1,2,3\n", Wanted(("c", "a"), {}, frozenset())) == [("3", "1")]


def test_where_no_column_is_asked_for_there_are_rows_all_the_same() -> None:
    found = chunks(b"a,b\n1,2\n3\n4,5\n", Wanted((), {}, frozenset()))
    assert [(chunk.batch.num_rows, chunk.batch.num_columns, list(chunk.refused)) for chunk in found] == [(3, 0, [1])]


def test_quotes_that_pyarrow_counts_otherwise_are_an_error() -> None:
    with pytest.raises(DataInvalid, match="holds 2 records from byte 4 on, where 1 end"):
        chunks(b'a,b\nx"y,1\nz"w,2\n', KEPT)


def test_a_return_ends_no_record() -> None:
    assert rows(b'a,b\n"x\ry",1\n', KEPT) == [("x\ry", "1")]
    with pytest.raises(
        DataInvalid, match=r"holds 2 records from byte 4 on, where 1 end\. .*newlines at the ends of lines"
    ):
        chunks(b"a,b\n1,2\r3,4\n", KEPT)


# ---------------------------------------------------------------- refused rows


def test_records_of_too_few_or_many_fields_are_refused_by_their_number_in_each_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CHUNK_ROWS", 4)
    bad = {1: "x", 2: "x,1,2", 4: "x", 7: ",,", 8: '"a\nb"', 9: "x"}
    records = [bad.get(row, f"a{row},b{row}") for row in range(10)]
    found = chunks("a,b\n{}\n".format("\n\n".join(records)).encode(), KEPT)
    assert [chunk.batch.num_rows for chunk in found] == [4, 4, 2]
    assert [sorted(chunk.refused) for chunk in found] == [[1, 2], [0, 3], [0, 1]]
    assert found[0].refused[2] == "3 fields where the header has 2"
    values = [value for chunk in found for value in chunk.batch["a"].to_pylist()]
    assert values == [None if row in bad else f"a{row}" for row in range(10)]


@pytest.mark.parametrize(("count", "sizes"), [(3, [3]), (4, [4]), (5, [4, 1]), (8, [4, 4])])
def test_a_chunk_is_full_or_the_last(count: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ROWS", 4)
    assert [chunk.batch.num_rows for chunk in chunks(b"a,b\n" + b"1,2\n" * count, KEPT)] == sizes


def test_a_block_of_refused_records_only_is_rows_of_nulls() -> None:
    (chunk,) = chunks(b"word,number,whole,ids,words\nx\ny\n", WANTED)
    assert chunk.batch.num_rows == 2 and sorted(chunk.refused) == [0, 1]
    assert all(column.null_count == 2 for column in chunk.batch.columns)


def test_a_row_is_refused_for_the_first_fact_that_was_found() -> None:
    (chunk,) = chunks(b"word,number,whole,ids,words\nx,old,1,{},[1]\ny,1,1,{},\n", WANTED)
    assert chunk.refused == {0: "number: must be a number", 1: "ids: is no JSON list of int64"}


# ---------------------------------------------------------------- fields


@pytest.mark.parametrize("field", ["", "NA", "NULL", "null", "NaN", "nan", "N/A", "#N/A"])
@pytest.mark.parametrize("name", DTYPES)
def test_what_training_takes_for_missing_is_missing(name: str, field: str) -> None:
    assert read(name, field) == ([None], {})


def test_what_looks_like_a_number_stays_text_where_no_number_is_wanted() -> None:
    fields = ["007", " 1.0", "1e3", "true", "ü"]
    assert read("word", *fields) == (fields, {})
    assert read("other", *fields) == (fields, {})
    assert read("whole", *fields) == (fields, {})


def test_numbers_are_read_as_double_and_a_word_among_them_does_not_change_the_others() -> None:
    numbers = ["0.1", "-1e-3", "16777217", "inf"]
    assert read("number", *numbers) == ([0.1, -1e-3, 16777217.0, float("inf")], {})
    values, refused = read("number", *numbers, "old", "", "old")
    assert values == [0.1, -1e-3, 16777217.0, float("inf"), None, None, None]
    assert refused == dict.fromkeys([4, 6], "number: must be a number")
    assert read("number", "old", "") == ([None, None], {0: "number: must be a number"})


@pytest.mark.parametrize("field", ["1_000", "\uff11", "0x10", "1,5e", "--1"])
def test_only_what_arrow_takes_for_a_number_is_one(field: str) -> None:
    assert read("number", "1", field) == ([1.0, None], {1: "number: must be a number"})


def test_lists_are_json() -> None:
    assert read("ids", "[]", "[1, null, -2]", "", "[1, null, -2]") == ([[], [1, None, -2], None, [1, None, -2]], {})
    assert read("ids", "[9223372036854775807, -9223372036854775808]") == ([[2**63 - 1, -(2**63)]], {})
    assert read("words", '["a", "", null, "\\u00fc\\n"]') == ([["a", "", None, "ü\n"]], {})


@pytest.mark.parametrize(
    "text", ["1", "{}", "[1", "[1] 2", '["1"]', "[NaN]", "[true]", "[[1]]", "[{}]", "[" * 100_000, "word", " null"]
)
def test_what_is_no_list_of_the_values_of_its_feature_is_refused(text: str) -> None:
    values, refused = read("ids", "[1]", text, "[2]")
    assert values == [[1], None, [2]]
    assert refused == {1: "ids: is no JSON list of int64"}


@pytest.mark.parametrize("text", ["[1.5]", "[1, null, 1.5]", "[1.0]", "[1e2]", f"[{2**63}]", f"[{-(2**63) - 1}]"])
def test_a_list_of_other_numbers_than_whole_ones_of_64_bits_is_refused_as_in_ndjson(text: str) -> None:
    assert read("ids", "[1]", text, text) == ([[1], None, None], dict.fromkeys([1, 2], "ids: is no JSON list of int64"))
    file, wanted = pa.BufferReader(f'{{"ids": {text}}}\n'.encode()), Wanted(("ids",), WANTED.dtypes, WANTED.lists)
    (block,) = Ndjson().survey(file, wanted).blocks
    (chunk,) = Ndjson().chunks(file, block, wanted)
    assert list(chunk.refused) == [0]


def test_a_list_of_strings_holds_strings() -> None:
    assert read("words", '["a"]', "[1]", '["\\ud800"]') == (
        [["a"], None, None],
        dict.fromkeys([1, 2], "words: is no JSON list of string"),
    )


# ---------------------------------------------------------------- writing


def written(*batches: pa.RecordBatch) -> bytes:
    sink = io.BytesIO()
    writer = Csv().writer(sink, batches[0].schema)
    for batch in batches:
        writer.write(batch)
    writer.close()
    return sink.getvalue()


NESTED = pa.RecordBatch.from_pydict(
    {
        "n": pa.array([1, None, 3]),
        "list": pa.array([["ü", None], None, []], pa.list_(pa.string())),
        "deep": pa.array([{"a": [1]}, None, {"a": None}]),
        "day": pa.array([[1], None, []], pa.list_(pa.date32())),
    }
)


def test_lists_and_structs_are_written_as_json_that_is_read_again() -> None:
    table = pa.csv.read_csv(pa.BufferReader(written(NESTED)))
    assert table["n"].to_pylist() == [1, None, 3]
    assert [json.loads(text) if text else None for text in table["list"].to_pylist()] == [["ü", None], None, []]
    assert [json.loads(text) if text else None for text in table["deep"].to_pylist()] == [{"a": [1]}, None, {"a": None}]
    assert table["day"].to_pylist()[0] == '["1970-01-02"]'
    assert "ü".encode() in written(NESTED)
    assert b"\n,,,\n" in written(NESTED)


def test_parts_are_joined_under_one_header(tmp_path: Path) -> None:
    parts = []
    for number in range(3):
        parts.append(str(tmp_path / str(number)))
        Path(parts[-1]).write_bytes(written(NESTED.slice(number, 1)))
    sink = io.BytesIO()
    Csv().join(parts, sink, NESTED.schema)
    assert sink.getvalue() == written(NESTED)
    assert written(NESTED.slice(0, 0)).count(b"\n") == 1


def test_parts_whose_names_have_newlines_are_joined_under_one_header(tmp_path: Path) -> None:
    batch = pa.RecordBatch.from_pydict({'a\n"b"\r\n': pa.array(["x\ny", "z"]), "c": pa.array([[1], []])})
    parts = [tmp_path / "0", tmp_path / "1"]
    for number, part in enumerate(parts):
        part.write_bytes(written(batch.slice(number, 1)))
    sink = io.BytesIO()
    Csv().join([str(part) for part in parts], sink, batch.schema)
    assert sink.getvalue() == written(batch)
