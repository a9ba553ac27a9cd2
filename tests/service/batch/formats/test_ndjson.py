"""NDJSON as lines of objects: what types they are read as, which are refused, and how they are written."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from service.batch.formats import lines
from service.batch.formats import ndjson as module
from service.batch.formats.codec import Block, Chunk, Wanted
from service.batch.formats.ndjson import Ndjson

DTYPES = {"word": "string", "number": "float32", "whole": "int64", "ids": "int64", "words": "string"}
LISTS = frozenset({"ids", "words"})


def wanted(*columns: str) -> Wanted:
    return Wanted(columns, DTYPES, LISTS)


def schema(content: bytes) -> dict[str, pa.DataType]:
    found = Ndjson().survey(pa.BufferReader(content), wanted()).schema
    return dict(zip(found.names, found.types, strict=True))


def chunks(content: bytes, *columns: str) -> list[Chunk]:
    """What a file of this content is read as, block after block."""
    file = pa.BufferReader(content)
    blocks = Ndjson().survey(file, wanted()).blocks
    found = [list(Ndjson().chunks(file, block, wanted(*columns))) for block in blocks]
    assert [sum(chunk.batch.num_rows for chunk in each) for each in found] == [block.rows for block in blocks]
    return [chunk for each in found for chunk in each]


def read(name: str, *values: str) -> tuple[list[Any], list[int]]:
    """The values of one column, and which rows are refused."""
    texts = "".join(f'{{"{name}": {value}}}\n' for value in values)
    (chunk,) = chunks(texts.encode(), name)
    return chunk.batch[name].to_pylist(), sorted(chunk.refused)


# ---------------------------------------------------------------- types


def test_features_have_their_own_types_whatever_the_first_lines_hold() -> None:
    content = b'{"word": 1, "number": 1, "whole": null, "ids": [], "words": null}\n'
    assert schema(content) == {
        "word": pa.string(),
        "number": pa.float64(),
        "whole": pa.int64(),
        "ids": pa.list_(pa.int64()),
        "words": pa.list_(pa.string()),
    }


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1"], pa.int64()),
        (["1.5"], pa.float64()),
        (['"a"'], pa.string()),
        (["true"], pa.bool_()),
        (["null"], pa.string()),
        (["null", "null", "7"], pa.int64()),
        (["7", "null", '"a"'], pa.int64()),
        (['"2024-05-01 10:00:00"'], pa.string()),
        (["[1]"], pa.list_(pa.int64())),
        (['{"a": 1}'], pa.struct([("a", pa.int64())])),
    ],
)
def test_other_columns_are_what_the_first_value_says(values: list[str], kind: pa.DataType) -> None:
    assert schema("".join(f'{{"x": {value}}}\n' for value in values).encode()) == {"x": kind}


def test_columns_may_begin_in_a_later_line_and_lines_that_are_no_objects_have_none() -> None:
    content = b'\n[1]\n{"a": 1\n \r\n{"b": 1}\n{"a": "x", "b": null}\n'
    assert schema(content) == {"b": pa.int64(), "a": pa.string()}


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\r\n"])
def test_a_file_without_lines_has_no_columns_and_no_rows(content: bytes) -> None:
    survey = Ndjson().survey(pa.BufferReader(content), wanted())
    assert (survey.schema.names, survey.blocks) == ([], ())


def test_columns_are_told_from_the_first_lines_only_and_never_from_a_piece_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second, third = b'{"a": 1}\n', b'{"b": 1}\n', b'{"c": 1}\n'
    for size, names in ((9, ["a"]), (17, ["a"]), (18, ["a", "b"]), (27, ["a", "b", "c"]), (28, ["a", "b", "c"])):
        monkeypatch.setattr(module, "FIRST_BYTES", size)
        assert list(schema(first + second + third)) == names
    assert list(schema((first + second + third).rstrip())) == ["a", "b", "c"]


def test_types_are_told_once_for_each_file_and_its_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "PIECE_BYTES", 20)
    told, tell = [], module._schema

    def noted(file: pa.NativeFile, wanted: Wanted) -> pa.Schema:
        told.append(file)
        return tell(file, wanted)

    monkeypatch.setattr(module, "_schema", noted)
    form, file, other = Ndjson(), pa.BufferReader(b'{"word": 1}\n' * 9), pa.BufferReader(b'{"word": [1]}\n')
    for block in form.survey(file, wanted()).blocks:
        (chunk,) = form.chunks(file, block, wanted("word"))
        assert len(chunk.refused) == block.rows
    assert told == [file]
    (chunk,) = form.chunks(other, Block(1, 0, 14), Wanted(("word",), {}, frozenset()))
    assert chunk.batch["word"].to_pylist() == [[1]]
    (chunk,) = form.chunks(file, Block(1, 0, 12), Wanted(("word",), {}, frozenset()))
    assert chunk.batch["word"].to_pylist() == [1]
    assert told == [file, other, file]


# ---------------------------------------------------------------- lines


def test_columns_come_in_the_order_they_are_asked_for_and_no_others() -> None:
    (chunk,) = chunks(b'{"a": 1, "b": 2, "c": 3}\n{"c": 4, "x": 5, "b": 6}\n', "c", "a")
    assert [list(row.items()) for row in chunk.batch.to_pylist()] == [[("c", 3), ("a", 1)], [("c", 4), ("a", None)]]


@pytest.mark.parametrize("size", [1, 7, 25, 1000])
def test_blocks_are_the_same_lines_wherever_pieces_begin(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "PIECE_BYTES", size)
    values = ['"', "x\ny", "{", "\\", "ü", ""]
    texts = [json.dumps({"word": value, "number": row}) for row, value in enumerate(values)]
    found = chunks("\n\n".join(texts).encode(), "word", "number")
    assert [value for chunk in found for value in chunk.batch["word"].to_pylist()] == values
    assert [value for chunk in found for value in chunk.batch["number"].to_pylist()] == [0, 1, 2, 3, 4, 5]


def test_lines_end_with_or_without_a_return() -> None:
    found = chunks(b'{"a": 1}\r\n\r\n{"a": 2}\n\n{"a": 3}', "a")
    assert [value for chunk in found for value in chunk.batch["a"].to_pylist()] == [1, 2, 3]
    assert not any(chunk.refused for chunk in found)


BAD = ["[1]", '{"a": 1', '"a"', "7", '{"a": "x"}', '{"a": 1, "a": 2}', '{"a": 1}{"a": 2}', "   ", '{"a": 1.5}']


@pytest.mark.parametrize("line", BAD)
def test_a_line_that_is_no_object_of_those_types_is_refused_alone(line: str) -> None:
    (chunk,) = chunks(f'{{"a": 1}}\n{line}\n{{"a": 3}}\n'.encode(), "a")
    assert chunk.batch["a"].to_pylist() == [1, None, 3]
    assert list(chunk.refused) == [1]
    assert 0 < len(chunk.refused[1]) < 200 and "JSON parse error" not in chunk.refused[1]


DEEP = 150_000
NO_OBJECTS = {
    "null": b"null",
    "null behind space": b" \tnull",
    "an object and null": b"{} null",
    "null and an object": b"null {}",
    "two objects": b'{"a": 1}{"a": 2}',
    "the beginning of an object": b'{"a":',
    "the end of an object": b'{"a": 1}}',
    "space": b"   ",
    "deep lists": b'{"x": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep objects": b'{"x":' * DEEP + b"1" + b"}" * DEEP,
}


@pytest.mark.parametrize("line", NO_OBJECTS)
@pytest.mark.parametrize("row", [0, 1, 2])
def test_what_is_no_object_is_refused_wherever_it_stands(line: str, row: int) -> None:
    texts = [b'{"a": 1}', b'{"a": 2}']
    texts.insert(row, NO_OBJECTS[line])
    (chunk,) = chunks(b"\n".join([*texts, b""]), "a")
    assert list(chunk.refused) == [row]
    assert [value for value in chunk.batch["a"].to_pylist() if value] == [1, 2]


def test_lines_that_are_objects_only_together_are_refused() -> None:
    texts = [b'{"a": 1}{"a": 2}', b'{"x":', b'{"b": 3}}', b'{"a": 4}']
    (chunk,) = chunks(b"\n".join([*texts, b""]), "a")
    assert sorted(chunk.refused) == [0, 1, 2]
    assert chunk.batch["a"].to_pylist() == [None, None, None, 4]


def test_as_deep_as_orjson_goes_an_object_is_read() -> None:
    deep = b'{"x": ' + b"[" * 1000 + b"]" * 1000 + b', "y": ' + str([[]] * 600).encode() + b', "a": 1}'
    (chunk,) = chunks(deep, "a")
    assert (chunk.batch["a"].to_pylist(), chunk.refused) == ([1], {})


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    (chunk,) = chunks(b'\xef\xbb\xbf{"a": 1}\n\xef\xbb\xbf{"a": 2}\n', "a")
    assert (chunk.batch["a"].to_pylist(), list(chunk.refused)) == ([1, None], [1])


def test_a_line_of_returns_is_a_row_and_one_return_is_none() -> None:
    (chunk,) = chunks(b'\r\n{"a": 1}\n\r\r\n', "a")
    assert (chunk.batch["a"].to_pylist(), list(chunk.refused)) == ([1, None], [1])


def test_refused_lines_are_numbered_in_their_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ROWS", 8)
    bad = {1, 2, 7, 8, 15, 16, 18}
    texts = ['{"a": ' if row in bad else json.dumps({"a": row}) for row in range(19)]
    found = chunks("\n".join([*texts, ""]).encode(), "a")
    assert [chunk.batch.num_rows for chunk in found] == [8, 8, 3]
    assert [sorted(chunk.refused) for chunk in found] == [[1, 2, 7], [0, 7], [0, 2]]
    values = [value for chunk in found for value in chunk.batch["a"].to_pylist()]
    assert values == [None if row in bad else row for row in range(19)]


def test_lines_that_are_all_refused_are_rows_of_nulls_of_their_types() -> None:
    (chunk,) = chunks(b'{"word": 1, "ids": 1}\n{"word": 2, "ids": 2}\n', "word", "ids")
    assert sorted(chunk.refused) == [0, 1]
    assert chunk.batch.schema == pa.schema([("word", pa.string()), ("ids", pa.list_(pa.int64()))])
    assert chunk.batch.to_pylist() == [{"word": None, "ids": None}] * 2


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("name", "values", "expected", "refused"),
    [
        ("word", ['"a"', "null", '""', '"NA"', "1", "true", "[]"], ["a", None, "", "NA", None, None, None], [4, 5, 6]),
        ("number", ["1", "null", "-2.5e3", '"1"', "true"], [1.0, None, -2500.0, None, None], [3, 4]),
        ("whole", ["1", "null", str(2**63 - 1), str(2**63), "1.0"], [1, None, 2**63 - 1, None, None], [3, 4]),
        ("ids", ["[1, null]", "null", "[]", "1", '["1"]', "[1.5]"], [[1, None], None, [], None, None, None], [3, 4, 5]),
        ("words", ['["a", null, ""]', '"a"', "[1]"], [["a", None, ""], None, None], [1, 2]),
        ("other", ['"2024-05-01"', '"x"', "null"], ["2024-05-01", "x", None], []),
    ],
)
def test_a_value_of_another_type_is_refused_and_a_missing_one_is_not(
    name: str, values: list[str], expected: list[Any], refused: list[int]
) -> None:
    assert read(name, *values) == (expected, refused)


# ---------------------------------------------------------------- writing


def written(batch: pa.RecordBatch) -> bytes:
    sink = io.BytesIO()
    writer = Ndjson().writer(sink, batch.schema)
    writer.write(batch)
    writer.close()
    return sink.getvalue()


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([0.1, 1e9, -2.0], pa.float32()), ["0.1", "1000000000.0", "-2.0"]),
        (pa.array([0.1, 1e300, 3.0]), ["0.1", "1e+300", "3.0"]),
        (pa.array([float("nan"), float("inf"), 1.0]), ["null", "null", "1.0"]),
        (pa.array([2**63 - 1, -(2**63)]), [str(2**63 - 1), str(-(2**63))]),
        (pa.array([2**64 - 1], pa.uint64()), [str(2**64 - 1)]),
        (pa.array([1, None]), ["1", "null"]),
        (pa.array([0.5, None]), ["0.5", "null"]),
        (pa.array([0.1, None, 7.0], pa.float32()), ["0.1", "null", "7.0"]),
        (pa.array(["a,b", "\n", None, 'ü"']), ['"a,b"', '"\\n"', "null", '"ü\\""']),
        (pa.array([True, None]), ["true", "null"]),
        (pa.array([[1, None], None, []]), ["[1,null]", "null", "[]"]),
        (pa.array([{"a": [1]}, None]), ['{"a":[1]}', "null"]),
        (pa.array([150], pa.int64()).cast(pa.decimal128(21, 2)), ['"150.00"']),
        (pa.array([1], pa.date32()), ['"1970-01-02"']),
        (pa.array([1], pa.duration("s")), ['"0:00:01"']),
        (pa.array([1, None], pa.timestamp("ns")), ['"1970-01-01 00:00:00.000000001"', "null"]),
        (pa.array([], pa.int64()), []),
        (pa.array([], pa.string()), []),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_values_are_json_and_what_json_cannot_hold_is_null_or_text(column: pa.Array, texts: list[str]) -> None:
    found = written(pa.RecordBatch.from_arrays([column], ["x"])).decode()
    assert found == "".join(f'{{"x":{text}}}\n' for text in texts)


def test_names_are_written_as_they_are() -> None:
    names = ["100%", '%b"', "%d%%", "ü\n"]
    (line,) = written(pa.RecordBatch.from_arrays([pa.array([1])] * 4, names)).splitlines()
    assert json.loads(line) == dict.fromkeys(names, 1)
    assert list(json.loads(line)) == names


def test_parts_are_joined_one_after_the_other(tmp_path: Path) -> None:
    batch = pa.RecordBatch.from_pydict({"a": pa.array(range(9)), "b": pa.array(["x"] * 9)})
    parts = []
    for number in range(3):
        parts.append(str(tmp_path / str(number)))
        Path(parts[-1]).write_bytes(written(batch.slice(3 * number, 3)))
    sink = io.BytesIO()
    Ndjson().join(parts, sink, batch.schema)
    assert sink.getvalue() == written(batch)
