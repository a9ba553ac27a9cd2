"""Tables for the toy bundle, and the scores they must come out with."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from service.scoring.scorer import Scorer
from tests.service.toy_bundle import ACTIONS, CITIES, FEATURES, ITEMS

SCHEMA = pa.schema(
    [
        ("row_id", pa.int64()),
        ("user_id", pa.string()),
        ("city", pa.string()),
        ("age", pa.float64()),
        ("recent_items", pa.list_(pa.string())),
        ("recent_actions", pa.list_(pa.string())),
        ("item_id", pa.string()),
        ("category", pa.int64()),
        ("price", pa.float64()),
        ("tags", pa.list_(pa.int64())),
        ("click", pa.int8()),
        ("conversion", pa.int8()),
    ]
)
USER = [feature.name for feature in FEATURES if feature.side == "user"]
ITEM = [feature.name for feature in FEATURES if feature.side == "item"]


def toy_table(rows: int, seed: int = 0, users: int = 5, in_order: bool = True) -> pa.Table:
    """Rows of users that come several times, with every kind of missing, unknown and empty value."""
    rng = random.Random(seed)
    people = [_user(rng, number) for number in range(users)]
    each = [rng.randrange(users) for _ in range(rows)]
    found = [
        {"row_id": row, **people[user], **_item(rng), **_labels(rng)}
        for row, user in enumerate(sorted(each) if in_order else each)
    ]
    return pa.Table.from_pylist(found, SCHEMA)


def _user(rng: random.Random, number: int) -> dict[str, Any]:
    items = rng.choice([None, [], [rng.choice([*ITEMS, "i99", None]) for _ in range(rng.randrange(1, 9))]])
    return {
        "user_id": rng.choice([None, "", f"u{number}", f"u{number}", f"ü{number}"]),
        "city": rng.choice([None, "Atlantis", *CITIES]),
        "age": rng.choice([None, float("nan"), rng.uniform(0, 120)]),
        "recent_items": items,
        "recent_actions": None if items is None else [rng.choice([*ACTIONS, "stare", None]) for _ in items],
    }


def _item(rng: random.Random) -> dict[str, Any]:
    return {
        "item_id": rng.choice([*ITEMS, "new"]),
        "category": rng.choice([None, 1, 2, 3, 77]),
        "price": rng.choice([None, rng.uniform(0, 200), 1e9]),
        "tags": rng.choice([None, [], [rng.choice([1, 2, 3, None, 9]) for _ in range(rng.randrange(6))]]),
    }


def _labels(rng: random.Random) -> dict[str, int]:
    click = int(rng.random() < 0.5)
    return {"click": click, "conversion": click * int(rng.random() < 0.5)}


def expected(scorer: Scorer, table: pa.Table) -> dict[str, NDArray[np.float32]]:
    """What the scorer answers for the rows, each with a user of its own, from plain Python lists."""
    columns = {name: [_plain(value) for value in table[name].to_pylist()] for name in (*USER, *ITEM)}
    return scorer.score(
        {name: columns[name] for name in USER}, {name: columns[name] for name in ITEM}, np.arange(table.num_rows)
    )


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value


def write(table: pa.Table, path: Path, row_group_size: int | None = None) -> Path:
    """A Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size or max(1, table.num_rows))
    return path


def assert_scored(out: pa.Table, scorer: Scorer, table: pa.Table) -> None:
    """The scores are those of the scorer, in order, to 1e-6."""
    assert out.num_rows == table.num_rows
    for name, values in expected(scorer, table).items():
        np.testing.assert_allclose(out[name].to_numpy(), values, rtol=0, atol=1e-6)
