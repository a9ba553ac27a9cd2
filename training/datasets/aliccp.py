"""Ali-CCP: was a recommended Taobao item clicked, and then bought? The log of the ESMM paper, 80 million rows.

Knows the publisher's skeletons and common features. Does not hold either in memory: both are cut into partitions by
the common feature index on disk, and joined partition by partition.

Publisher: Alimama, "Alibaba Click and Conversion Prediction", https://tianchi.aliyun.com/dataset/408 (an account is
needed), after Ma et al. 2018 (arXiv 1804.07931), section 3.1. Terms: those on its page; no licence text is known here,
so do not pass the files on. Form: comma-separated, without headers.
  sample_skeleton_{train,test}.csv: sample id, click, purchase, common feature index, number of features, features
  common_features_{train,test}.csv: common feature index, number of features, features
Features are joined by \\x01, and each is FIELD \\x02 ID \\x03 VALUE. Train and test are the paper's halves in time.
NOTE[DIFF] The user's histories (109_14, 110_14, 127_14, 150_14) hold hundreds of ids; the STEPS of the largest value
are kept, the largest last, so that the log stays of a size to work with.
NOTE[DIFF] Rows with a purchase but no click contradict the funnel, and are left out.
Rows of the output stand in the order of their partitions, and in the file's order within each.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.errors import DataInvalid
from training.datasets import Report, silent
from training.datasets.delimited import AGAIN, Block, blocks, find
from training.datasets.output import Keys, Output, categorical, funnel, numeric, publishing, sequence
from training.datasets.partitions import Partitions

STEPS = 20
PARTITION_BYTES = 2**27  # of the common features' text; a partition of their columns is smaller
MAX_PARTITIONS = 512  # files that are open at once
INFLATED = 8  # bytes of text in a byte of gzip, about
COMMON_NAMES = ("key", "count", "features")
SKELETON_NAMES = ("sample_id", "click", "conversion", *COMMON_NAMES)
TYPES = {
    "sample_id": pa.string(), "click": pa.int8(), "conversion": pa.int8(),
    "key": pa.string(), "count": pa.int64(), "features": pa.string(),
}  # fmt: skip
FEATURE = "^(?P<field>[^\x02]+)\x02(?P<id>[0-9]{1,18})\x03(?P<value>-?[0-9]+(?:\\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)$"

USER = {
    "101": "user_id", "121": "profile", "122": "profile_group", "124": "gender", "125": "age", "126": "consumption_1",
    "127": "consumption_2", "128": "occupation", "129": "geography",
}  # fmt: skip
USER_LISTS = {"109_14": "categories", "110_14": "shops", "127_14": "brands", "150_14": "intentions"}
ITEM = {"205": "item_id", "206": "category", "207": "shop", "216": "brand"}
ITEM_LISTS = {"210": "intention"}
# history x item: an id, and the value of the item's category, shop, brand or intention in the user's history
MATCHES = {"508": "category_match", "509": "shop_match", "702": "brand_match", "853": "intention_match"}
SCENE = {"301": "scene"}
COMMENT = """Ali-CCP: click, and purchase given click; ESMM (Ma et al. 2018, table 2) over the entire space.
{dropped:,} rows with a purchase but no click are left out; {alone:,} rows have no common features, which are null."""


@dataclass(frozen=True)
class Exploded:
    """The features of a block's rows: field, id and value of each, and the row that it belongs to."""

    rows: int
    row: NDArray[np.int64]
    field: pa.Array
    id: NDArray[np.int64]
    value: NDArray[np.float32]

    def strongest(self, field: str, keep: int) -> NDArray[np.int64]:
        """Where the `keep` features of the largest value of each row are, by row, the largest last."""
        found = np.flatnonzero(pc.equal(self.field, field).to_numpy(zero_copy_only=False))
        found = found[np.lexsort((self.value[found], self.row[found]))]
        end = np.searchsorted(self.row[found], self.row[found], side="right")
        return found[end - np.arange(len(found)) <= keep]

    def one(self, field: str, values: NDArray[np.int64] | NDArray[np.float32]) -> pa.Array:
        """Of each row the entry of `values` (ids or values) for the field, or null."""
        found = self.strongest(field, 1)
        out, absent = np.zeros(self.rows, values.dtype), np.ones(self.rows, np.bool_)
        out[self.row[found]], absent[self.row[found]] = values[found], False
        return pa.array(out, mask=absent)

    def many(self, field: str) -> pa.Array:
        """Of each row the list of ids of the field, of at most STEPS."""
        found = self.strongest(field, STEPS)
        offsets = np.searchsorted(self.row[found], np.arange(self.rows + 1)).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(self.id[found]))

    def columns(self, single: Mapping[str, str], lists: Mapping[str, str]) -> dict[str, pa.Array]:
        """Columns by their names."""
        return {name: self.one(field, self.id) for field, name in single.items()} | {
            name: self.many(field) for field, name in lists.items()
        }


def convert(source: Path, target: Path, report: Report = silent) -> Path:
    """Write train.parquet, test.parquet and run.toml into the folder `target`, and return it.

    `source` is a folder with the four files, at any depth. Ids are int64; histories are lists, empty where the user
    has none; where a row has no common features, the user's columns are null. Needs about as much disk beside
    `target` as the output.
    Raises: SourceMissing, LabelInvalid, DataInvalid, TargetUnwritable.
    """
    files = [
        (split, find(source, f"sample_skeleton_{split}.csv"), find(source, f"common_features_{split}.csv"))
        for split in ("train", "test")
    ]
    with publishing(target) as output:
        dropped = alone = 0
        for split, skeleton, common in files:
            size = common.stat().st_size * (INFLATED if common.suffix == ".gz" else 1)
            parts = min(1 + size // PARTITION_BYTES, MAX_PARTITIONS)
            scratch = output.scratch / "partitions"
            with Partitions(scratch / "common", parts) as users:
                for block in blocks(common, _types(COMMON_NAMES), names=COMMON_NAMES, report=report):
                    users.write(_users(block))
            with Partitions(scratch / "skeleton", parts) as rows:
                for block in blocks(skeleton, _types(SKELETON_NAMES), names=SKELETON_NAMES, report=report):
                    impressions = _impressions(block)
                    rows.write(impressions)
                    dropped += block.rows.num_rows - len(impressions)
            alone += sum(_join(output, f"{split}.parquet", users, rows, part) for part in range(parts))
            shutil.rmtree(scratch)
        output.write_run(COMMENT.format(dropped=dropped, alone=alone), _run())
    return target


def _types(names: tuple[str, ...]) -> dict[str, pa.DataType]:
    return {name: TYPES[name] for name in names}


def _explode(block: Block) -> Exploded:
    """Parse the features of a block. Raises: DataInvalid."""
    lists = pc.split_pattern(block.column("features"), "\x01")
    row = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
    parts = pc.extract_regex(pc.list_flatten(lists), FEATURE)
    bad = row[parts.is_null().to_numpy(zero_copy_only=False)]
    if len(bad):
        raise DataInvalid("a feature is not FIELD\\x02ID\\x03VALUE", place=block.place(int(bad[0])), remedy=AGAIN)
    declared = pc.fill_null(block.column("count"), -1).to_numpy()
    counted = np.bincount(row, minlength=block.rows.num_rows)
    for wrong in np.flatnonzero(declared != counted)[:1]:
        raise DataInvalid(
            f"{counted[wrong]} features where {declared[wrong]} are declared", place=block.place(wrong), remedy=AGAIN
        )
    ids, values = (parts.field(name).cast(kind) for name, kind in (("id", pa.int64()), ("value", pa.float32())))
    return Exploded(block.rows.num_rows, row, parts.field("field"), ids.to_numpy(), values.to_numpy())


def _users(block: Block) -> pa.Table:
    """The common features of a block, which are the user's."""
    return pa.table({"key": block.column("key"), **_explode(block).columns(USER, USER_LISTS)})


def _impressions(block: Block) -> pa.Table:
    """The rows of a skeleton that are a funnel: no purchase without a click."""
    found = _explode(block)
    click, conversion = block.flag("click"), block.flag("conversion")
    columns = {"key": block.column("key"), "sample_id": block.column("sample_id")}
    columns |= {"click": click, "conversion": conversion}
    columns |= found.columns({**ITEM, **SCENE, **MATCHES}, ITEM_LISTS)
    columns |= {f"{name}_value": found.one(field, found.value) for field, name in MATCHES.items()}
    return pa.table(columns).filter(pc.greater_equal(click, conversion))


def _join(output: Output, name: str, users: Partitions, rows: Partitions, part: int) -> int:
    """Write the impressions of a partition with their users, and return how many have none."""
    known = users.table(part)
    keys = known["key"].combine_chunks()
    known = known.drop_columns("key")
    alone = 0
    for batch in rows.read(part):
        where = pc.index_in(batch.column("key"), value_set=keys)
        alone += where.null_count
        table = pa.Table.from_batches([batch]).drop_columns("key")
        found = known.take(where)
        for column in found.column_names:
            table = table.append_column(column, found[column])
        output.write(name, table)
    return alone


def _run() -> Keys:
    return {
        "name": "aliccp",
        "description": "ESMM on Ali-CCP",
        "seed": 1,
        "data": {"path": "train.parquet", "test_path": "test.parquet"},
        "split": {"by": "row", "validation": 0.05},
        "model": {"architecture": "separate_towers", "tower": [128, 64]},
        "training": {"objective": "entire_space", "epochs": 1, "evaluations_per_epoch": 10},
        "tasks": funnel("click", "conversion"),
        "features": [
            *(categorical(name, "user") for name in (*USER.values(), *SCENE.values())),
            *(sequence(name, "user", max_length=STEPS) for name in USER_LISTS.values()),
            *(categorical(name, "item") for name in ITEM.values()),
            sequence("intention", "item", max_length=STEPS),
            *(categorical(name, "item") for name in MATCHES.values()),
            *(numeric(f"{name}_value", "item") for name in MATCHES.values()),
        ],
    }
