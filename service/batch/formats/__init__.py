"""The file formats that tables are read from and written to, one module each.

Knows their names and endings. Does not know what is in a table.
"""

from service.batch.formats.arrow import Arrow
from service.batch.formats.codec import Format
from service.batch.formats.csv import Csv
from service.batch.formats.ndjson import Ndjson
from service.batch.formats.parquet import Parquet

FORMATS: tuple[Format, ...] = (Parquet(), Csv(), Ndjson(), Arrow())


def format_named(name: str) -> Format:
    """The format `--format` calls so."""
    return next(each for each in FORMATS if each.name == name)


def format_of(path: str) -> Format | None:
    """The format that a file's ending tells."""
    return next((each for each in FORMATS if path.lower().endswith(each.suffixes)), None)
