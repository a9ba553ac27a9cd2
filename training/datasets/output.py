"""What a converter leaves: Parquet files and the run that trains on them, all of them or none.

Knows Parquet and TOML. Does not know any data set.
"""

import glob
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from contract.errors import TargetUnwritable
from training.run import parse_run

RUN = "run.toml"
GROUP_ROWS = 2**17
Keys = dict[str, Any]


class Output:
    """Files in a scratch folder; `publishing` moves them."""

    def __init__(self, scratch: Path, target: Path) -> None:
        self.scratch, self.target = scratch, target
        self.rows: dict[str, int] = {}
        self._writers: dict[str, pyarrow.parquet.ParquetWriter] = {}
        self._waiting: dict[str, list[pa.Table]] = {}
        self._seen: dict[str, dict[str, Any]] = {}
        self._varying: dict[str, set[str]] = {}

    def write(self, name: str, table: pa.Table) -> None:
        """Append rows to the file `name`, in groups large enough to be read quickly."""
        if name not in self._writers:
            path = self.scratch / name
            self._writers[name] = pyarrow.parquet.ParquetWriter(path, table.schema, compression="zstd")
            self.rows[name], self._waiting[name], self._seen[name], self._varying[name] = 0, [], {}, set()
        self._observe(name, table)
        self.rows[name] += table.num_rows
        self._waiting[name].append(table)
        if sum(waiting.num_rows for waiting in self._waiting[name]) >= GROUP_ROWS:
            self._flush(name)

    def close(self) -> None:
        """Write what waits."""
        for name, writer in self._writers.items():
            self._flush(name)
            writer.close()
        self._writers.clear()

    def write_run(self, comment: str, document: Keys) -> None:
        """Write the run; its [data] names files of this output, and features that never vary are left out.

        Paths are those of `target` as it was given: a relative one starts where the user stands.
        """
        document = dict(document)
        train = document["data"]["path"]
        document["data"] = {key: glob.escape(str(self.target / name)) for key, name in document["data"].items()}
        useless = [entry["name"] for entry in document["features"] if entry["name"] not in self._varying[train]]
        document["features"] = [entry for entry in document["features"] if entry["name"] not in useless]
        if useless:
            comment += f"\nLeft out, since they never change in {train}: {', '.join(useless)}."
        comment += "\nRelative paths start at the folder that `fullfunnel dataset` was called from."
        parse_run(document, place=RUN)
        (self.scratch / RUN).write_text(as_text(comment, document), encoding="utf-8")

    def _flush(self, name: str) -> None:
        if self._waiting[name]:
            self._writers[name].write_table(pa.concat_tables(self._waiting[name]))
            self._waiting[name] = []

    def _observe(self, name: str, table: pa.Table) -> None:
        """Note which columns have held two values: a list counts when it is not empty, null as a value."""
        if not table.num_rows:
            return
        for column in set(table.column_names) - self._varying[name]:
            values = table[column]
            if pa.types.is_list(values.type):
                varies = bool(pc.any(pc.greater(pc.list_value_length(values), 0)).as_py())
            else:
                first = self._seen[name].setdefault(column, values[0].as_py())
                same = pc.is_null(values) if first is None else pc.fill_null(pc.equal(values, first), False)
                varies = not pc.all(same).as_py()
            if varies:
                self._varying[name].add(column)


@contextmanager
def publishing(target: Path) -> Iterator[Output]:
    """Files written in the block appear in `target` when it ends well, the run last; otherwise none does.

    Raises: TargetUnwritable.
    """
    scratch: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))  # one disk: moving is renaming
        output = Output(scratch, target)
        yield output
        output.close()
        target.mkdir(exist_ok=True)
        (target / RUN).unlink(missing_ok=True)  # while files are replaced, no run reads a mixture
        for name in [*sorted(output.rows), RUN]:
            (scratch / name).replace(target / name)
    except OSError as error:
        raise TargetUnwritable(
            f"cannot be written ({error.strerror or error})",
            place=str(target),
            remedy="choose another folder, or mend its rights or space",
        ) from None
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)


def categorical(name: str, side: str, **more: Any) -> Keys:
    """A [[features]] table."""
    return {"kind": "categorical", "name": name, "side": side, **more}


def numeric(name: str, side: str, **more: Any) -> Keys:
    """A [[features]] table."""
    return {"kind": "numeric", "name": name, "side": side, **more}


def sequence(name: str, side: str, **more: Any) -> Keys:
    """A [[features]] table."""
    return {"kind": "sequence", "name": name, "side": side, **more}


def funnel(click: str, conversion: str) -> list[Keys]:
    """The [[tasks]] of a click and a conversion after it, by their labels."""
    return [{"name": "click", "label": click}, {"name": "conversion", "label": conversion, "given": "click"}]


def as_text(comment: str, document: Keys) -> str:
    """A run's keys as TOML: values, tables, arrays of tables, under a comment."""
    lines = [f"# {line}".rstrip() for line in comment.strip().split("\n")]
    lines += [f"{key} = {_value(value)}" for key, value in document.items() if not _nested(value)]
    for key, value in document.items():
        if _nested(value):
            head = f"[{key}]" if isinstance(value, dict) else f"[[{key}]]"
            for table in [value] if isinstance(value, dict) else value:
                lines += ["", head, *(f"{name} = {_value(part)}" for name, part in table.items())]
    return "\n".join(lines) + "\n"


def _nested(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _value(value: Any) -> str:
    """Strings and numbers are written in TOML as in JSON, but for DEL."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
