"""Files that are broken, or made to hurt: a clear error, bounded memory, and nothing that looks like an output."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tests.service.batch.tables import SCHEMA, toy_table

MAX_MIB = 1024
PATIENCE_S = 120
# a process of its own starts it: the peak of a child begins with what its parent held when it forked
LAUNCH = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, file=sys.stderr)
sys.exit(status)
"""
TABLE = toy_table(1000)
MIB = 2**20


def score(toy: Path, source: Path, *options: str) -> tuple[int, str, int]:
    """Exit status, what was said, and the peak of memory in MiB."""
    command = [sys.executable, "-m", "cli.main", "score", toy, source, source.parent / "out.parquet", "--workers", "1"]
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, *map(str, command), *options], capture_output=True, text=True, timeout=PATIENCE_S
    )
    said, _, peak = done.stderr.rpartition("peak ")
    return done.returncode, said, int(peak)


def replaced(name: str, values: pa.Array) -> pa.Table:
    return TABLE.set_column(SCHEMA.get_field_index(name), name, values)


def repeated_string(path: Path) -> None:
    """A string of 16 MiB thirty times: 12 KiB on disk, half a gigabyte unfolded."""
    pq.write_table(replaced("city", pa.array(["x" * 16 * MIB] * 30 + ["a"] * 970)), path, compression="zstd")


def endless_list(path: Path) -> None:
    row = [["i1"] * 2_000_000] + [[]] * 999
    pq.write_table(replaced("recent_items", pa.array(row, pa.list_(pa.string()))), path)


def endless_arrow_string(path: Path) -> None:
    table = replaced("city", pa.array(["y" * 128 * MIB] + ["a"] * 999))
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def endless_csv_line(path: Path) -> None:
    path.write_bytes(b"user_id,item_id\nu1," + b"x" * 300 * MIB + b"\n")


def endless_json_line(path: Path) -> None:
    path.write_bytes(b'{"user_id":"' + b"x" * 300 * MIB + b'"}\n')


def nested_json(path: Path) -> None:
    path.write_bytes(b'{"user_id":' + b"[" * 10 * MIB + b"\n")


def number_as_text(path: Path) -> None:
    pq.write_table(replaced("price", pa.array(["dear"] * 1000)), path)


def column_gone(path: Path) -> None:
    pq.write_table(TABLE.drop_columns(["item_id"]), path)


def many_csv_columns(path: Path) -> None:
    pyarrow.csv.write_csv(pa.table({f"x{number}": [1, 2] for number in range(10_000)}), path)


def cut_short(path: Path) -> None:
    pq.write_table(TABLE, path)
    path.write_bytes(path.read_bytes()[:-100])


def no_parquet(path: Path) -> None:
    path.write_bytes(b"PAR1" + b"\0" * 1000 + b"PAR1")


def nothing(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("make", "ending", "fact"),
    [
        (repeated_string, "parquet", "city: is longer than 1024 bytes"),
        (endless_list, "parquet", "row 0: cannot be scored"),
        (endless_arrow_string, "arrow", "city: is longer than 1024 bytes"),
        (endless_csv_line, "csv", "a record of more than 256 MiB"),
        (endless_json_line, "ndjson", "a record of more than 256 MiB"),
        (nested_json, "ndjson", "in.ndjson"),
        (number_as_text, "parquet", "price"),
        (column_gone, "parquet", "no column 'item_id'"),
        (many_csv_columns, "csv", "no column"),
        (cut_short, "parquet", "in.parquet: cannot be read"),
        (no_parquet, "parquet", "in.parquet: cannot be read"),
        (nothing, "parquet", "in.parquet: cannot be read"),
        (nothing, "arrow", "in.arrow: cannot be read"),
        (nothing, "csv", "in.csv"),
        (nothing, "ndjson", "in.ndjson"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_what_cannot_be_scored_is_told_in_bounded_memory_and_leaves_nothing(
    toy: Path, tmp_path: Path, make: Callable[[Path], None], ending: str, fact: str
) -> None:
    source = tmp_path / f"in.{ending}"
    make(source)
    status, said, peak = score(toy, source)
    assert status == 1 and said.startswith("fullfunnel score: ") and fact in said and source.name in said
    assert "Traceback" not in said and len(said) < 2000 and re.search(r"Remedy: \w", said)
    assert peak < MAX_MIB
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_ten_thousand_columns_beside_the_features_cost_nothing(toy: Path, tmp_path: Path) -> None:
    more = {f"x{number}": pa.array([number] * 1000) for number in range(10_000)}
    pq.write_table(pa.table({**{name: TABLE[name] for name in TABLE.column_names}, **more}), tmp_path / "in.parquet")
    status, _, peak = score(toy, tmp_path / "in.parquet")
    assert status == 0 and peak < MAX_MIB
    assert pq.read_metadata(tmp_path / "out.parquet").num_rows == 1000


def test_a_damaged_file_is_scored_whole_or_refused(toy: Path, tmp_path: Path) -> None:
    rng = random.Random(5)
    pq.write_table(TABLE, tmp_path / "whole.parquet", row_group_size=250)
    whole = (tmp_path / "whole.parquet").read_bytes()
    refused = 0
    for number in range(12):
        folder = tmp_path / str(number)
        folder.mkdir()
        content = bytearray(whole)
        for _ in range(3):
            content[rng.randrange(len(content))] = rng.randrange(256)
        (folder / "in.parquet").write_bytes(content)
        status, said, peak = score(toy, folder / "in.parquet")
        assert status in (0, 1) and "Traceback" not in said and peak < MAX_MIB
        refused += status
        left = {path.name for path in folder.iterdir()} - {"in.parquet"}
        if status == 0:
            assert pq.read_metadata(folder / "out.parquet").num_rows == 1000
            assert json.loads((folder / "out.parquet.success.json").read_text())["rows"] == 1000
        else:
            assert left <= {".out.parquet.job"}
    assert refused > 0
