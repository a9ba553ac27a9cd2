"""`python -m benchmarks.doors`, on a small table: every door, every format."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from benchmarks.doors import MEDIA_TYPES, difference, encoded, main
from tests.service.batch.tables import toy_table, write
from tests.service.toy_bundle import publish_toy


def test_all_doors_give_the_same_scores_in_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = tmp_path / "toy"
    publish_toy(toy)
    log = write(toy_table(3000, users=40), tmp_path / "log.parquet")
    assert main(["--bundle", str(toy), "--log", str(log)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("3,000 rows; ")
    assert all(f"| {door} | {kind} | " in said for door in ("fullfunnel score", "/v1/score") for kind in MEDIA_TYPES)


def test_a_difference_in_any_row_or_order_is_seen() -> None:
    right = {"pctr": np.array([0.1, 0.2, 0.3], np.float32)}
    assert difference(right, right) == 0
    assert difference({"pctr": right["pctr"][::-1]}, right) == pytest.approx(0.2)
    with pytest.raises(SystemExit, match="not the same"):
        difference({"pctr": right["pctr"][:2]}, right)


def test_lists_are_json_in_csv() -> None:
    table = pa.table({"a": pa.array([["x", None], None, []], pa.list_(pa.string()))})
    assert encoded(table, "csv") == b'"a"\n"[""x"",null]"\n\n"[]"\n'
