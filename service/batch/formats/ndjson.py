"""NDJSON: an object a line; features are read as their types, what is kept as the first lines suggest.

Knows JSON lines through pyarrow and orjson. Does not know the bundle.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import orjson
import pyarrow as pa
import pyarrow.json

from service.batch.formats import lines
from service.batch.formats.codec import CHUNK_ROWS, Block, Chunk, Survey, Wanted, Writer

FIRST_BYTES = 2**20  # what the types of other columns than features are told from
SPACE, MARK = b" \t\r", b"\xef\xbb\xbf"
MAX_DEPTH = 1024
NO_OBJECT = "is no JSON object, or is nested too deep"
TYPES = {"string": pa.string(), "int64": pa.int64(), "float32": pa.float64()}


class Ndjson:
    """The format."""

    name = "ndjson"
    suffixes: tuple[str, ...] = (".ndjson", ".jsonl")
    maps = False
    is_text = True

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[pa.NativeFile, tuple[Wanted, pa.Schema]] = WeakKeyDictionary()

    def survey(self, file: pa.NativeFile, wanted: Wanted) -> Survey:
        """Reads the whole file once, to find where its lines end."""
        return Survey(self._schema(file, wanted), lines.blocks(file, 0, quoted=False))

    def chunks(self, file: pa.NativeFile, block: Block, wanted: Wanted) -> Iterator[Chunk]:
        """A line that is no object, or holds a value of another type, is refused."""
        schema = self._schema(file, wanted)
        schema = pa.schema([schema.field(name) for name in wanted.columns])
        texts = [text for text in _lines(file, block.stop - block.start, block.start) if text not in lines.BLANK]
        for start in range(0, len(texts), CHUNK_ROWS):
            chunk = texts[start : start + CHUNK_ROWS]
            refused = {row: NO_OBJECT for row, text in enumerate(chunk) if not _is_object(text)}
            for row in refused:
                chunk[row] = b"{}"
            tables = list(_read(chunk, schema, 0, refused))
            yield Chunk(_batch(pa.concat_tables(tables)), refused)

    def _schema(self, file: pa.NativeFile, wanted: Wanted) -> pa.Schema:
        """That of a file is found once: it takes as long as reading several megabytes."""
        features = replace(wanted, columns=())
        known = self._known.get(file)
        if known is None or known[0] != features:
            known = self._known[file] = features, _schema(file, wanted)
        return known[1]

    def writer(self, sink: Any, schema: pa.Schema) -> Writer:
        """Numbers as short as they can be written; what JSON cannot hold is null, or text."""
        return _Writer(sink, schema)

    def join(self, parts: Sequence[str], sink: Any, schema: pa.Schema) -> None:
        """One after the other."""
        for part in parts:
            with open(part, "rb") as file:
                while data := file.read(2**20):
                    sink.write(data)


class _Writer:
    def __init__(self, sink: Any, schema: pa.Schema) -> None:
        self._sink = sink
        names = [orjson.dumps(name).replace(b"%", b"%%") for name in schema.names]
        self._line = b"{" + b",".join(name + b":%b" for name in names) + b"}\n"

    def write(self, batch: pa.RecordBatch) -> None:
        self._sink.write(b"".join(map(self._line.__mod__, zip(*map(_texts, batch.columns), strict=True))))

    def close(self) -> None:
        """Nothing is held back."""


def _texts(column: pa.Array) -> list[bytes]:
    """Each value as JSON."""
    kind = column.type
    if column.null_count and kind in (pa.float32(), pa.float64()):
        column = column.fill_null(float("nan"))  # which JSON writes as null
    if column.null_count == 0 and (pa.types.is_integer(kind) or kind in (pa.float32(), pa.float64())) and len(column):
        values = column.to_numpy(zero_copy_only=False)
        return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
    try:
        values = column.to_pylist()
    except ValueError:  # nanoseconds, of which Python's times have none
        values = column.cast(pa.string()).to_pylist()
    return [orjson.dumps(value, default=str) for value in values]


def _schema(file: pa.NativeFile, wanted: Wanted) -> pa.Schema:
    """Features as their types, in whichever lines they are; other columns as the first lines suggest."""
    head = _lines(file, FIRST_BYTES, 0)
    if file.size() > FIRST_BYTES:
        head.pop()
    fields: dict[str, pa.Field] = {}
    for text in head:
        if _is_object(text):
            try:
                found = pa.json.read_json(pa.BufferReader(text), _options(text)).schema
            except pa.ArrowInvalid:
                continue  # refused when it is read
            for field in found:
                known = fields.get(field.name)
                if known is None or pa.types.is_null(known.type):
                    fields[field.name] = field
    result = []
    for name, field in fields.items():
        if dtype := wanted.dtypes.get(name):
            kind = pa.list_(TYPES[dtype]) if name in wanted.lists else TYPES[dtype]
        else:
            kind = pa.string() if pa.types.is_timestamp(field.type) or pa.types.is_null(field.type) else field.type
        result.append(pa.field(name, kind))
    return pa.schema(result)


def _lines(file: pa.NativeFile, size: int, start: int) -> list[bytes]:
    data = bytes(file.read_at(size, start))
    return (data if start else data.removeprefix(MARK)).split(b"\n")


def _is_object(text: bytes) -> bool:
    """Whether a line may be given to pyarrow.

    What is no object it does not always survive (26.0.1: `null`), nor what is nested without end. Lines that begin and
    end as objects cannot be one object together either.
    """
    text = text.strip(SPACE)
    if not (text.startswith(b"{") and text.endswith(b"}")):
        return False
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return True
    try:
        orjson.loads(text)  # which stops at a depth of 1,024
    except orjson.JSONDecodeError:
        return False
    return True


def _options(data: bytes) -> pa.json.ReadOptions:
    return pa.json.ReadOptions(use_threads=False, block_size=len(data) + 1)


def _read(texts: list[bytes], schema: pa.Schema, first: int, refused: dict[int, str]) -> Iterator[pa.Table]:
    """Lines as tables. What cannot be read is looked for in halves."""
    data = b"\n".join(texts)
    parse = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        table = pa.json.read_json(pa.BufferReader(data), _options(data), parse)
        if table.num_rows != len(texts):
            raise pa.ArrowInvalid("holds more than one object in a line, or none")
        yield table.select(schema.names) if schema.names else table
    except pa.ArrowInvalid as error:
        if len(texts) > 1:
            middle = len(texts) // 2
            yield from _read(texts[:middle], schema, first, refused)
            yield from _read(texts[middle:], schema, first + middle, refused)
            return
        refused[first] = str(error).splitlines()[0].removeprefix("JSON parse error: ").rstrip(".")
        yield pa.Table.from_arrays([pa.nulls(1, field.type) for field in schema], schema=schema)


def _batch(table: pa.Table) -> pa.RecordBatch:
    (batch,) = table.combine_chunks().to_batches() or [None]
    return batch
