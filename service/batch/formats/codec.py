"""What a file format is to the batch scorer: files cut into blocks, blocks read in chunks, tables written.

Knows names only. Does not know any format.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from contract.errors import DataInvalid, FullfunnelError

CHUNK_ROWS = 2**15  # rows read at once: words and users are looked up once in each
CHUNK_BYTES = 2**26  # what one chunk may take in memory, as far as a file tells beforehand
BLOCK_ROWS = 2**18


@dataclass(frozen=True)
class Block:
    """`rows` that can be read without those before them. What `start` and `stop` count is the format's affair."""

    rows: int
    start: int
    stop: int = 0


@dataclass(frozen=True)
class Survey:
    """What a file holds: its columns, its blocks in order, and a digest of what describes them."""

    schema: pa.Schema
    blocks: tuple[Block, ...]
    digest: str = ""


@dataclass(frozen=True)
class Chunk:
    """Some rows, at most CHUNK_ROWS, and why some of them cannot be read, by their place in the chunk."""

    batch: pa.RecordBatch
    refused: Mapping[int, str] = field(default_factory=dict)

    def cut(self, start: int, stop: int) -> "Chunk":
        """Rows from `start` up to `stop`."""
        kept = {row - start: reason for row, reason in self.refused.items() if start <= row < stop}
        return Chunk(self.batch.slice(start, stop - start), kept)


@dataclass(frozen=True)
class Wanted:
    """The columns to read. `dtypes` are of those that a feature takes; lists of them are `lists`."""

    columns: tuple[str, ...]
    dtypes: Mapping[str, str]
    lists: frozenset[str]


class Writer(Protocol):
    """Writes one file."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows."""

    def close(self) -> None:
        """Finish the file; what it is written to stays open."""


class Format(Protocol):
    """One file format."""

    @property
    def name(self) -> str:
        """What `--format` calls it."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of its files; the first is that of files we write."""

    @property
    def is_text(self) -> bool:
        """Whether its files can be read by people, and hold no raw bytes."""

    @property
    def maps(self) -> bool:
        """Whether its files are best mapped into memory, where they are on this machine."""

    def survey(self, file: pa.NativeFile, wanted: Wanted) -> Survey:
        """What a file holds. Only `wanted.dtypes` and `.lists` count here. Raises: what pyarrow raises."""

    def chunks(self, file: pa.NativeFile, block: Block, wanted: Wanted) -> Iterator[Chunk]:
        """The rows of a block; the same call gives the same chunks. Raises: what pyarrow raises."""

    def writer(self, sink: Any, schema: pa.Schema) -> Writer:
        """Begin a file of this schema."""

    def join(self, parts: Sequence[str], sink: Any, schema: pa.Schema) -> None:
        """Write one file with the rows of several of ours."""


@contextmanager
def reported(place: str) -> Iterator[None]:
    """Turn what pyarrow says about a file into DataInvalid, and give a place to what has none."""
    try:
        yield
    except FullfunnelError as error:
        if error.place:
            raise
        raise type(error)(error.fact, place=place, remedy=error.remedy) from None
    except MemoryError:
        raise DataInvalid(
            "a part of the file takes more memory to read than there is",
            place=place,
            remedy="write it again with smaller pages and row groups",
        ) from None
    except (pa.ArrowException, OSError, UnicodeDecodeError, KeyError) as error:  # KeyError: names differ inside a file
        text = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataInvalid(
            f"cannot be read ({text[:300]})", place=place, remedy="check that the file is whole"
        ) from None
