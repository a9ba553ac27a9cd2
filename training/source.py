"""Reading: Parquet, CSV or Arrow; a file, a folder or a glob; as record batches, never whole.

Knows pyarrow. Does not know features, tasks or splits.
"""

import difflib
import glob
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.fs

from contract.errors import ColumnMissing, DataInvalid, MixedTypes, SourceMissing
from training.run import expand

BATCH_ROWS = 2**17
ENDINGS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".arrow": "arrow", ".feather": "arrow"}
FINGERPRINT_BYTES = 2**20
NOTHING = {"null", "lists of null"}  # the type of a column without any value


@dataclass(frozen=True)
class Source:
    """Files of one schema."""

    path: str
    dataset: pyarrow.dataset.Dataset

    def check_columns(self, columns: Sequence[str], first: "Source | None" = None) -> None:
        """Every file must have the columns, with types that may stand for one another and for those of `first`.

        Raises: ColumnMissing, MixedTypes, DataInvalid.
        """
        first = first or self
        schema = first.dataset.schema
        for column in columns:
            _check_column(self.dataset.schema.names, column, self.path)
        if len(self.dataset.files) == 1 and first is self:
            return
        for fragment in self.dataset.get_fragments():
            with _reported(self.path):
                own = fragment.physical_schema
            for column in columns:
                _check_column(own.names, column, fragment.path)
                kind, expected = _kind(own.field(column).type), _kind(schema.field(column).type)
                if kind != expected and not {kind, expected} & NOTHING:
                    raise MixedTypes(
                        f"holds {kind} where the first file holds {expected}",
                        place=f"{fragment.path}, column {column!r}",
                        remedy='store one type in all files; in CSV, declare the feature `dtype = "string"`',
                    )

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Record batches of some columns, in the files' order, of at most BATCH_ROWS rows.

        Raises: MixedTypes, DataInvalid.
        """
        with _reported(self.path, self.dataset.schema.names):
            yield from self.dataset.to_batches(
                columns=list(dict.fromkeys(columns)), batch_size=BATCH_ROWS, batch_readahead=4, fragment_readahead=2
            )

    def count(self) -> int:
        """Number of rows. Raises: DataInvalid."""
        if isinstance(self.dataset.format, pyarrow.dataset.ParquetFileFormat):
            with _reported(self.path):
                return int(self.dataset.count_rows())
        return sum(batch.num_rows for batch in self.batches(self.dataset.schema.names[:1]))

    def fingerprint(self) -> str:
        """SHA-256 over each file's name, size, first and last MiB: cheap, and another file changes it."""
        digest = hashlib.sha256()
        for name in sorted(self.dataset.files):
            with self.dataset.filesystem.open_input_file(name) as file:
                size = file.size()
                ends = file.read_at(min(size, FINGERPRINT_BYTES), 0)
                ends += file.read_at(min(size, FINGERPRINT_BYTES), max(0, size - FINGERPRINT_BYTES))
            digest.update(f"{Path(name).name} {size} {hashlib.sha256(ends).hexdigest()}\n".encode())
        return digest.hexdigest()


@contextmanager
def _reported(path: str, names: Sequence[str] = ()) -> Iterator[None]:
    """Turn what pyarrow says while it reads into MixedTypes or DataInvalid; CSV errors number the column of `names`."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        text = str(error).split("\n")[0].rstrip(".")
        numbered = re.match(r"In CSV column #(\d+): ", text)
        if numbered and "onversion" in text:
            raise MixedTypes(
                text.removeprefix(numbered[0]),
                place=f"{path}, column {names[int(numbered[1])]!r}",
                remedy='clean the column, or declare the feature `dtype = "string"`',
            ) from None
        raise DataInvalid(text, place=path, remedy="check that the file is whole") from None


def _check_column(names: Sequence[str], column: str, place: str) -> None:
    if column not in names:
        close = difflib.get_close_matches(column, names, n=1)
        raise ColumnMissing(
            f"no column {column!r}" + (f" (did you mean {close[0]!r}?)" if close else ""),
            place=place,
            remedy=f"the columns are {', '.join(map(repr, names[:20]))}{', ...' if len(names) > 20 else ''}",
        )


def _kind(kind: pa.DataType) -> str:
    """What a type holds, in words; types of one kind may stand for one another."""
    types = pa.types
    if types.is_dictionary(kind):
        return _kind(kind.value_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return f"lists of {_kind(kind.value_type)}"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "numbers"
    if types.is_string(kind) or types.is_large_string(kind):
        return "text"
    return "times" if types.is_timestamp(kind) or types.is_date(kind) else str(kind)


def open_source(path: str, file_format: str | None = None, text_columns: Sequence[str] = ()) -> Source:
    """Open a file, folder, glob or pyarrow filesystem URL.

    `text_columns` are read as strings from CSV whatever they look like; strings in Parquet as dictionaries.
    Raises: SourceMissing, DataInvalid.
    """
    location = expand(path)
    filesystem: pyarrow.fs.FileSystem | None = None
    if "://" in location:
        filesystem, location = pyarrow.fs.FileSystem.from_uri(location)
        files = [location]
    elif glob.has_magic(location):
        files = sorted(glob.glob(location, recursive=True))
    else:
        files = [location] if Path(location).exists() else []
    if not files:
        raise SourceMissing("no such file, folder or match", place=path, remedy="check [data] in the run file")
    name = file_format or _format_of(files[0], path)
    found = files if len(files) > 1 else files[0]
    try:
        dataset = pyarrow.dataset.dataset(found, format=_format(name, text_columns), filesystem=filesystem)
        if name == "parquet":
            strings = {field.name for field in dataset.schema if field.type in (pa.string(), pa.large_string())}
            parquet = pyarrow.dataset.ParquetFileFormat(dictionary_columns=strings)
            dataset = pyarrow.dataset.dataset(found, format=parquet, filesystem=filesystem)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataInvalid(
            f"cannot be read as {name} ({str(error).splitlines()[0]})",
            place=path,
            remedy="check the file, or [data] format",
        ) from None
    if not dataset.files:
        raise SourceMissing("the folder holds no file", place=path, remedy="check [data] in the run file")
    return Source(path, dataset)


def _format_of(file: str, path: str) -> str:
    inside = sorted(p for p in Path(file).rglob("*") if p.is_file() and not p.name.startswith((".", "_")))
    ending = (inside[0].suffix if Path(file).is_dir() and inside else Path(file).suffix).lower()
    if ending not in ENDINGS:
        raise DataInvalid(
            f"cannot tell the format from the ending {ending!r}", place=path, remedy='set [data] format = "csv"'
        )
    return ENDINGS[ending]


def _format(name: str, text_columns: Sequence[str]) -> pyarrow.dataset.FileFormat:
    if name == "csv":
        convert = pyarrow.csv.ConvertOptions(
            column_types={column: pa.string() for column in text_columns}, strings_can_be_null=True
        )
        return pyarrow.dataset.CsvFileFormat(
            convert_options=convert, read_options=pyarrow.csv.ReadOptions(block_size=2**24)
        )
    if name == "arrow":
        return pyarrow.dataset.IpcFileFormat()
    return pyarrow.dataset.ParquetFileFormat()
