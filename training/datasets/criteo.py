"""Criteo attribution: was a banner clicked, and did the user then convert? 30 days of impressions in order of time.

Knows criteo_attribution_dataset.tsv.gz. Does not know how conversions are attributed.

Publisher: Criteo AI Lab, "Attribution Modeling for Bidding" (Diemert, Meynet et al. 2017, AdKDD & TargetAd),
https://huggingface.co/datasets/criteo/criteo-attribution-dataset after accepting its conditions. Terms: CC BY-NC-SA 4.0
(no commercial use); the paper is to be cited. Form: tab-separated, with a header; a row is an impression.
The funnel is impression -> click -> conversion within 30 days. The publisher's `conversion` follows an impression
whether it was clicked or not, so the label is `clicked_conversion` = click and conversion; `attributed` = that, and
attributed to Criteo. What is only known afterwards (conversion_*, click_pos, click_nb, cpo, and cost, which an auction
sets) is kept in the log and not among the run's features.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from training.datasets import Report, silent
from training.datasets.delimited import Block, blocks, find
from training.datasets.output import Keys, categorical, funnel, numeric, publishing

FILE = "criteo_attribution_dataset.tsv"
CONTEXT = tuple(f"cat{number}" for number in range(1, 10))
FLAGS = ("click", "conversion", "attribution")
TYPES = {
    "timestamp": pa.int64(),
    "uid": pa.int64(),
    "campaign": pa.int64(),
    "conversion": pa.int8(),
    "conversion_timestamp": pa.int64(),
    "conversion_id": pa.int64(),
    "attribution": pa.int8(),
    "click": pa.int8(),
    "click_pos": pa.int64(),
    "click_nb": pa.int64(),
    "cost": pa.float32(),
    "cpo": pa.float32(),
    "time_since_last_click": pa.int64(),
    **dict.fromkeys(CONTEXT, pa.int64()),
}
ABSENT = ("conversion_timestamp", "conversion_id", "click_pos", "time_since_last_click")  # where -1 means none
COMMENT = """Criteo attribution: click, and conversion within 30 days given click; ESMM (Ma et al. 2018).
The last days validate and test. For the conversions attributed to Criteo, set the second label to "attributed".
Data: CC BY-NC-SA 4.0, Diemert, Meynet et al. 2017."""


def convert(source: Path, target: Path, report: Report = silent) -> Path:
    """Write log.parquet and run.toml into the folder `target`, and return it.

    `source` is the file (.tsv.gz, or unpacked), or a folder with it. Columns are the publisher's 22, with -1 as null
    where it means none, and the labels `clicked_conversion` and `attributed`. Times are seconds from the first row.
    Raises: SourceMissing, ColumnMissing, LabelInvalid, DataInvalid, TargetUnwritable.
    """
    path = find(source, FILE)
    with publishing(target) as output:
        for block in blocks(path, TYPES, delimiter="\t", report=report):
            output.write("log.parquet", _table(block))
        output.write_run(COMMENT, _run())
    return target


def _table(block: Block) -> pa.Table:
    columns = {name: block.column(name) for name in TYPES}
    columns |= {name: block.flag(name) for name in FLAGS}
    for name in ABSENT:
        columns[name] = pc.if_else(pc.equal(columns[name], -1), pa.scalar(None, pa.int64()), columns[name])
    columns["clicked_conversion"] = pc.bit_wise_and(columns["click"], columns["conversion"])
    columns["attributed"] = pc.bit_wise_and(columns["clicked_conversion"], columns["attribution"])
    return pa.table(columns)


def _run() -> Keys:
    return {
        "name": "criteo",
        "description": "ESMM on Criteo attribution",
        "seed": 1,
        "data": {"path": "log.parquet"},
        "split": {"by": "time", "column": "timestamp", "validation": 0.1, "test": 0.1},
        "model": {"architecture": "separate_towers", "tower": [128, 64]},
        "training": {"objective": "entire_space", "epochs": 1, "evaluations_per_epoch": 10},
        "tasks": funnel("click", "clicked_conversion"),
        "features": [
            categorical("uid", "user"),
            numeric("time_since_last_click", "user", scale="quantile"),
            categorical("campaign", "item"),
            *(categorical(name, "item") for name in CONTEXT),
        ],
    }
