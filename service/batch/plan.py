"""From a job to its plan: which files, which columns, which shards. The same input always gives the same plan.

Shards are cut by files and rows, never by workers. Knows schemas and the bundle's manifest. Does not know how a shard
is scored, nor what has been done already.
"""

import difflib
import importlib.metadata
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import pyarrow as pa

from contract.bundle import Manifest
from contract.errors import ColumnMissing, ColumnTypeInvalid, DataInvalid, MixedTypes, SettingInvalid
from contract.features import Sequence as ListFeature
from service.batch.formats import format_named
from service.batch.formats.codec import BLOCK_ROWS, Block, Format, Survey, Wanted, reported
from service.batch.job import ALL, File, Job, Plan, Shard
from service.batch.output import Output
from service.batch.sources import find, would_find
from service.batch.stores import opened
from service.batch.typed import check_type, plain

LIBRARIES = ("fullfunnel", "numpy", "onnxruntime", "pyarrow")
SURVEYS_AT_ONCE = 8
WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")  # what is the same as a number and as text


def plan_of(job: Job, manifest: Manifest, digest: str) -> Plan:
    """Look at every file of the input, and check that it can be scored.

    Raises: SourceMissing, DataInvalid, ColumnMissing, ColumnTypeInvalid, MixedTypes, SettingInvalid.
    """
    files, chosen = find(job.input, job.input_format)
    output = Output.of(job, chosen.name)
    _check_apart(output, job.input, files)
    wanted = features_of(manifest)
    with ThreadPoolExecutor(SURVEYS_AT_ONCE) as pool:
        surveys = list(pool.map(lambda file: _survey(file, chosen, wanted), files))
    columns = chosen_columns(job.keep, manifest, files, surveys)
    check_writable(columns, format_named(output.format), files[0].path)
    keep, schema = columns.keep, columns.found
    labels = tuple(dict.fromkeys(task.label for task in manifest.tasks if task.label in schema.names))
    in_files = [name for name in (*wanted.columns, *keep, *labels) if name not in files[0].partitions]
    shards = list(_shards(files, surveys)) or [Shard(0, files[0], (), 0, 0, 0)]
    return Plan(
        job=job,
        input_format=chosen.name,
        output_format=output.format,
        wanted=Wanted(tuple(dict.fromkeys(in_files)), wanted.dtypes, wanted.lists),
        keep=keep,
        labels=labels,
        schema=columns.written.serialize().to_pybytes(),
        shards=tuple(shards),
        identity={
            "bundle": digest,
            "options": {"keep": list(keep), "input_format": chosen.name, "output_format": output.format},
            "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
            "files": [[f.path, f.size, f.stamp, s.digest] for f, s in zip(files, surveys, strict=True)],
        },
    )


@dataclass(frozen=True)
class Chosen:
    """The columns that are kept, the schema that was found, and the one that is written."""

    keep: tuple[str, ...]
    found: pa.Schema
    written: pa.Schema


def chosen_columns(keep: Sequence[str], manifest: Manifest, files: Sequence[File], surveys: Sequence[Survey]) -> Chosen:
    """Check that every file has what is needed, and what is to be kept ((ALL,): every column).

    Raises: DataInvalid, ColumnMissing, ColumnTypeInvalid, MixedTypes, SettingInvalid.
    """
    wanted = features_of(manifest)
    schema = _with_partitions(surveys[0].schema, files, wanted)
    keep = tuple(schema.names) if tuple(keep) == (ALL,) else tuple(dict.fromkeys(keep))
    scores = [entry.name for entry in manifest.outputs]
    _check_keep(keep, schema, scores, files[0].path)
    _check_columns(files, surveys, wanted, keep)
    fields = [pa.field(name, plain(schema.field(name).type)) for name in keep]
    return Chosen(keep, schema, pa.schema([*fields, *(pa.field(name, pa.float32()) for name in scores)]))


def check_writable(columns: Chosen, written: Format, place: str) -> None:
    """Whether the output can hold what is kept. Raises: ColumnTypeInvalid."""
    for name in columns.keep:
        field = columns.written.field(name)
        one = pa.schema([field])
        try:
            if written.is_text and not _is_text_able(field.type):
                raise TypeError
            with closing(written.writer(io.BytesIO(), one)) as writer:
                writer.write(pa.RecordBatch.from_arrays([pa.nulls(1, field.type)], schema=one))
        except (pa.ArrowException, TypeError, ValueError):
            raise ColumnTypeInvalid(
                f"columns of type {str(field.type)[:80]} cannot be written as {written.name}",
                place=f"{place}, column {name[:80]!r}",
                remedy="do not keep it, or choose another format for the output",
            ) from None


def _is_text_able(kind: pa.DataType, inside: bool = False) -> bool:
    """Whether values can be written as text: neither raw bytes, nor nanoseconds inside of lists and structs."""
    types = pa.types
    if kind.num_fields:
        return all(_is_text_able(kind.field(i).type, True) for i in range(kind.num_fields))
    raw = types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
    return not (raw or types.is_fixed_size_binary(kind) or (inside and getattr(kind, "unit", "") == "ns"))


def features_of(manifest: Manifest) -> Wanted:
    """The columns that the features of a bundle are read from."""
    dtypes = {entry.name: entry.dtype for entry in manifest.inputs}
    lists = frozenset(feature.name for feature in manifest.features if isinstance(feature, ListFeature))
    return Wanted(tuple(dtypes), dtypes, lists)


def _survey(file: File, chosen: Format, wanted: Wanted) -> Survey:
    with reported(file.path), opened(file.path, chosen.maps) as opened_file:
        return chosen.survey(opened_file, wanted)


def _with_partitions(schema: pa.Schema, files: Sequence[File], wanted: Wanted) -> pa.Schema:
    """The columns of a file and those that its folders make. Raises: DataInvalid, ColumnTypeInvalid."""
    for name in files[0].partitions:
        if name not in schema.names:
            schema = schema.append(pa.field(name, _type_of(name, files, wanted)))
    return schema


def _type_of(name: str, files: Sequence[File], wanted: Wanted) -> pa.DataType:
    """Of what folders say: numbers for a feature of numbers, whole ones where all are written as such, or text."""
    place = f"{files[0].path}, column {name!r}"
    if name in wanted.lists:
        raise ColumnTypeInvalid("holds what a folder is called, not lists", place=place, remedy="store lists")
    values = list(dict.fromkeys(value for file in files if (value := file.partitions.get(name)) is not None))
    if wanted.dtypes.get(name) == "float32":
        try:
            pa.array(values, pa.string()).cast(pa.float64())
        except pa.ArrowInvalid:
            raise ColumnTypeInvalid(
                f"holds what folders are called ({', '.join(map(repr, values[:3]))}), not numbers",
                place=place,
                remedy="name the folders by numbers",
            ) from None
        return pa.float64()
    return pa.int64() if values and all(map(WHOLE.fullmatch, values)) else pa.string()


def _check_apart(output: Output, source: str, files: Sequence[File]) -> None:
    """What is written must not be read, nor by the next run of the same command. Raises: SettingInvalid."""
    target = str(output.target.absolute())
    for file in files:
        path = file.path
        if path == target or str(output.target) == path or path.startswith(f"{target}/"):
            raise SettingInvalid(
                "the output holds a file of the input", place=path, remedy="write to a place of its own"
            )
    if would_find(source, target):
        raise SettingInvalid(
            "the output would be a part of the input", place=target, remedy="write to a place outside of it"
        )


def _check_keep(keep: Sequence[str], schema: pa.Schema, scores: Sequence[str], place: str) -> None:
    for name in keep:
        if name not in schema.names:
            raise ColumnMissing(f"no column {name!r} to keep{_near(name, schema.names)}", place=place)
        if name in scores:
            raise SettingInvalid(
                f"a kept column would be called {name!r} like a score",
                place="--keep",
                remedy="leave it out, or rename it in the input",
            )


def _check_columns(files: Sequence[File], surveys: Sequence[Survey], wanted: Wanted, keep: Sequence[str]) -> None:
    """Every file has every column, of a type that fits; kept ones of one type. Raises: see plan_of."""
    first, columns = surveys[0].schema, (*wanted.columns, *keep)
    for file, survey in zip(files, surveys, strict=True):
        names = set(survey.schema.names)
        if len(names) < len(survey.schema.names):
            twice = next(name for name in survey.schema.names if survey.schema.names.count(name) > 1)
            raise DataInvalid(f"two columns are called {twice!r}", place=file.path, remedy="rename one")
        missing = [name for name in columns if name not in names and name not in file.partitions]
        if missing:
            raise ColumnMissing(
                f"no column {', '.join(map(repr, missing[:5]))}{_near(missing[0], survey.schema.names)}",
                place=file.path,
                remedy="add what the model was trained on; a column of nulls says that a value is never known",
            )
        for name in set(columns) & names:
            kind, place = survey.schema.field(name).type, f"{file.path}, column {name!r}"
            if name in wanted.dtypes:
                check_type(kind, wanted.dtypes[name], name in wanted.lists, place)
            if name in keep and name in first.names and plain(kind) != plain(first.field(name).type):
                raise MixedTypes(
                    f"holds {kind} where {files[0].path} holds {first.field(name).type}",
                    place=place,
                    remedy="store one type in all files, or do not keep the column",
                )


def _near(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names[:1000], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _shards(files: Sequence[File], surveys: Sequence[Survey]) -> Iterator[Shard]:
    """Blocks of one file together, up to BLOCK_ROWS rows; a block of twice that is cut in several."""
    numbers = itertools.count()
    for file, survey in zip(files, surveys, strict=True):
        first_row = 0
        waiting: list[Block] = []
        for block in survey.blocks:
            rows = sum(each.rows for each in waiting)
            if waiting and rows + block.rows > BLOCK_ROWS:
                yield Shard(next(numbers), file, tuple(waiting), first_row, 0, rows)
                waiting, first_row = [], first_row + rows
            if block.rows >= 2 * BLOCK_ROWS:
                for start in range(0, block.rows, BLOCK_ROWS):
                    count = min(BLOCK_ROWS, block.rows - start)
                    yield Shard(next(numbers), file, (block,), first_row + start, start, count)
                first_row += block.rows
            else:
                waiting.append(block)
        if waiting and (rows := sum(each.rows for each in waiting)):
            yield Shard(next(numbers), file, tuple(waiting), first_row, 0, rows)
