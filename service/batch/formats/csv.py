"""CSV: every value is read as text, and parsed by the type of the feature it is for.

Sequences are JSON lists in a field, as they are written. What is kept without being a feature stays text. Empty fields
and what pyarrow calls null (NA, NULL, NaN, ...) are missing, as in training. Knows CSV through pyarrow. Does not know
the bundle.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from contract.errors import DataInvalid
from service.batch.formats import lines
from service.batch.formats.codec import CHUNK_ROWS, Block, Chunk, Survey, Wanted, Writer

HEADER_BYTES = 2**22
BOM = b"\xef\xbb\xbf"


class Csv:
    """The format: a header, commas, quotes doubled inside quotes."""

    name = "csv"
    suffixes: tuple[str, ...] = (".csv",)
    maps = False
    is_text = True

    def survey(self, file: pa.NativeFile, wanted: Wanted) -> Survey:
        """Reads the whole file once, to find where its records end."""
        names, begin = _header(file)
        fields = [pa.field(name, _type(name, wanted)) for name in names]
        return Survey(pa.schema(fields), lines.blocks(file, begin, quoted=True))

    def chunks(self, file: pa.NativeFile, block: Block, wanted: Wanted) -> Iterator[Chunk]:
        """A row that has too few or too many fields, or a number that is none, is refused."""
        names, _ = _header(file)
        data = file.read_at(block.stop - block.start, block.start)
        skipped: dict[int, str] = {}

        def skip(row: pa.csv.InvalidRow) -> str:
            skipped[row.number - 1] = f"{row.actual_columns} fields where the header has {row.expected_columns}"
            return "skip"

        table = pa.csv.read_csv(
            pa.BufferReader(data),
            pa.csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=names),
            pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
            pa.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=list(wanted.columns) or names[:1],
                strings_can_be_null=True,
            ),
        )
        if table.num_rows + len(skipped) != block.rows:
            raise DataInvalid(
                f"holds {table.num_rows + len(skipped)} records from byte {block.start} on, where {block.rows} end",
                remedy="write it again with newlines at the ends of lines, and quotes doubled inside quotes",
            )
        table = _with_nulls(table, skipped)
        for start in range(0, table.num_rows, CHUNK_ROWS):
            part = table.slice(start, CHUNK_ROWS)
            refused = {row - start: why for row, why in skipped.items() if start <= row < start + CHUNK_ROWS}
            columns = {name: _typed(part[name], name, wanted, refused) for name in wanted.columns}
            yield Chunk(_batch(columns, part.num_rows), refused)

    def writer(self, sink: Any, schema: pa.Schema) -> Writer:
        """Lists and structs become JSON in a field."""
        return _Writer(sink, schema)

    def join(self, parts: Sequence[str], sink: Any, schema: pa.Schema) -> None:
        """One header."""
        header = io.BytesIO()
        self.writer(header, schema).close()
        sink.write(header.getvalue())
        for part in parts:
            with open(part, "rb") as file:
                file.seek(len(header.getvalue()))  # not a line: a name may have a newline in it
                while data := file.read(2**20):
                    sink.write(data)


class _Writer:
    def __init__(self, sink: Any, schema: pa.Schema) -> None:
        self._nested = [i for i, field in enumerate(schema) if pa.types.is_nested(field.type)]
        fields = [pa.field(f.name, pa.string()) if i in self._nested else f for i, f in enumerate(schema)]
        self._schema = pa.schema(fields)
        options = pa.csv.WriteOptions(batch_size=CHUNK_ROWS)
        self._writer = pa.csv.CSVWriter(sink, self._schema, write_options=options)

    def write(self, batch: pa.RecordBatch) -> None:
        columns = list(batch.columns)
        for i in self._nested:
            values = [
                None if v is None else json.dumps(v, ensure_ascii=False, default=str) for v in columns[i].to_pylist()
            ]
            columns[i] = pa.array(values, pa.string())
        self._writer.write(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


def _header(file: pa.NativeFile) -> tuple[list[str], int]:
    """The names of the columns, and where the first record begins. Raises: DataInvalid."""
    data = bytes(file.read_at(HEADER_BYTES, 0))
    skipped = len(BOM) if data.startswith(BOM) else 0
    end, quotes = skipped, 0
    while True:
        newline = data.find(b"\n", end)
        piece = data[end:] if newline < 0 else data[end : newline + 1]
        quotes += piece.count(b'"')
        end += len(piece)
        if newline < 0 or quotes % 2 == 0:
            break
    if quotes % 2 or (newline < 0 and file.size() > HEADER_BYTES):
        raise DataInvalid(
            f"the header does not end in the first {HEADER_BYTES >> 20} MiB"
            + (" (a quote that is not closed?)" if quotes % 2 else ""),
            remedy="end the first line with a newline, and close its quotes",
        )
    try:
        rows = list(csv.reader(io.StringIO(data[skipped:end].decode(), newline="")))
    except csv.Error as error:  # which csv raises only where a name is longer than it takes
        raise DataInvalid(
            f"the header cannot be read ({error})", remedy="give shorter names, and close quotes where a name ends"
        ) from None
    if not rows or not any(rows[0]):
        raise DataInvalid("the first line is no header", remedy="give the columns' names in the first line")
    if any(rows[1:]):  # which nobody would read
        raise DataInvalid(
            "the first line holds more than the header (a carriage return without a newline?)",
            remedy="write it again with newlines at the ends of lines, and quotes doubled inside quotes",
        )
    return rows[0], end


def _type(name: str, wanted: Wanted) -> pa.DataType:
    """What the fields of a column become."""
    simple = {"string": pa.string(), "int64": pa.string(), "float32": pa.float64()}
    kind = simple.get(wanted.dtypes.get(name, "string"), pa.string())
    return pa.list_(pa.int64() if wanted.dtypes[name] == "int64" else kind) if name in wanted.lists else kind


def _typed(column: pa.ChunkedArray, name: str, wanted: Wanted, refused: dict[int, str]) -> pa.Array:
    column = column.combine_chunks()
    kind = _type(name, wanted)
    if name in wanted.lists:
        parse = _whole if wanted.dtypes[name] == "int64" else _listed
        return _parsed(column, kind, parse, f"{name}: is no JSON list of {wanted.dtypes[name]}", refused)
    if kind == pa.string():
        return column
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        return _parsed(column, kind, _number, f"{name}: must be a number", refused)


def _number(text: str) -> float:
    """What Arrow takes for one, which is less than `float` does."""
    return float(pa.scalar(text, pa.string()).cast(pa.float64()).as_py())


def _listed(text: str) -> list[Any]:
    values = json.loads(text)
    if not isinstance(values, list):
        raise TypeError
    return values


def _whole(text: str) -> list[Any]:
    values = _listed(text)
    if float in map(type, values):  # of which pyarrow would drop the fraction
        raise TypeError
    return values


def _parsed(
    column: pa.Array, kind: pa.DataType, parse: Callable[[str], Any], fact: str, refused: dict[int, str]
) -> pa.Array:
    """Each distinct text parsed once; the rows of one that cannot be are refused."""
    encoded = column.dictionary_encode()
    values: list[Any] = []
    wrong = np.zeros(len(encoded.dictionary) + 1, np.bool_)
    for index, text in enumerate(encoded.dictionary.to_pylist()):
        try:
            values.append(pa.scalar(parse(text), kind).as_py())
        except (ValueError, TypeError, OverflowError, pa.ArrowException, RecursionError):
            values.append(None)
            wrong[index] = True
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(wrong[codes]).tolist():
        refused.setdefault(row, fact)
    return pa.array(values, kind).take(encoded.indices)


def _with_nulls(table: pa.Table, skipped: dict[int, str]) -> pa.Table:
    """The table with rows of nulls where rows were skipped."""
    if not skipped:
        return table
    places = np.full(table.num_rows + len(skipped), -1)
    places[[row for row in range(len(places)) if row not in skipped]] = np.arange(table.num_rows)
    return table.take(pa.array(places, mask=places < 0))


def _batch(columns: dict[str, pa.Array], rows: int) -> pa.RecordBatch:
    if columns:
        return pa.RecordBatch.from_pydict(columns)
    return pa.RecordBatch.from_arrays([pa.nulls(rows)], [""]).select([])
