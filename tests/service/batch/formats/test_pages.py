"""What a Parquet file unfolds to, from its pages."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import DataInvalid, TableTooLarge
from service.batch.formats.pages import check_pages


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, store_schema=False, **options)
    return sink.getvalue()


def holds(body: bytes, columns: list[str], size: int) -> bool:
    try:
        check_pages(body, columns, size)
    except TableTooLarge:
        return False
    return True


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "zstd", "snappy"])
def test_numbers_count_with_their_width_however_they_are_stored(version: str, compression: str) -> None:
    rows = 100_000
    for values in (np.zeros(rows), np.arange(rows, dtype=np.int64)):
        body = parquet({"a": values}, data_page_version=version, compression=compression)
        assert holds(body, ["a"], rows * 18)  # the words of a dictionary count too
        assert not holds(body, ["a"], rows * 8 - 1)
        assert holds(body, ["b"], 0)
        assert holds(body, [], 0)


def test_members_of_lists_count_as_values() -> None:
    body = parquet({"a": [[1] * 50_000, [2] * 50_000]})
    assert not holds(body, ["a"], 799_999)
    assert len(body) < 10_000


def test_strings_that_repeat_what_stood_before_count_in_full() -> None:
    texts = ["x" * 10_000 + str(i) for i in range(1000)]
    body = parquet({"a": texts}, use_dictionary=False, column_encoding={"a": "DELTA_BYTE_ARRAY"}, compression="none")
    assert len(body) < 100_000
    assert not holds(body, ["a"], 10_000_000)


def test_a_footer_that_lies_is_not_believed() -> None:
    body = parquet({"a": np.zeros(1_000_000)}, use_dictionary=False, compression="zstd")
    metadata = pq.read_metadata(io.BytesIO(body))
    size = metadata.row_group(0).column(0).total_uncompressed_size
    honest, lying = _varint(size), _varint(1000)
    lying = bytes([*(byte | 128 for byte in lying[:-1]), lying[-1] | 128, *[128] * (len(honest) - len(lying) - 1), 0])
    assert body.count(honest) >= 1 and len(lying) == len(honest)
    body = body.replace(honest, lying)
    assert pq.read_metadata(io.BytesIO(body)).row_group(0).column(0).total_uncompressed_size == 1000
    assert not holds(body, ["a"], 7_999_999)


def _varint(value: int) -> bytes:
    value <<= 1
    found = []
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def test_pages_that_lead_outside_the_file_are_refused() -> None:
    body = parquet({"a": np.arange(10_000)}, compression="none", use_dictionary=False)
    with pytest.raises((DataInvalid, pa.ArrowException)):
        check_pages(body[:4] + b"\x15\x00\x15\xff\xff\xff\xff\x0f" + body[12:], ["a"], 2**30)
