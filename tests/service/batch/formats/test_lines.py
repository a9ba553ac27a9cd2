"""Where records end."""

import csv
import io
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import DataInvalid
from service.batch.formats import lines


def _pieces(content: bytes, size: int, quoted: bool = True, begin: int = 0) -> list[tuple[int, bytes]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "PIECE_BYTES", size)
        found = lines.blocks(pa.PythonFile(io.BytesIO(content), "r"), begin, quoted)
    return [(block.rows, content[block.start : block.stop]) for block in found]


FIELD = st.lists(st.sampled_from(["a", '"', "\n", ",", "\r\n", "é"]), min_size=1, max_size=5).map("".join)


@given(st.lists(st.tuples(FIELD, FIELD), max_size=6), st.integers(1, 30), st.booleans())
def test_pieces_hold_whole_records_however_they_are_quoted(
    rows: list[tuple[str, str]], size: int, last_newline: bool
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    content = text.getvalue().encode()
    content = content if last_newline else content.removesuffix(b"\n")
    pieces = _pieces(content, size)
    assert sum(count for count, _ in pieces) == len(rows)
    found = [
        tuple(row) for _, piece in pieces for row in csv.reader(io.StringIO(piece.decode(), newline=""), strict=True)
    ]
    assert found == rows


@given(st.lists(st.sampled_from([b"\n", b"\r\n", b"a", b"bc", b"\r"]), max_size=12), st.integers(1, 9))
def test_blank_lines_are_no_records(parts: list[bytes], size: int) -> None:
    content = b"".join(parts)
    records = [line for line in content.split(b"\n") if line.strip(b"\r") or line.count(b"\r") > 1]
    assert sum(count for count, _ in _pieces(content, size, quoted=False)) == len(records)


def test_reading_begins_where_it_is_told(tmp_path: Path) -> None:
    assert _pieces(b"header\none\ntwo\n", 100, begin=7) == [(2, b"one\ntwo\n")]


def test_a_record_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_RECORD_BYTES", 100)
    with pytest.raises(DataInvalid, match=r"begins at byte 2 \(a quote that is not closed\?\)"):
        _pieces(b'a\n"' + b"x\n" * 200, 16)
