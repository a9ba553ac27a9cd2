"""Text files cut where records end, so that any piece can be read without those before it.

Knows newlines, and quotes that hide them. Does not know what a record holds.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.errors import DataInvalid
from service.batch.formats.codec import Block

PIECE_BYTES = 2**22
MAX_RECORD_BYTES = 2**28
NEWLINE, RETURN, QUOTE = 10, 13, 34
BLANK = (b"", b"\r")


def blocks(file: pa.NativeFile, begin: int, quoted: bool) -> tuple[Block, ...]:
    """The file from `begin` on in pieces of whole records, of about PIECE_BYTES. Blank lines are no records.

    Raises: DataInvalid.
    """
    return tuple(_blocks(file, begin, quoted))


def _blocks(file: pa.NativeFile, begin: int, quoted: bool) -> Iterator[Block]:
    size = file.size()
    start, place, rows, inside = begin, begin, 0, 0
    opened = b""  # the first two bytes of the record that is not ended yet
    while place < size:
        data = np.frombuffer(file.read_at(PIECE_BYTES, place), np.uint8)
        if not len(data):
            break
        ends, inside = _ends(data, inside, quoted)
        if len(ends):
            rows += int((~_blank(data, ends, opened)).sum())
            stop = place + int(ends[-1]) + 1
            if rows:
                yield Block(rows, start, stop)
            start, rows, opened = stop, 0, b""
        rest = data[int(ends[-1]) + 1 if len(ends) else 0 :]
        opened = (opened + rest[:2].tobytes())[:2]
        place += len(data)
        if place - start > MAX_RECORD_BYTES:
            raise DataInvalid(
                f"a record of more than {MAX_RECORD_BYTES >> 20} MiB begins at byte {start}"
                + (" (a quote that is not closed?)" if inside else ""),
                remedy="check the file",
            )
    if opened not in BLANK:
        yield Block(1, start, size)


def _ends(data: NDArray[np.uint8], inside: int, quoted: bool) -> tuple[NDArray[np.intp], int]:
    """Where records end, and whether a quote is open at the end."""
    ends = np.flatnonzero(data == NEWLINE)
    if not quoted:
        return ends, 0
    quotes = np.flatnonzero(data == QUOTE)
    if len(quotes) or inside:
        before = np.searchsorted(quotes, ends)
        ends = ends[(before + inside) % 2 == 0]
    return ends, (inside + len(quotes)) % 2


def _blank(data: NDArray[np.uint8], ends: NDArray[np.intp], opened: bytes) -> NDArray[np.bool_]:
    """Which of the records that end here hold nothing. The first began with `opened`."""
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts
    empty = (lengths == 0) | ((lengths == 1) & (data[starts] == RETURN))
    empty[0] = opened + data[: min(2, ends[0])].tobytes() in BLANK
    return np.asarray(empty)
