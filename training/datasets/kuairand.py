"""KuaiRand-Pure: was a recommended video clicked, and then watched for long? With a log of videos shown at random.

Knows the publisher's logs, users and videos. Does not know the videos' daily statistics, which tell the labels' future.

Publisher: Gao et al. 2022 (doi 10.1145/3511808.3557624), https://kuairand.com, files at
https://zenodo.org/records/10439422. Terms: CC BY-SA 4.0. Form: comma-separated, with headers.
Fields: `is_click` is a click in the two-column page, and in the one-column page a play of more than 7 s (or of the
whole video); `long_view` is a play of 18 s or more (or of the whole video).
NOTE[DIFF] The data hold no purchase. NISE (Huang et al. 2024, doi 10.1145/3640457.3688151) reports a CVR on them; its
abstract does not say what it counts as a conversion, nor how it splits. Here a conversion is a long view after a click,
`clicked_long_view`, the next deeper step by the fields' definitions, with `clicked_like` beside it; the first two weeks
train, the next week validates, the rest tests. Figures are comparable with NISE's only as far as that agrees.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from contract.errors import DataInvalid, EmptySplit, SourceMissing
from training.datasets import Report, silent
from training.datasets.delimited import Block, blocks, find
from training.datasets.output import Keys, Output, categorical, funnel, numeric, publishing, sequence

VALIDATION_DATE, TEST_DATE = 20220422, 20220429  # the first of each
FLAGS = ("is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view")
LOG = ("user_id", "video_id", "date", "hourmin", "time_ms", *FLAGS, "play_time_ms", "duration_ms", "is_rand", "tab")
USER_TEXT = (
    "user_active_degree", "follow_user_num_range", "fans_user_num_range", "friend_user_num_range",
    "register_days_range",
)  # fmt: skip
USER_CODES = (
    "is_lowactive_period", "is_live_streamer", "is_video_author", *(f"onehot_feat{number}" for number in range(18)),
)  # fmt: skip
USER_NUMBERS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
VIDEO_TEXT = ("video_type", "upload_type")
VIDEO_CODES = ("author_id", "music_id", "music_type")
VIDEO_NUMBERS = ("video_duration",)
COMMENT = """KuaiRand-Pure: click, and long view given click; ESMM (Ma et al. 2018).
random.parquet holds videos shown at random: --set data.test_path={random} tests on them.
For likes after a click, set the second label to "clicked_like". Data: CC BY-SA 4.0, Gao et al. 2022."""


@dataclass(frozen=True)
class Entities:
    """Users or videos: their ids, and their columns in the same order."""

    ids: pa.Array
    columns: pa.Table

    def of(self, ids: pa.Array) -> pa.Table:
        """The columns of some ids; null where an id is not known."""
        return self.columns.take(pc.index_in(ids, value_set=self.ids))


def convert(source: Path, target: Path, report: Report = silent) -> Path:
    """Write train, validation, test and random.parquet and run.toml into the folder `target`, and return it.

    `source` is the unpacked folder: log_standard_*.csv, log_random_*.csv, user_features_pure.csv and
    video_features_basic_pure.csv. Users and videos without features have null in their place.
    Raises: SourceMissing, ColumnMissing, LabelInvalid, EmptySplit, DataInvalid, TargetUnwritable.
    """
    standard, shuffled = _logs(source, "log_standard_"), _logs(source, "log_random_")
    users = _entities(
        find(source, "user_features_pure.csv"), "user_id", USER_TEXT, USER_CODES, USER_NUMBERS, report=report
    )
    videos = _entities(
        find(source, "video_features_basic_pure.csv"),
        "video_id",
        (*VIDEO_TEXT, "tag"),
        VIDEO_CODES,
        VIDEO_NUMBERS,
        report=report,
    )
    types = dict.fromkeys(LOG, pa.int64())
    with publishing(target) as output:
        for path in shuffled:
            for block in blocks(path, types, report=report):
                output.write("random.parquet", _joined(block, users, videos))
        for path in standard:
            for block in blocks(path, types, report=report):
                _split(output, _joined(block, users, videos))
        for name in ("train", "validation", "test"):
            if not output.rows[f"{name}.parquet"]:
                raise EmptySplit(
                    f"no row has a date of the {name} split", place=str(source), remedy="give all of log_standard_*.csv"
                )
        output.write_run(COMMENT.format(random=target / "random.parquet"), _run())
    return target


def _logs(source: Path, start: str) -> list[Path]:
    paths = sorted(path for path in source.rglob(f"{start}*") if path.name.endswith(("_pure.csv", "_pure.csv.gz")))
    if not paths:
        raise SourceMissing(
            f"no file {start}*_pure.csv", place=str(source), remedy="give the unpacked folder of KuaiRand-Pure"
        )
    return paths


def _entities(
    path: Path, key: str, text: Sequence[str], codes: Sequence[str], numbers: Sequence[str], *, report: Report
) -> Entities:
    """All rows of a features file: a few thousand; whole numbers are written there as 4 or as 4.0."""
    types: Mapping[str, pa.DataType] = {
        key: pa.int64(),
        **dict.fromkeys(text, pa.string()),
        **dict.fromkeys((*codes, *numbers), pa.float64()),
    }
    ids, tables = [], []
    for block in blocks(path, types, quoted=True, report=report):
        columns = {name: block.column(name) for name in text if name != "tag"}
        columns |= {name: _whole(block, name) for name in codes}
        columns |= {name: block.column(name).cast(pa.float32()) for name in numbers}
        if "tag" in text:
            columns["tag"] = _tags(block)
        ids.append(block.column(key))
        tables.append(pa.table(columns))
    return Entities(pa.concat_arrays(ids), pa.concat_tables(tables).combine_chunks())


def _whole(block: Block, name: str) -> pa.Array:
    values = block.column(name)
    for row in pc.indices_nonzero(pc.not_equal(values, pc.floor(values))).to_pylist()[:1]:
        raise DataInvalid(
            f"{name} is {values[row].as_py()}, no whole number", place=block.place(row), remedy="fetch the file again"
        )
    return values.cast(pa.int64())


def _tags(block: Block) -> pa.Array:
    """`12,65` is two tags."""
    lists = pc.split_pattern(block.column("tag"), ",")
    try:
        return lists.cast(pa.list_(pa.int64()))
    except pa.ArrowInvalid:
        texts = block.column("tag").to_pylist()
    row = next(row for row, text in enumerate(texts) if text and not text.replace(",", "").isdigit())
    raise DataInvalid(f"tag is {texts[row]!r}, no list of numbers", place=block.place(row), remedy="fetch it again")


def _joined(block: Block, users: Entities, videos: Entities) -> pa.Table:
    columns = {name: block.column(name) for name in LOG}
    columns |= {name: block.flag(name) for name in (*FLAGS, "is_rand")}
    columns["hour"] = pc.divide(columns["hourmin"], 100)
    columns["clicked_long_view"] = pc.bit_wise_and(columns["is_click"], columns["long_view"])
    columns["clicked_like"] = pc.bit_wise_and(columns["is_click"], columns["is_like"])
    for entities, key in ((users, "user_id"), (videos, "video_id")):
        found = entities.of(columns[key])
        columns |= {name: found[name] for name in found.column_names}
    return pa.table(columns)


def _split(output: Output, table: pa.Table) -> None:
    date = table["date"]
    output.write("train.parquet", table.filter(pc.less(date, VALIDATION_DATE)))
    middle = pc.and_(pc.greater_equal(date, VALIDATION_DATE), pc.less(date, TEST_DATE))
    output.write("validation.parquet", table.filter(middle))
    output.write("test.parquet", table.filter(pc.greater_equal(date, TEST_DATE)))


def _run() -> Keys:
    return {
        "name": "kuairand",
        "description": "ESMM on KuaiRand-Pure",
        "seed": 1,
        "data": {"path": "train.parquet", "validation_path": "validation.parquet", "test_path": "test.parquet"},
        "model": {"architecture": "separate_towers", "tower": [128, 64], "dropout": 0.1},
        "training": {"objective": "entire_space", "epochs": 3, "evaluations_per_epoch": 4, "patience": 3},
        "evaluation": {"group": "user_id"},
        "tasks": funnel("is_click", "clicked_long_view"),
        "features": [
            *(categorical(name, "user") for name in ("user_id", "tab", "hour", *USER_TEXT, *USER_CODES)),
            *(numeric(name, "user", scale="log1p") for name in USER_NUMBERS),
            *(categorical(name, "item") for name in ("video_id", *VIDEO_TEXT, *VIDEO_CODES)),
            numeric("video_duration", "item", scale="log1p"),
            sequence("tag", "item"),
        ],
    }
