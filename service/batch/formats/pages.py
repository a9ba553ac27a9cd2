"""What a Parquet file unfolds to, told from the headers of its pages, which are what a reader allocates by.

The footer says how large a file is when it is decoded, and may lie; a page of a few bytes can stand for millions of
values. Knows pages, and the compact form of Thrift they are described in (Apache Parquet, `parquet.thrift`). Does not
know what the values mean.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contract.errors import DataInvalid, TableTooLarge

WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12}
DICTIONARY, PREFIXED = (2, 8), 7  # encodings whose values may be longer than what is stored of them
DICTIONARY_PAGE = 2
MAX_PAGES = 2**16
DEPTH = 8

# fields of a page header, and of the headers inside it
TYPE, UNCOMPRESSED, COMPRESSED, DATA, DICT, DATA_V2 = 1, 2, 3, 5, 7, 8
VALUES, ENCODING, ENCODING_V2 = 1, 2, 4


@dataclass(frozen=True)
class Page:
    """One page: what it stores, decompressed, and how many values it stands for."""

    is_dictionary: bool
    size: int
    values: int
    encoding: int


def check_pages(body: bytes, columns: Collection[str], max_bytes: int) -> None:
    """Refuse a file whose columns would take more than so many bytes.

    Raises: DataInvalid, TableTooLarge, what pyarrow raises.
    """
    metadata = pq.read_metadata(pa.BufferReader(body))
    total = 0
    for group in range(metadata.num_row_groups):
        if not metadata.row_group(group).num_rows:
            continue  # is not read, and has no page where it says
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            path = f"{column.path_in_schema}."  # a name may hold dots itself
            if any(path.startswith(f"{name}.") for name in columns):
                total += _unfolded(body, column, metadata.schema.column(number), max_bytes - total)
                if total > max_bytes:
                    raise TableTooLarge(
                        f"more than {max_bytes} bytes when it is decoded",
                        place="body",
                        remedy="send it in several requests, or start a job over files",
                    )


def _unfolded(body: bytes, column: Any, leaf: Any, enough: int) -> int:
    """The bytes of one column chunk; no need to go on beyond `enough`."""
    is_text = str(leaf.logical_type) == "String"  # is left folded by the reader
    width = max(0, leaf.length) if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY" else WIDTHS.get(leaf.physical_type, 4)
    words = total = 0
    for page in _pages(body, column):
        value = width
        if page.is_dictionary:
            words = page.size
        elif leaf.physical_type == "BYTE_ARRAY" and page.encoding == PREFIXED:
            value = max(width, page.size)
        elif leaf.physical_type == "BYTE_ARRAY" and page.encoding in DICTIONARY and not is_text:
            value = max(width, words)
        total += max(page.size, page.values * value)
        if total > enough:
            break
    return total


def _pages(body: bytes, column: Any) -> Iterator[Page]:
    start = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset:
        start = min(start, column.dictionary_page_offset)
    at, end = start, start + column.total_compressed_size
    if not 0 <= start <= end <= len(body):
        raise _damaged()
    for _ in range(MAX_PAGES):
        if at >= end:
            return
        try:
            header, at = _struct(body, at, 0)
        except (IndexError, RecursionError):
            raise _damaged() from None
        stored = header.get(COMPRESSED, -1)
        inner = header.get(DATA) or header.get(DATA_V2) or header.get(DICT) or {}
        encoding = inner.get(ENCODING_V2 if DATA_V2 in header else ENCODING, 0)
        page = Page(header.get(TYPE) == DICTIONARY_PAGE, header.get(UNCOMPRESSED, -1), inner.get(VALUES, 0), encoding)
        if stored < 0 or page.size < 0 or page.values < 0:
            raise _damaged()
        at += stored
        yield page
    raise _damaged()


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """A struct in Thrift's compact protocol: whole numbers and structs by field; what else there is, is skipped."""
    if depth > DEPTH:
        raise _damaged()
    found: dict[int, Any] = {}
    field = 0
    while head := data[at]:
        at += 1
        kind, step = head & 15, head >> 4
        if step:
            field += step
        else:
            field, at = _zigzag(data, at)
        value, at = _value(data, at, kind, depth)
        found[field] = value
    return found, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):  # a truth is its own type
        return kind == 1, at
    if kind in (4, 5, 6):
        return _zigzag(data, at)
    if kind == 3:
        return data[at], at + 1
    if kind == 7:
        return None, at + 8
    if kind == 8:
        size, at = _varint(data, at)
        return None, at + size
    if kind == 12:
        return _struct(data, at, depth + 1)
    raise _damaged()  # lists, sets and maps do not stand in a page's header


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise _damaged()


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _damaged() -> DataInvalid:
    return DataInvalid("is no Parquet file, or a damaged one", place="body", remedy="write it again")
