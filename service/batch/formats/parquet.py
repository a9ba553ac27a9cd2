"""Parquet: a block is a row group, read page by page, with strings as the dictionaries they are stored as.

Knows Parquet through pyarrow. Does not know features.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.batch.formats.codec import BLOCK_ROWS, CHUNK_BYTES, CHUNK_ROWS, Block, Chunk, Survey, Wanted, Writer

PAGE_BUFFER = 2**18  # of each column: a row group is read through it, however large it is
LARGE_GROUP = 2**25  # bytes; a smaller one is read column by column, which is quicker
MIN_CHUNK_ROWS = 16


class Parquet:
    """The format."""

    name = "parquet"
    suffixes: tuple[str, ...] = (".parquet", ".pq")
    maps = False
    is_text = False

    def __init__(self) -> None:
        self._last: tuple[Any, Any] = None, None  # a file, and its footer: of a large file it takes a while to read

    def survey(self, file: pa.NativeFile, wanted: Wanted) -> Survey:
        """Reads the footer only."""
        metadata = pq.ParquetFile(file, pre_buffer=False).metadata
        blocks = tuple(Block(metadata.row_group(i).num_rows, i) for i in range(metadata.num_row_groups))
        digest = hashlib.sha256(_footer(file)).hexdigest()
        return Survey(metadata.schema.to_arrow_schema(), blocks, digest)

    def chunks(self, file: pa.NativeFile, block: Block, wanted: Wanted) -> Iterator[Chunk]:
        """Pages are decoded as they are needed, so that a giant row group takes no more than a small one."""
        metadata = self._metadata(file)
        group = metadata.row_group(block.start)
        strings, size = [], 0
        for i in range(group.num_columns):
            column = group.column(i)
            if _is_of(column.path_in_schema, wanted.columns):
                size += column.total_uncompressed_size
                if str(metadata.schema.column(i).logical_type) == "String":
                    strings.append(column.path_in_schema)
        opened = pq.ParquetFile(
            file,
            metadata=metadata,
            read_dictionary=strings,
            pre_buffer=False,
            buffer_size=PAGE_BUFFER if size > LARGE_GROUP else 0,
        )
        rows = CHUNK_ROWS
        while rows > MIN_CHUNK_ROWS and size * rows > CHUNK_BYTES * max(1, block.rows):
            rows //= 2
        batches = opened.iter_batches(
            batch_size=rows, row_groups=[block.start], columns=list(wanted.columns), use_threads=False
        )
        if not wanted.columns:  # pyarrow gives no batch at all
            batches = _without_columns(block.rows)
        for batch in batches:
            yield Chunk(batch)

    def _metadata(self, file: pa.NativeFile) -> Any:
        last, metadata = self._last
        if last is not file:
            metadata = pq.read_metadata(file)
            self._last = file, metadata
        return metadata

    def writer(self, sink: Any, schema: pa.Schema) -> Writer:
        """Scores hardly compress; what is kept beside them does."""
        return _Writer(sink, schema)

    def join(self, parts: Sequence[str], sink: Any, schema: pa.Schema) -> None:
        """Row group by row group."""
        with closing(_Writer(sink, schema)) as writer:
            for part in parts:
                with pq.ParquetFile(part, pre_buffer=False) as file:
                    for batch in file.iter_batches(CHUNK_ROWS, use_threads=False):
                        writer.write(batch)


class _Writer:
    """Batches gathered into row groups of BLOCK_ROWS rows or about CHUNK_BYTES."""

    def __init__(self, sink: Any, schema: pa.Schema) -> None:
        plain = [field.name for field in schema if field.type == pa.float32()]
        others = [name for name in schema.names if name not in plain]
        self._schema = schema
        self._writer = pq.ParquetWriter(
            sink,
            schema,
            compression={**dict.fromkeys(others, "zstd"), **dict.fromkeys(plain, "none")} or "none",
            use_dictionary=others or False,
            write_statistics=True,
            write_batch_size=CHUNK_ROWS,
        )
        self._waiting: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
        self._waiting.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._rows >= BLOCK_ROWS or self._bytes >= CHUNK_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            table = pa.Table.from_batches(self._waiting, self._schema)
            self._writer.write_table(table, row_group_size=self._rows)
        self._waiting, self._rows, self._bytes = [], 0, 0


def _is_of(path: str, columns: tuple[str, ...]) -> bool:
    """Whether a leaf belongs to one of these columns; a name may hold dots itself."""
    return any(path == name or (path.startswith(name) and path[len(name)] == ".") for name in columns)


def _footer(file: pa.NativeFile) -> bytes:
    size = file.size()
    tail = file.read_at(8, size - 8)
    length = int.from_bytes(tail[:4], "little")
    return bytes(file.read_at(min(length, size), max(0, size - 8 - length)))


def _without_columns(rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, rows, CHUNK_ROWS):
        nothing = pa.array([None] * min(CHUNK_ROWS, rows - start), pa.null())
        yield pa.RecordBatch.from_arrays([nothing], [""]).select([])
