"""Arrow IPC, as files and as streams: a block is a record batch, read where it lies.

Knows IPC through pyarrow. Does not know features.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa
import pyarrow.ipc

from service.batch.formats.codec import CHUNK_ROWS, Block, Chunk, Survey, Wanted, Writer

MAGIC = b"ARROW1"
WHOLE = -1  # `start` of the only block of a stream that cannot be entered in the middle


class Arrow:
    """The format. What is read is told by its first bytes; what is written is a file."""

    name = "arrow"
    suffixes: tuple[str, ...] = (".arrow", ".arrows", ".feather", ".ipc")
    maps = True
    is_text = False

    def survey(self, file: pa.NativeFile, wanted: Wanted) -> Survey:
        """Looks at every batch; on this machine only at what describes it."""
        if _is_file(file):
            reader = pa.ipc.open_file(file)
            counts = (reader.get_batch(i).num_rows for i in range(reader.num_record_batches))
            return Survey(reader.schema, tuple(Block(rows, i) for i, rows in enumerate(counts)))
        return _survey_of_stream(file)

    def chunks(self, file: pa.NativeFile, block: Block, wanted: Wanted) -> Iterator[Chunk]:
        """Checked as a whole, since nothing else would notice offsets that lead outside."""
        for batch in _batches(file, block):
            chosen = batch.select(list(wanted.columns))
            for start in range(0, batch.num_rows, CHUNK_ROWS):
                part = chosen.slice(start, CHUNK_ROWS)
                part.validate(full=True)
                yield Chunk(part)

    def writer(self, sink: Any, schema: pa.Schema) -> Writer:
        """Uncompressed, so that it can be mapped."""
        return _Writer(sink, schema)

    def join(self, parts: Sequence[str], sink: Any, schema: pa.Schema) -> None:
        """Batch by batch."""
        with closing(_Writer(sink, schema)) as writer:
            for part in parts:
                with pa.memory_map(part) as file:
                    reader = pa.ipc.open_file(file)
                    for number in range(reader.num_record_batches):
                        writer.write(reader.get_batch(number))


class StreamWriter:
    """Writes a stream, which can be read before it has come to its end."""

    def __init__(self, sink: Any, schema: pa.Schema) -> None:
        self._writer = pa.ipc.new_stream(sink, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        self._writer.write_batch(batch)

    def close(self) -> None:
        """Mark the end."""
        self._writer.close()


class _Writer(StreamWriter):
    def __init__(self, sink: Any, schema: pa.Schema) -> None:
        self._writer = pa.ipc.new_file(sink, schema)


def _is_file(file: pa.NativeFile) -> bool:
    return bytes(file.read_at(len(MAGIC), 0)) == MAGIC


def _survey_of_stream(file: pa.NativeFile) -> Survey:
    file.seek(0)
    schema = pa.ipc.read_schema(file)
    if any(pa.types.is_dictionary(kind) for field in schema for kind in _types(field.type)):
        file.seek(0)
        with pa.ipc.open_stream(file) as reader:
            rows = sum(batch.num_rows for batch in reader)
        return Survey(schema, (Block(rows, WHOLE),) if rows else ())
    blocks: list[Block] = []
    while True:
        start = file.tell()
        try:
            message = pa.ipc.read_message(file)
        except EOFError:
            return Survey(schema, tuple(blocks))
        blocks.append(Block(pa.ipc.read_record_batch(message, schema).num_rows, start))


def _batches(file: pa.NativeFile, block: Block) -> Iterator[pa.RecordBatch]:
    if _is_file(file):
        yield pa.ipc.open_file(file).get_batch(block.start)
        return
    file.seek(0)
    if block.start == WHOLE:
        with pa.ipc.open_stream(file) as reader:
            yield from reader
        return
    schema = pa.ipc.read_schema(file)
    file.seek(block.start)
    yield pa.ipc.read_record_batch(pa.ipc.read_message(file), schema)


def _types(kind: pa.DataType) -> Iterator[pa.DataType]:
    yield kind
    for i in range(kind.num_fields):
        yield from _types(kind.field(i).type)
