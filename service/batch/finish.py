"""The end of a job: parts put together, refused rows, the summary, and last the manifest that says it is done.

Knows what each shard came out with. Does not know how.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from contract.bundle import Manifest, sync_folder
from service.batch.durable import durable
from service.batch.formats import format_named
from service.batch.job import Plan
from service.batch.output import Output
from service.batch.shards import Done
from service.batch.summary import facts
from service.batch.tally import Tally


def finish(output: Output, plan: Plan, manifest: Manifest, done: list[Done]) -> Mapping[str, Any]:
    """Write what is left to write, from what became of each shard; the answer is the summary.

    Done again, it writes the same bytes. Raises: TargetUnwritable.
    """
    refused = sum(one.refused for one in done)
    rows = sum(one.rows for one in done)
    parts = [_entry(output.part(shard).name, one) for shard, one in zip(plan.shards, done, strict=True)]
    if refused:
        with_some = [shard for shard, one in zip(plan.shards, done, strict=True) if one.refused]
        _concatenate(map(output.refused_part, with_some), output.refused)
    if not output.is_folder:
        with durable(output.target) as sink:
            schema = pa.ipc.read_schema(pa.py_buffer(plan.schema))
            format_named(output.format).join([str(output.part(shard)) for shard in plan.shards], sink, schema)
        parts = [_entry(output.target.name, Done(0, rows, refused, sink.size, sink.sha256))]
    summary = facts(manifest, Tally.of(manifest, (one.tally for one in done)))
    model = {"name": manifest.name, "version": manifest.version, "digest": plan.identity["bundle"]}
    for left in output.part(plan.shards[0]).parent.glob(".part-*.tmp"):  # by an attempt that died
        left.unlink(missing_ok=True)
    _write(output.summary, summary)
    _write(output.success, {"model": model, "rows": rows, "refused": refused, "parts": parts, "job": plan.identity})
    sync_folder(output.target.parent)
    return summary


def _entry(name: str, done: Done) -> Mapping[str, Any]:
    return {"name": name, "rows": done.rows - done.refused, "size": done.size, "sha256": done.sha256}


def _concatenate(sources: Iterable[Path], target: Path) -> None:
    with durable(target) as sink:
        for source in sources:
            with open(source, "rb") as file:
                while data := file.read(2**20):
                    sink.write(data)


def _write(path: Path, value: Mapping[str, Any]) -> None:
    with durable(path) as file:
        file.write(json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n")
