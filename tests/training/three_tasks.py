"""A log of three tasks whose later ones are rarer, and networks trained on it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from contract.tasks import Task
from tests.training import small

CHAIN = (
    {"name": "click", "label": "click"},
    {"name": "cart", "label": "cart", "given": "click"},
    {"name": "purchase", "label": "purchase", "given": "cart"},
)
APART = tuple({key: value for key, value in task.items() if key != "given"} for task in CHAIN)


def tasks_of(tables: tuple[dict[str, str], ...]) -> tuple[Task, ...]:
    """The tasks as the trainer has them."""
    return tuple(Task.model_validate(table) for table in tables)


def prepare(directory: Path, tasks: tuple[dict[str, str], ...], rows: int, **model: Any) -> small.Prepared:
    """The small log with a cart between click and purchase: carts follow the price, purchases the membership."""
    log, random = small.columns(rows), np.random.default_rng(1)
    click = log["click"].to_numpy() > 0
    cart = click & (random.random(rows) < np.where(log["price"].to_numpy() < 8, 0.8, 0.3))
    member = log["member"].to_numpy(zero_copy_only=False)
    log |= {"cart": pa.array(cart), "purchase": pa.array(cart & (random.random(rows) < np.where(member, 0.8, 0.3)))}
    run = small.document(small.write(directory / "log.parquet", log))
    run["features"] = [small.feature(run, name) for name in ("member", "item_id", "price")]
    return small.prepare(run | {"tasks": list(tasks)} | ({"model": model} if model else {}), directory)
