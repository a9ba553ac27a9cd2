"""What a batch would take if every value stood there in full."""

from typing import Any

import pyarrow as pa
import pytest

from contract.errors import ColumnTypeInvalid
from service.batch.weight import check_kinds, expanded_bytes

TEXT = "x" * 1000
WORDS = pa.DictionaryArray.from_arrays(pa.array([0, None, 1] * 100, pa.int8()), [TEXT, ""])


@pytest.mark.parametrize(
    ("column", "least", "most"),
    [
        (pa.array([1.0] * 300), 2400, 2500),
        (pa.nulls(300), 300, 300),
        (pa.array([TEXT] * 300), 300_000, 302_000),
        (pa.array([TEXT, None] * 150).slice(100), 100_000, 101_000),
        (pa.array([TEXT] * 300, pa.large_string()), 300_000, 302_000),
        (pa.array([TEXT, None] * 150, pa.string_view()).slice(100), 100_000, 104_000),
        (WORDS, 100_000, 101_300),
        (WORDS.slice(150), 50_000, 50_700),
        (pa.ListArray.from_arrays([0, 100, 300], WORDS), 100_000, 101_400),
        (pa.array([[None] * 300], pa.list_(pa.null())), 300, 320),
        (pa.array([{"a": TEXT, "b": 1}] * 10), 10_000, 10_200),
    ],
)
def test_every_value_counts_as_if_it_stood_alone(column: Any, least: int, most: int) -> None:
    batch = pa.RecordBatch.from_arrays([column], ["a"])
    assert least <= expanded_bytes(batch) <= most


def test_what_cannot_be_weighed_cannot_be_kept() -> None:
    ends = pa.RunEndEncodedArray.from_arrays(pa.array([10**9], pa.int32()), pa.array([1]))
    for kind in (
        ends.type,
        pa.list_view(pa.int8()),
        pa.map_(pa.string(), pa.int8()),
        pa.list_(pa.list_view(pa.int8())),
    ):
        with pytest.raises(ColumnTypeInvalid, match="cannot be kept"):
            check_kinds(pa.schema([("a", kind)]), ["a"], "body")
        check_kinds(pa.schema([("a", kind), ("b", pa.int8())]), ["b"], "body")
    for kind in (pa.timestamp("us"), pa.decimal128(5), pa.dictionary(pa.int8(), pa.string()), pa.bool_(), pa.null()):
        check_kinds(pa.schema([("a", pa.struct([("b", pa.list_(kind))]))]), ["a"], "body")
