"""Writing a simulated log: both files whole under their names at the end, or neither left half done."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import RunInvalid, TargetExists, TargetUnwritable
from training.simulator import log
from training.simulator.log import LOG, TRUTH, simulate
from training.simulator.simulation import Simulation

ROWS = 300


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def at(rows: int, do: Callable[[], Any]) -> Callable[[int], None]:
    """Progress that does something once, when so many rows are made."""
    waiting = [do]

    def told(done: int) -> None:
        if done >= rows and waiting:
            waiting.pop()()

    return told


def test_the_files_hold_the_hours_of_the_simulation_and_nothing_else_is_left(tmp_path: Path) -> None:
    simulate(tmp_path / "new" / "log", rows=ROWS, seed=2, days=2)
    hours = list(Simulation(rows=ROWS, seed=2, days=2).hours())
    assert names(tmp_path / "new" / "log") == [LOG, TRUTH]
    assert pq.read_table(tmp_path / "new" / "log" / LOG).equals(pa.concat_tables(hour.log for hour in hours))
    assert pq.read_table(tmp_path / "new" / "log" / TRUTH).equals(pa.concat_tables(hour.truth for hour in hours))


def test_seed_0_and_two_weeks_are_meant_where_nothing_is_said(tmp_path: Path) -> None:
    simulate(tmp_path, rows=ROWS)
    hours = Simulation(rows=ROWS, seed=0, days=14).hours()
    assert pq.read_table(tmp_path / LOG).equals(pa.concat_tables(hour.log for hour in hours))


@pytest.mark.parametrize("limit", [1, 7, 50])
def test_no_row_group_is_empty_or_larger_than_the_limit(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "MAX_ROW_GROUP", limit)
    simulate(tmp_path, rows=ROWS, days=2)
    for name in (LOG, TRUTH):
        metadata = pq.read_metadata(tmp_path / name)
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        assert sum(sizes) == ROWS
        assert min(sizes) > 0 and max(sizes) == limit


def test_hours_wait_for_one_another_until_the_day_ends(tmp_path: Path) -> None:
    simulate(tmp_path, rows=ROWS, days=3)
    assert [pq.read_metadata(tmp_path / name).num_row_groups for name in (LOG, TRUTH)] == [3, 3]


def test_fewer_rows_than_days_leave_days_without_a_row_group(tmp_path: Path) -> None:
    simulate(tmp_path, rows=2, days=7)
    assert pq.read_metadata(tmp_path / LOG).num_rows == 2
    assert 1 <= pq.read_metadata(tmp_path / LOG).num_row_groups <= 2


def test_progress_is_told_every_hour_of_the_rows_made_so_far(tmp_path: Path) -> None:
    told: list[int] = []
    simulate(tmp_path, rows=ROWS, days=2, on_progress=told.append)
    hours = Simulation(rows=ROWS, seed=0, days=2).hours()
    sizes = [hour.log.num_rows for hour in hours]
    assert told == [sum(sizes[: hour + 1]) for hour in range(48)]


def test_neither_file_has_its_name_before_all_rows_are_made(tmp_path: Path) -> None:
    seen: list[bool] = []
    simulate(
        tmp_path,
        rows=ROWS,
        days=1,
        on_progress=lambda _: seen.append((tmp_path / LOG).exists() or (tmp_path / TRUTH).exists()),
    )
    assert seen == [False] * 24


def test_whoever_hears_no_more_of_progress_is_not_told_that_the_disk_is_at_fault(tmp_path: Path) -> None:
    def gone() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        simulate(tmp_path, rows=ROWS, days=1, on_progress=at(1, gone))
    assert names(tmp_path) == []


@pytest.mark.parametrize("rows", [1, ROWS])
@pytest.mark.parametrize("name", [LOG, TRUTH])
def test_a_file_that_somebody_else_makes_meanwhile_is_not_overwritten(name: str, rows: int, tmp_path: Path) -> None:
    with pytest.raises(TargetExists, match=name):
        simulate(tmp_path, rows=ROWS, days=1, on_progress=at(rows, lambda: (tmp_path / name).write_text("theirs")))
    assert (tmp_path / name).read_text() == "theirs"
    assert not [path for path in names(tmp_path) if path.startswith(".")]


def test_the_log_is_the_last_to_be_published_and_never_without_its_truth(tmp_path: Path) -> None:
    with pytest.raises(TargetExists):
        simulate(tmp_path, rows=ROWS, days=1, on_progress=at(ROWS, lambda: (tmp_path / LOG).write_text("theirs")))
    assert pq.read_table(tmp_path / TRUTH).num_rows == ROWS
    (tmp_path / LOG).unlink()
    (tmp_path / TRUTH).unlink()
    with pytest.raises(TargetExists):
        simulate(tmp_path, rows=ROWS, days=1, on_progress=at(ROWS, lambda: (tmp_path / TRUTH).write_text("theirs")))
    assert names(tmp_path) == [TRUTH]


@pytest.mark.parametrize("name", [LOG, TRUTH])
def test_a_link_to_nowhere_is_there_already(name: str, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TargetExists, match="never overwritten"):
        simulate(tmp_path, rows=ROWS, days=1)
    assert names(tmp_path) == [name]


def test_a_disk_that_fills_up_is_named_with_its_reason_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TargetUnwritable, match=rf"cannot be written \({os.strerror(errno.ENOSPC)}\)") as caught:
        simulate(tmp_path / "log", rows=ROWS, days=1)
    assert str(tmp_path / "log") in str(caught.value)
    assert names(tmp_path / "log") == []


def test_both_files_are_on_the_disk_before_either_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[int, list[str]]] = []
    fsync = os.fsync

    def watched(file: int) -> None:
        synced.append((os.fstat(file).st_ino, [name for name in names(tmp_path) if not name.startswith(".")]))
        fsync(file)

    monkeypatch.setattr(os, "fsync", watched)
    simulate(tmp_path, rows=ROWS, days=1)
    assert {inode for inode, _ in synced} == {(tmp_path / name).stat().st_ino for name in (LOG, TRUTH)}
    assert [published for _, published in synced] == [[], []]


def test_other_files_of_the_directory_stay(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    simulate(tmp_path, rows=ROWS, days=1)
    assert names(tmp_path) == [LOG, "notes", TRUTH]


@pytest.mark.parametrize(("rows", "days", "seed"), [(0, 1, 0), (-3, 1, 0), (10, 0, 0), (10, 1, -1)])
def test_what_is_impossible_is_refused_before_anything_is_made(rows: int, days: int, seed: int, tmp_path: Path) -> None:
    with pytest.raises(RunInvalid, match="at least 1 row, 1 day and a seed of 0 or more"):
        simulate(tmp_path / "log", rows=rows, days=days, seed=seed)
    assert names(tmp_path) == []
