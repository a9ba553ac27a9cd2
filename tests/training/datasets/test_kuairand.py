"""training/datasets/kuairand.py: logs, users and videos become one log, split by date."""

import random
from pathlib import Path

import pyarrow.parquet
import pytest

from contract.errors import ColumnMissing, DataInvalid, EmptySplit, LabelInvalid, SourceMissing
from tests.training.datasets.learning import learn
from training.datasets.kuairand import (
    USER_CODES,
    USER_NUMBERS,
    USER_TEXT,
    VIDEO_CODES,
    VIDEO_NUMBERS,
    VIDEO_TEXT,
    convert,
)

LOG = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
)
EARLY, LATE = "log_standard_4_08_to_4_21_pure.csv", "log_standard_4_22_to_5_08_pure.csv"
RANDOM, USERS, VIDEOS = "log_random_4_22_to_5_08_pure.csv", "user_features_pure.csv", "video_features_basic_pure.csv"
USER_ROWS = (*USER_TEXT, *USER_CODES, *USER_NUMBERS)
VIDEO_ROWS = (*VIDEO_TEXT, *VIDEO_CODES, *VIDEO_NUMBERS, "upload_dt", "server_width")


def _log(rows: int, dates: tuple[int, ...], seed: int, shown_at_random: int = 0) -> str:
    """Users 0 to 9, of whom 9 has no features; videos 0 to 7, of which 7 has none."""
    draw, lines = random.Random(seed), [LOG]
    for row in range(rows):
        click, like, long_view = (int(draw.random() < share) for share in (0.5, 0.2, 0.5))
        values = [
            draw.randrange(10),
            draw.randrange(8),
            dates[row % len(dates)],
            100 * draw.randrange(24),
            1649400000000,
        ]
        values += [click, like, 0, 0, 0, 0, long_view, 5000, 9000, 0, 0, 0, shown_at_random, draw.randrange(3)]
        lines.append(",".join(map(str, values)))
    return "\n".join(lines) + "\n"


def _features(key: str, ids: int, names: tuple[str, ...], last: dict[str, str]) -> str:
    """Text is the id in a range with a comma, codes are floats as pandas writes them, some missing."""
    lines = [",".join([key, *names, *last])]
    for number in range(ids):
        cells = [str(number)]
        for name in names:
            text = name in USER_TEXT or name in VIDEO_TEXT
            cells.append(f'"({number % 3},10]"' if text else "" if (number + len(name)) % 5 == 0 else f"{number % 4}.0")
        lines.append(",".join([*cells, *last.values()]))
    return "\n".join(lines) + "\n"


def _source(folder: Path, rows: int = 60, **replaced: str) -> Path:
    (folder / "data").mkdir(parents=True)
    files = {
        EARLY: _log(rows, (20220408, 20220421), 1),
        LATE: _log(rows, (20220422, 20220428, 20220429, 20220508), 2),
        RANDOM: _log(rows // 2, (20220422,), 3, shown_at_random=1),
        USERS: _features("user_id", 9, USER_ROWS, {}),
        VIDEOS: _features("video_id", 7, VIDEO_ROWS, {"tag": '"12,65"'}),
    } | replaced
    for name, text in files.items():
        (folder / "data" / name).write_text(text)
    return folder


def _columns(path: Path) -> dict[str, list[object]]:
    columns: dict[str, list[object]] = pyarrow.parquet.read_table(path).to_pydict()
    return columns


def test_dates_decide_the_split_and_random_videos_have_a_file_of_their_own(tmp_path: Path) -> None:
    out = convert(_source(tmp_path / "source"), tmp_path / "out")
    found = {split: _columns(out / f"{split}.parquet") for split in ("train", "validation", "test", "random")}
    assert {split: len(columns["date"]) for split, columns in found.items()} == {
        "train": 60,
        "validation": 30,
        "test": 30,
        "random": 30,
    }
    assert set(found["validation"]["date"]) == {20220422, 20220428}
    assert set(found["test"]["date"]) == {20220429, 20220508}
    assert set(found["random"]["is_rand"]) == {1} and set(found["train"]["is_rand"]) == {0}
    assert f"--set data.test_path={out / 'random.parquet'}" in (out / "run.toml").read_text()


def test_every_row_has_the_values_of_its_log_its_user_and_its_video(tmp_path: Path) -> None:
    source = _source(tmp_path / "source")
    found = _columns(convert(source, tmp_path / "out") / "train.parquet")
    lines = [line.split(",") for line in (source / "data" / EARLY).read_text().splitlines()]
    for name in ("user_id", "video_id", "date", "hourmin", "is_click", "is_like", "long_view", "duration_ms", "tab"):
        assert found[name] == [int(line[lines[0].index(name)]) for line in lines[1:]], name
    for row in range(60):
        user, video = int(lines[1 + row][0]), int(lines[1 + row][1])
        click, like, long_view = (int(lines[1 + row][column]) for column in (5, 6, 11))
        assert found["hour"][row] == int(lines[1 + row][3]) // 100
        assert found["clicked_long_view"][row] == click * long_view
        assert found["clicked_like"][row] == click * like
        for names, number, known in ((USER_ROWS, user, user < 9), (VIDEO_ROWS[:-2], video, video < 7)):
            for name in names:
                text = name in USER_TEXT or name in VIDEO_TEXT
                value = f"({number % 3},10]" if text else None if (number + len(name)) % 5 == 0 else number % 4
                assert found[name][row] == (value if known else None), name
        assert found["tag"][row] == ([12, 65] if video < 7 else None)


def test_the_run_learns_and_reads_nothing_that_is_known_only_afterwards(tmp_path: Path) -> None:
    log = learn(convert(_source(tmp_path / "source", 200), tmp_path / "out"))
    assert [log.log.rows(split) for split in range(3)] == [200, 100, 100]
    names = {feature.name for feature in log.run.features}
    assert {"user_id", "video_id", "tag", "hour", "tab", "onehot_feat17", "video_duration"} <= names
    assert not [name for name in names if name.startswith(("is_click", "is_like", "long", "play", "clicked", "date"))]
    assert [task.label for task in log.run.tasks] == ["is_click", "clicked_long_view"]


@pytest.mark.parametrize(
    ("name", "old", "new", "kind", "message"),
    [
        (LATE, "is_like", "liked", ColumnMissing, "line 1: no column 'is_like'"),
        (EARLY, ",20220421,", ",", DataInvalid, "line 3: Expected 19 columns, got 18"),
        (RANDOM, "1649400000000,", "1649400000000,3", LabelInvalid, "line 2: is_click is 3"),
        (USERS, "3.0", "3.5", DataInvalid, "line 5: is_lowactive_period is 3.5, no whole number"),
        (VIDEOS, "12,65", "12,old", DataInvalid, "line 2: tag is '12,old'"),
    ],
)
def test_a_file_of_another_form_is_refused(
    tmp_path: Path, name: str, old: str, new: str, kind: type[DataInvalid], message: str
) -> None:
    path = _source(tmp_path / "source") / "data" / name
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(kind, match=rf"{name}, {message}"):
        convert(tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [RANDOM, USERS, VIDEOS])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (_source(tmp_path / "source") / "data" / name).unlink()
    with pytest.raises(SourceMissing, match=f"no file {name.split('4')[0]}"):
        convert(tmp_path / "source", tmp_path / "out")


def test_half_of_the_logs_is_not_enough(tmp_path: Path) -> None:
    (_source(tmp_path / "source") / "data" / LATE).unlink()
    with pytest.raises(EmptySplit, match="validation"):
        convert(tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out").exists()
