"""A table larger than memory, cut on disk by the hash of its column `key`: equal keys lie in the same partition.

Knows Arrow and one hash. Does not know what is joined.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa


class Partitions:
    """Partitions in a folder of their own; rows of one keep the order in which they were written.

    The hash depends on the key and the number of partitions only, so two tables with as many go together.
    """

    def __init__(self, folder: Path, parts: int) -> None:
        folder.mkdir(parents=True)
        self.folder, self.parts = folder, parts
        self._schema: pa.Schema | None = None
        self._writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def write(self, table: pa.Table) -> None:
        """Append rows; `key` is a string."""
        self._schema = table.schema
        key = table["key"].combine_chunks().dictionary_encode()
        hashes = [zlib.crc32(value.encode()) % self.parts for value in key.dictionary.to_pylist()]
        part = np.array(hashes, np.int64)[key.indices.to_numpy()]
        order = np.argsort(part, kind="stable")
        ordered = table.take(order)
        found, start, count = np.unique(part[order], return_index=True, return_counts=True)
        for number, first, rows in zip(found.tolist(), start.tolist(), count.tolist(), strict=True):
            if number not in self._writers:
                self._writers[number] = pa.ipc.new_stream(str(self._path(number)), table.schema)
            self._writers[number].write_table(ordered.slice(first, rows))

    def read(self, part: int) -> Iterator[pa.RecordBatch]:
        """The rows of a partition as they were written, piece by piece; to be called after all are."""
        if self._path(part).exists():
            with pa.OSFile(str(self._path(part))) as file:
                yield from pa.ipc.open_stream(file)

    def table(self, part: int) -> pa.Table:
        """All rows of a partition, in memory."""
        return pa.Table.from_batches(self.read(part), self._schema).combine_chunks()

    def _path(self, part: int) -> Path:
        return self.folder / f"{part}.arrows"
