"""Census-Income (KDD), group 1 of the MMoE paper: is the income above 50,000, and was the person never married?

Knows the publisher's two CSV files, and the run that reads them. Does not know where they come from.

Publisher: US Census Bureau, by UCI, https://archive.ics.uci.edu/dataset/117/census+income+kdd. Terms: on that page.
Ma et al. 2018 (doi 10.1145/3219819.3220007), section 6.2: the official train file is the training split; the rows
of the official test file are split 1:1 at random into validation and test. The paper takes education and marital
status out of the inputs of this group; all columns are kept here, and the run reads those it may.
NOTE[DIFF] The paper does not give its random split; ours is seeded.
"""

import tarfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from contract.errors import DataInvalid, SourceMissing
from training.datasets import Report, silent
from training.datasets.output import Keys, categorical, numeric, publishing

TRAIN, TEST = "census_income_1994_1995_train.csv", "census_income_1994_1995_test.csv"
SPLIT_SEED = 0

NUMBERS = (
    "age", "wage_per_hour", "capital_gains", "capital_losses", "stock_dividends", "instance_weight", "num_emp",
    "weeks_worked",
)  # fmt: skip
CODES = ("det_ind_code", "det_occ_code", "own_or_self", "vet_benefits", "year")
COLUMNS = (
    "age", "class_worker", "det_ind_code", "det_occ_code", "education", "wage_per_hour", "hs_college", "marital_stat",
    "major_ind_code", "major_occ_code", "race", "hisp_origin", "sex", "union_member", "unemp_reason",
    "full_or_part_emp", "capital_gains", "capital_losses", "stock_dividends", "tax_filer_stat", "region_prev_res",
    "state_prev_res", "det_hh_fam_stat", "det_hh_summ", "instance_weight", "mig_chg_msa", "mig_chg_reg",
    "mig_move_reg", "mig_same", "mig_prev_sunbelt", "num_emp", "fam_under_18", "country_father", "country_mother",
    "country_self", "citizenship", "own_or_self", "vet_question", "vet_benefits", "weeks_worked", "year", "income",
)  # fmt: skip
INCOMES = {"- 50000.": 0, "50000+.": 1}
UNKNOWN = "?"
NEVER_MARRIED = "Never married"
LEFT_OUT = {"education", "marital_stat", "instance_weight", "income"}
COMMENT = """Census-Income (KDD), group 1 of the MMoE paper (Ma et al. 2018): is the income above 50,000, was the person
never married? Education and marital status are no inputs here, as in the paper, and neither is the instance weight."""


def convert(source: Path, target: Path, report: Report = silent) -> Path:
    """Write train, validation and test.parquet and run.toml into the folder `target`, and return it.

    `source` is the archive that holds the two CSV files, or a folder with them (at any depth). Columns are the
    publisher's 42, with `income` as 0 or 1, and `never_married`; numbers are float32, codes int64, `?` is null.
    Raises: SourceMissing, DataInvalid, TargetUnwritable.
    """
    train, test = (_read(source, name, report) for name in (TRAIN, TEST))
    order = np.random.default_rng(SPLIT_SEED).permutation(test.num_rows)
    half = test.num_rows // 2
    with publishing(target) as output:
        output.write("train.parquet", train)
        output.write("validation.parquet", test.take(np.sort(order[:half])))
        output.write("test.parquet", test.take(np.sort(order[half:])))
        output.write_run(COMMENT, _run())
    return target


def _run() -> Keys:
    """As runs/census.toml."""
    read = [name for name in COLUMNS if name not in LEFT_OUT]
    return {
        "name": "census",
        "description": "Census-Income: income and never married",
        "seed": 1,
        "data": {
            "path": "train.parquet",
            "validation_path": "validation.parquet",
            "test_path": "test.parquet",
        },
        "model": {"architecture": "mmoe", "experts": 8, "expert": [64, 32], "tower": [16], "dropout": 0.3},
        "training": {
            "objective": "independent",
            "epochs": 16,
            "batch_rows": 2048,
            "learning_rate": 4e-3,
            "embedding_learning_rate": 0.2,
            "evaluations_per_epoch": 2,
            "patience": 8,
            "average": 16,
        },
        "evaluation": {"slices": ["sex", "race", "year"]},
        "tasks": [{"name": name, "label": name} for name in ("income", "never_married")],
        "features": [
            numeric(name, "item", scale="piecewise", bins=32) if name in NUMBERS else categorical(name, "item", dim=4)
            for name in read
        ],
    }


def _read(source: Path, name: str, report: Report) -> pa.Table:
    place = f"{source}, {name}"
    try:
        if source.is_dir():
            with open(next(source.rglob(name)), "rb") as file:
                table = _table(file, place)
            report(name, table.num_rows)
            return table
        with tarfile.open(source) as archive:
            member = next(member for member in archive if member.isreg() and Path(member.name).name == name)
            content = archive.extractfile(member)
            assert content is not None  # noqa: S101 (a regular member has content)
            with content as file:
                table = _table(file, place)
            report(name, table.num_rows)
            return table
    except (OSError, StopIteration, EOFError, tarfile.TarError, zlib.error):
        raise SourceMissing(
            "cannot be read", place=place, remedy="give the archive with the two CSV files, or a folder with them"
        ) from None


def _table(file: IO[bytes], place: str) -> pa.Table:
    """Parse one of the CSV files: no header, a space after every comma."""
    types = {name: pa.string() for name in COLUMNS} | {name: pa.float32() for name in NUMBERS}
    types |= {name: pa.int64() for name in CODES}
    try:
        table = pyarrow.csv.read_csv(
            file,
            read_options=pyarrow.csv.ReadOptions(column_names=COLUMNS, block_size=2**23),
            convert_options=pyarrow.csv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        raise _invalid(str(error).split("\n")[0], place) from None
    for index, name in enumerate(COLUMNS):
        if types[name] == pa.string():
            text = pc.utf8_trim_whitespace(table[name])
            known = pc.if_else(pc.equal(text, UNKNOWN), pa.scalar(None, pa.string()), text)
            table = table.set_column(index, name, known)
    unexpected = set(pc.unique(table["income"]).to_pylist()) - set(INCOMES)
    if unexpected:
        raise _invalid(f"the last column holds {sorted(map(str, unexpected))[0]!r}", place)
    table = table.set_column(COLUMNS.index("income"), "income", _flag(table["income"], "50000+."))
    return table.append_column("never_married", _flag(table["marital_stat"], NEVER_MARRIED))


def _flag(values: pa.ChunkedArray, value: str) -> pa.ChunkedArray:
    return pc.cast(pc.fill_null(pc.equal(values, value), False), pa.int8())


def _invalid(fact: str, place: str) -> DataInvalid:
    return DataInvalid(fact, place=place, remedy="fetch the file again; it should have the publisher's 42 columns")
