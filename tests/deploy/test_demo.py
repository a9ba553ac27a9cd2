"""deploy/demo.py: serves a bundle, asks about the log's last rows, shows the best, and leaves nothing running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from contract.bundle import CARD, read_bundle
from deploy.demo import CANDIDATES, SHOWN, request_from
from tests.service.toy_bundle import publish_toy

ROOT = Path(__file__).parents[2]
ROWS = 250


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of three row groups whose last has fewer rows than are asked about."""
    table = pa.table(
        {
            "user_id": [f"u{row}" for row in range(ROWS)],
            "city": ["Shanghai", None] * (ROWS // 2),
            "age": [float("nan") if row % 2 else 30.0 for row in range(ROWS)],
            "recent_items": [["i1"] * (row % 3) for row in range(ROWS)],
            "recent_actions": [["buy"] * (row % 3) for row in range(ROWS)],
            "item_id": [f"i{row % 7}" for row in range(ROWS)],
            "category": pa.array([row % 4 for row in range(ROWS)], pa.int64()),
            "price": [float(row) for row in range(ROWS)],
            "tags": pa.array([[1, 2]] * ROWS, pa.list_(pa.int64())),
            "click": [0] * ROWS,
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "log.parquet", row_group_size=120)
    return tmp_path / "log.parquet"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The toy bundle, published."""
    publish_toy(tmp_path / "toy")
    return tmp_path / "toy"


def _start(bundle: Path, log: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, str(ROOT / "deploy" / "demo.py"), str(bundle), str(log)]
    environment = {**os.environ, "COLUMNS": "120", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    )


def _group_is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_request_is_one_user_and_the_last_rows_as_candidates(bundle: Path, log: Path) -> None:
    request = request_from(log, read_bundle(bundle).manifest)
    assert request["user"]["user_id"] == f"u{ROWS - 1}"
    assert request["user"]["age"] is None, "a missing number is null"
    assert set(request["candidates"]) == {"item_id", "category", "price", "tags"}
    assert request["candidates"]["price"] == [float(row) for row in range(ROWS - CANDIDATES, ROWS)]
    assert (request["order_by"], request["top_k"]) == ("pctcvr", SHOWN)


def test_the_best_candidates_are_shown_and_nothing_is_left_running(bundle: Path, log: Path) -> None:
    demo = _start(bundle, log)
    output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, output
    assert f"the best {SHOWN} of {CANDIDATES} candidates by pctcvr" in output
    assert f"digest {read_bundle(bundle).digest[:12]}" in output
    rows = [line.split("│") for line in output.splitlines() if line.startswith("│")]
    scores = [[float(cell) for cell in row[3:6]] for row in rows]
    assert len(scores) == SHOWN
    assert [row[2] for row in scores] == sorted((row[2] for row in scores), reverse=True)
    assert all(abs(pctr * pcvr - pctcvr) < 2e-6 for pctr, pcvr, pctcvr in scores)
    assert _group_is_gone(demo.pid)


def test_ctrl_c_stops_the_service_too(bundle: Path, log: Path) -> None:
    demo = _start(bundle, log)
    assert demo.stdout is not None
    while "listening" not in demo.stdout.readline():
        assert demo.poll() is None
    os.killpg(demo.pid, signal.SIGINT)
    output, _ = demo.communicate(timeout=60)
    assert demo.returncode in {0, 130}, output  # 0 where the answer was there already
    assert "Traceback" not in output
    deadline = time.monotonic() + 30
    while not _group_is_gone(demo.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("missing", ["bundle", "log", "file"])
def test_what_is_missing_or_damaged_ends_in_one_message(bundle: Path, log: Path, missing: str) -> None:
    if missing == "file":
        (bundle / CARD).unlink()
    demo = _start(
        bundle if missing != "bundle" else bundle / "no", log if missing != "log" else log.with_suffix(".absent")
    )
    output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert output.startswith("demo: ") and "Traceback" not in output
