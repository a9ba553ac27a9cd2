"""Delimited text, plain or gzip, as record batches; whatever is wrong with it is told with file and line.

Knows files, lines and columns. Does not know what any column means.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from contract.errors import ColumnMissing, DataInvalid, LabelInvalid, SourceMissing
from training.datasets import Report, silent

BLOCK_BYTES = 2**23
AGAIN = "fetch the file again, or unpack it again"


def find(source: Path, name: str) -> Path:
    """The file `name`, or `name`.gz: `source` itself, or the only one in the folder `source`, at any depth.

    Raises: SourceMissing, DataInvalid (several).
    """
    names = {name, f"{name}.gz"}
    if source.is_file() and source.name in names:
        return source
    found = sorted(path for path in source.rglob("*") if path.name in names and path.is_file())
    if not found:
        raise SourceMissing(
            f"no file {name} (or {name}.gz)", place=str(source), remedy="give the folder with the unpacked files"
        )
    if len(found) > 1:
        raise DataInvalid(
            f"{len(found)} files {name}: {found[0]}, {found[1]}",
            place=str(source),
            remedy="give the folder with one of them",
        )
    return found[0]


@dataclass(frozen=True)
class Block:
    """Some rows of a file that stand together; `line` is the number of the first one's line, from 1."""

    path: Path
    line: int
    rows: pa.RecordBatch

    def column(self, name: str) -> pa.Array:
        """A column of the rows."""
        return self.rows.column(name)

    def place(self, row: int) -> str:
        """File and line of a row of the block, for messages."""
        return f"{self.path}, line {self.line + row}"

    def flag(self, name: str) -> pa.Array:
        """A column that must hold 0 and 1 only, as int8. Raises: LabelInvalid."""
        values = self.column(name)
        good = pc.fill_null(pc.is_in(values, value_set=pa.array([0, 1], values.type)), False)
        if not pc.all(good, min_count=0).as_py():
            row = int(np.flatnonzero(~good.to_numpy(zero_copy_only=False))[0])
            raise LabelInvalid(f"{name} is {values[row].as_py()!r}, not 0 or 1", place=self.place(row), remedy=AGAIN)
        return values.cast(pa.int8())


def blocks(
    path: Path,
    types: Mapping[str, pa.DataType],
    *,
    names: Sequence[str] | None = None,
    delimiter: str = ",",
    quoted: bool = False,
    report: Report = silent,
) -> Iterator[Block]:
    """The columns of `types`, with those types, block by block; an empty value is null.

    `names` are the file's columns where it has no header; memory does not grow with the file.
    Raises: SourceMissing, ColumnMissing, DataInvalid.
    """
    first = 1 if names else 2
    row = 0
    try:
        for batch in _open(path, types, names, delimiter, quoted):
            yield Block(path, first + row, batch)
            row += batch.num_rows
            report(path.name, row)
    except pa.ArrowKeyError as error:
        column = re.search(r"'([^']*)'", str(error))
        raise ColumnMissing(
            f"no column {column[1] if column else '?'!r}",
            place=f"{path}, line 1",
            remedy=f"its header should name {', '.join(types)}",
        ) from None
    except pa.ArrowInvalid as error:
        columns = names or _header(path, delimiter)
        raise _invalid(str(error).split("\n")[0], path, columns, first + row if row else 1) from None
    except FileNotFoundError:
        raise SourceMissing("no such file", place=str(path), remedy=AGAIN) from None
    except OSError as error:  # what gzip says: cut short, or no gzip at all
        raise DataInvalid(str(error).rstrip("."), place=f"{path}, after line {first + row - 1}", remedy=AGAIN) from None
    if row == 0:
        raise DataInvalid("holds no row", place=f"{path}, line {first}", remedy=AGAIN)


def _open(
    path: Path, types: Mapping[str, pa.DataType], names: Sequence[str] | None, delimiter: str, quoted: bool
) -> Iterator[pa.RecordBatch]:
    """One thread: with several, pyarrow does not say in which row it found a fault."""
    with pa.input_stream(str(path), compression="gzip" if path.suffix == ".gz" else None) as file:
        yield from pyarrow.csv.open_csv(
            file,
            read_options=pyarrow.csv.ReadOptions(column_names=names, block_size=BLOCK_BYTES, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter, quote_char='"' if quoted else False, ignore_empty_lines=False
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict(types), include_columns=list(types), null_values=[""], strings_can_be_null=True
            ),
        )


def _header(path: Path, delimiter: str) -> list[str]:
    with pa.input_stream(str(path), compression="gzip" if path.suffix == ".gz" else None) as file:
        line: str = file.read(2**16).decode(errors="replace").split("\n")[0].rstrip("\r")
    return [name.strip('"') for name in line.split(delimiter)]


def _invalid(text: str, path: Path, names: Sequence[str], line: int) -> DataInvalid:
    """What pyarrow says, as fact and line; it numbers rows as lines, and columns from 0."""
    column = re.search(r"In CSV column #(\d+): ", text)
    row = re.search(r"Row #(\d+): ", text)
    fact = re.sub(r"^(CSV parse error: )?(In CSV column #\d+: )?(Row #\d+: )?", "", text).rstrip(".")
    if column:
        fact = f"column {names[int(column[1])]!r}: {fact}"
    return DataInvalid(fact, place=f"{path}, line {row[1] if row else line}", remedy=AGAIN)
