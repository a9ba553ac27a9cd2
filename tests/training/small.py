"""A small log made by hand with a feature of every kind, and the run that trains on it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.encoders import Fitted, fit
from training.held_out import extra_columns
from training.pipeline import read_log
from training.run import Run, parse_run
from training.split import Log
from training.staging import Staged, stage
from training.tensors import Tensors, encode

Columns = dict[str, Any]
Document = dict[str, Any]

ROWS = 800


def columns(rows: int = ROWS, seed: int = 0) -> Columns:
    """A column of every type that a feature may have; clicks follow the item, conversions the price."""
    random = np.random.default_rng(seed)
    item, price = random.zipf(1.5, rows) % 40, random.lognormal(2.0, 1.0, rows)
    click = random.random(rows) < np.where(item < 5, 0.5, 0.2)
    conversion = click & (random.random(rows) < np.where(price < 8, 0.7, 0.3))
    lengths = random.integers(0, 8, rows)
    recent = [[None if x == 13 else f"i{x}" for x in random.zipf(1.5, length) % 40] for length in lengths]
    actions = [[None if x == 3 else int(x) for x in random.integers(0, 4, length)] for length in lengths]
    return {
        "time": pa.array(np.arange(rows) * 1000, pa.timestamp("ms")),
        "user_id": pa.array([f"u{x}" for x in random.integers(0, 60, rows)]),
        "city": pa.array([None if x == 0 else "" if x == 1 else f"city{x}" for x in random.integers(0, 9, rows)]),
        "member": pa.array(random.random(rows) < 0.3),
        "age": pa.array(random.normal(40, 10, rows), mask=random.random(rows) < 0.2, type=pa.float32()),
        "recent": pa.array(recent, pa.list_(pa.string())),
        "actions": pa.array(actions, pa.list_(pa.int64())),
        "item_id": pa.array([f"i{x}" for x in item]),
        "brand": pa.array([f"b{x}" for x in random.integers(0, 30, rows)]).dictionary_encode(),
        "shop": pa.array(random.integers(0, 12, rows).astype(float), mask=random.random(rows) < 0.1),
        "position": pa.array(random.integers(0, 20, rows)),
        "price": pa.array(price),
        "stock": pa.array(np.where(random.random(rows) < 0.5, 0, random.integers(0, 100, rows))),
        "rating": pa.array(random.normal(0, 1, rows), mask=random.random(rows) < 0.1),
        "click": pa.array(click.astype(np.int8)),
        "conversion": pa.array(conversion),
    }


def document(path: Path) -> Document:
    """A run on the log at `path`, as its file's keys."""
    return {
        "name": "small",
        "seed": 3,
        "data": {"path": str(path)},
        "split": {"by": "time", "column": "time", "validation": 0.2, "test": 0.2},
        "features": [
            {"kind": "categorical", "name": "user_id", "side": "user", "dim": 4, "min_count": 8},
            {"kind": "categorical", "name": "city", "side": "user", "dim": 4, "missing": "default", "default": "city3"},
            {"kind": "categorical", "name": "member", "side": "user", "dim": 2},
            {"kind": "numeric", "name": "age", "side": "user"},
            {"kind": "sequence", "name": "recent", "side": "user", "dim": 4, "max_length": 3, "share": "item_id"},
            {"kind": "sequence", "name": "actions", "side": "user", "dim": 2, "max_length": 3, "along": "recent"},
            {"kind": "categorical", "name": "item_id", "side": "item", "dim": 4, "min_count": 3},
            {"kind": "categorical", "name": "brand", "side": "item", "dim": 4, "buckets": 16},
            {"kind": "categorical", "name": "shop", "side": "item", "dim": 2, "unknown": "missing", "min_count": 30},
            {"kind": "categorical", "name": "position", "side": "item", "dim": 2, "buckets": 64},
            {"kind": "numeric", "name": "price", "side": "item", "scale": "log1p"},
            {"kind": "numeric", "name": "stock", "side": "item", "scale": "piecewise", "bins": 4},
            {"kind": "numeric", "name": "rating", "side": "item", "scale": "quantile", "bins": 4},
        ],
        "model": {"architecture": "separate_towers", "tower": [8]},
        "training": {"batch_rows": 64, "threads": 1},
        "evaluation": {"resamples": 10},
    }


# One feature each: what may become of a value, by kind, type and policy.
POLICIES: tuple[Document, ...] = (
    {"name": "city", "min_count": 1},
    {"name": "city", "min_count": 60},
    {"name": "city", "buckets": 8},
    {"name": "city", "buckets": 8, "missing": "default", "default": "city3"},
    {"name": "city", "min_count": 60, "missing": "default", "default": "nowhere"},
    {"name": "city", "min_count": 50, "missing": "default", "default": "city3", "unknown": "missing"},
    {"name": "shop", "min_count": 1},
    {"name": "shop", "missing": "default", "default": 3},
    {"name": "shop", "buckets": 5, "missing": "default", "default": 3},
    {"name": "shop", "dtype": "string"},
    {"name": "position", "min_count": 24},
    {"name": "position", "dtype": "string", "buckets": 8},
    {"name": "member", "buckets": 3},
    {"name": "brand", "min_count": 17},
    {"name": "recent", "kind": "sequence", "max_length": 5, "min_count": 20},
    {"name": "recent", "kind": "sequence", "max_length": 1, "buckets": 7},
    {"name": "actions", "kind": "sequence", "max_length": 2},
    {"name": "actions", "kind": "sequence", "dtype": "string", "buckets": 4},
)


def feature(run: Document, name: str) -> Document:
    """The [[features]] table of this name."""
    found: Document = next(entry for entry in run["features"] if entry["name"] == name)
    return found


def write(path: Path, log: Columns) -> Path:
    """The log as Parquet."""
    pq.write_table(pa.table(log), path, row_group_size=300)
    return path


def as_toml(run: Document) -> str:
    """The keys of a run as the text of a run file."""
    return "".join(f"{key} = {_inline(value)}\n" for key, value in run.items())


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_inline(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value)


@dataclass(frozen=True)
class Prepared:
    """All that stands before training."""

    run: Run
    log: Log
    staged: Staged
    fitted: Fitted
    tensors: tuple[Tensors, ...]


def prepare(run_keys: Document, directory: Path) -> Prepared:
    """Read, split, stage, fit and encode."""
    run = parse_run(run_keys)
    log = read_log(run)
    staged = stage(log, run.features, run.tasks, extra_columns(run), directory, nothing)
    fitted = fit(staged, run.features, log.split)
    return Prepared(run, log, staged, fitted, encode(staged, fitted, log.split, directory, nothing))


def nothing(rows: int) -> None:
    """For who would be told of progress."""
