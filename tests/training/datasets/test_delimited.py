"""training/datasets/delimited.py: text arrives value by value, and what is wrong with it is told with file and line."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from contract.errors import ColumnMissing, DataInvalid, FullfunnelError, LabelInvalid, SourceMissing
from training.datasets import delimited
from training.datasets.delimited import blocks, find

TYPES = {"b": pa.int64(), "a": pa.string()}
ROWS = 5000
TEXT = "a,b,c\n" + "".join(f"x{row},{row},{row}\n" for row in range(ROWS))


def _read(path: Path) -> dict[str, list[object]]:
    columns: dict[str, list[object]] = pa.Table.from_batches([block.rows for block in blocks(path, TYPES)]).to_pydict()
    return columns


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_plain_and_gzip_hold_the_same_values(tmp_path: Path) -> None:
    plain = _write(tmp_path / "log.csv", TEXT)
    packed = tmp_path / "log.csv.gz"
    packed.write_bytes(gzip.compress(TEXT.encode()))
    assert _read(plain) == {"b": list(range(ROWS)), "a": [f"x{row}" for row in range(ROWS)]}
    assert _read(packed) == _read(plain)


def test_blocks_know_their_lines_and_a_report_hears_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 1000)
    path, told = _write(tmp_path / "log.csv", TEXT), list[tuple[str, int]]()
    found = list(blocks(path, TYPES, report=lambda file, rows: told.append((file, rows))))
    assert len(found) > 10
    assert all(block.line == block.column("b")[0].as_py() + 2 for block in found)
    assert told[-1] == ("log.csv", ROWS)
    assert found[3].place(5) == f"{path}, line {found[3].line + 5}"


def test_a_file_without_a_header_has_the_names_it_is_given(tmp_path: Path) -> None:
    path = _write(tmp_path / "log.tsv", 'x\t1\ny"\t2\n')
    (block,) = blocks(path, TYPES, names=("a", "b"), delimiter="\t")
    assert block.rows.to_pydict() == {"b": [1, 2], "a": ["x", 'y"']}
    assert block.line == 1


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (
            lambda text: text.replace("x4000,4000,4000", "x4000,4000"),
            DataInvalid,
            "line 4002: Expected 3 columns, got 2",
        ),
        (lambda text: text.replace("x4000,4000", "x4000,soon"), DataInvalid, "line 4002: column 'b': .*'soon'"),
        (lambda text: text.replace("a,b,c", "a,q,c"), ColumnMissing, "line 1: no column 'b'"),
        (lambda text: "a,b,c\n", DataInvalid, "line 2: holds no row"),
        (lambda text: "", DataInvalid, "line 1: Empty CSV file"),
    ],
    ids=["a field less", "a word for a number", "a column less", "no row", "nothing"],
)
def test_what_is_wrong_is_told_with_file_and_line(
    tmp_path: Path, damage: Callable[[str], str], kind: type[FullfunnelError], message: str
) -> None:
    path = _write(tmp_path / "log.csv", damage(TEXT))
    with pytest.raises(kind, match=re.escape(f"{path}, ") + message):
        _read(path)


def test_a_gzip_cut_short_is_told_with_the_last_line_that_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 1000)
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(TEXT.encode())[:-2000])
    with pytest.raises(DataInvalid, match=r"log\.csv\.gz, after line [1-9]\d+: Truncated"):
        _read(path)


def test_a_flag_is_0_or_1(tmp_path: Path) -> None:
    path = _write(tmp_path / "log.csv", "a,b\nx,1\ny,0\nz,2\n")
    (block,) = blocks(path, TYPES)
    with pytest.raises(LabelInvalid, match=r"log\.csv, line 4: b is 2"):
        block.flag("b")
    (block,) = blocks(_write(tmp_path / "empty.csv", "a,b\nx,1\ny,\n"), TYPES)
    with pytest.raises(LabelInvalid, match=r"empty\.csv, line 3: b is None"):
        block.flag("b")
    (block,) = blocks(_write(tmp_path / "good.csv", "a,b\nx,1\ny,0\n"), TYPES)
    assert block.flag("b").to_pylist() == [1, 0]


def test_a_file_is_found_at_any_depth_and_packed_or_not(tmp_path: Path) -> None:
    (tmp_path / "one" / "two").mkdir(parents=True)
    path = _write(tmp_path / "one" / "two" / "log.csv.gz", "")
    assert find(tmp_path, "log.csv") == path
    assert find(path, "log.csv") == path
    _write(tmp_path / "log.csv", "")
    with pytest.raises(DataInvalid, match=r"2 files log\.csv"):
        find(tmp_path, "log.csv")
    with pytest.raises(SourceMissing, match=r"no file other\.csv"):
        find(tmp_path, "other.csv")
