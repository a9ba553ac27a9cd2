"""AliExpress search: was a result clicked, and then bought? Five countries, one folder each.

Knows train.csv and test.csv of a country, in the form in which MTReclib's figures are published. Does not know how
that form was made from the publisher's user and item files.

Publisher: Alibaba, "AliExpress Searching System Dataset", https://tianchi.aliyun.com/dataset/74690 (an account is
needed). Terms: given out "to facilitate any research"; no licence text is known here, so do not pass the files on.
Form: comma-separated, with a header: search_id, categorical_1 to _16, numerical_1 to _63, click, conversion. The
official train and test files are split in time.
NOTE[DIFF] The files hold no validation rows: searches are taken from the training file by a hash of the search.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from contract.errors import SourceMissing
from training.datasets import Report, silent
from training.datasets.delimited import Block, blocks, find
from training.datasets.output import Keys, Output, categorical, funnel, numeric, publishing

FOLDER = "AliExpress_"
CATEGORIES = tuple(f"categorical_{number}" for number in range(1, 17))
NUMBERS = tuple(f"numerical_{number}" for number in range(1, 64))
TYPES = {
    "search_id": pa.int64(),
    **dict.fromkeys(CATEGORIES, pa.int64()),
    **dict.fromkeys(NUMBERS, pa.float32()),
    "click": pa.int8(),
    "conversion": pa.int8(),
}
# The columns have no names. In the rows we have seen, these are the same for the results of one search.
USER = {*CATEGORIES[:9], *NUMBERS[:23]}
COMMENT = """AliExpress search: click, and purchase given click; ESMM (Ma et al. 2018) on {countries}.
{dropped:,} rows with a purchase but no click are left out."""


def convert(source: Path, target: Path, report: Report = silent) -> Path:
    """Write train.parquet, test.parquet and run.toml into the folder `target`, and return it.

    `source` holds train.csv and test.csv, or folders AliExpress_XX that each do; countries are written one after
    another. Columns are the publisher's, with `country` (null where the folder does not say) and `search`, the
    search's number with its country before it. Rows with a purchase but no click are left out.
    Raises: SourceMissing, ColumnMissing, LabelInvalid, DataInvalid, TargetUnwritable.
    """
    folders = sorted({path.parent for path in source.rglob("train.csv*") if path.name in ("train.csv", "train.csv.gz")})
    if not folders:
        raise SourceMissing(
            "no file train.csv (or train.csv.gz)", place=str(source), remedy="give the folder with the unpacked files"
        )
    files = [(folder, split, find(folder, f"{split}.csv")) for split in ("train", "test") for folder in folders]
    dropped = 0
    with publishing(target) as output:
        for folder, split, path in files:
            for block in blocks(path, TYPES, report=report):
                dropped += _write(output, f"{split}.parquet", block, _country(folder))
        countries = ", ".join(_country(folder) or folder.name for folder in folders)
        output.write_run(COMMENT.format(countries=countries, dropped=dropped), _run())
    return target


def _country(folder: Path) -> str | None:
    return folder.name.removeprefix(FOLDER) if folder.name.startswith(FOLDER) else None


def _write(output: Output, name: str, block: Block, country: str | None) -> int:
    """Write the rows that are a funnel, and return how many are not."""
    click, conversion = block.flag("click"), block.flag("conversion")
    table = pa.table({column: block.column(column) for column in ("search_id", *CATEGORIES, *NUMBERS)})
    search = pc.cast(table["search_id"], pa.string())
    if country:
        search = pc.binary_join_element_wise(country, search, "-")
    table = table.append_column("click", click).append_column("conversion", conversion)
    table = table.add_column(0, "country", pa.array([country] * len(table), pa.string()))
    table = table.add_column(1, "search", search)
    kept = table.filter(pc.greater_equal(click, conversion))
    output.write(name, kept)
    return int(len(table) - len(kept))


def _run() -> Keys:
    features = [categorical("country", "user", dim=4)]
    features += [categorical(name, "user" if name in USER else "item", dim=4) for name in CATEGORIES]
    features += [numeric(name, "user" if name in USER else "item") for name in NUMBERS]
    return {
        "name": "aliexpress",
        "description": "ESMM on AliExpress search",
        "seed": 1,
        "data": {"path": "train.parquet", "test_path": "test.parquet"},
        "split": {"by": "key", "column": "search", "validation": 0.1},
        "model": {"architecture": "separate_towers", "tower": [128, 64], "dropout": 0.1},
        "training": {"objective": "entire_space", "epochs": 3, "evaluations_per_epoch": 4, "patience": 3},
        "evaluation": {"group": "search"},
        "tasks": funnel("click", "conversion"),
        "features": features,
    }
