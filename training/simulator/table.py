"""The columns of the log and of the truth.

Knows names, types and missing values. Does not know how values came about, or files.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.simulator.behaviour import Events, Truth
from training.simulator.memory import Counters, Recent, smoothed_rate
from training.simulator.population import CATEGORIES, CITIES, DEVICES, Floats, Ints, Items, Users
from training.simulator.traffic import SCENES, Shown, Visits

START_MS = 1_767_571_200_000  # Monday 2026-01-05, 00:00 UTC
HOUR_MS = 3_600_000

LOG_SCHEMA = pa.schema(
    [
        ("impression_id", pa.int64()),
        ("request_id", pa.int64()),
        ("timestamp", pa.timestamp("ms", tz="UTC")),
        # side user
        ("user_id", pa.string()),
        ("city", pa.string()),
        ("age", pa.float32()),
        ("gender", pa.string()),
        ("device", pa.string()),
        ("membership", pa.string()),
        ("days_since_signup", pa.float32()),
        ("spend_90d", pa.float32()),
        ("recent_items", pa.list_(pa.string())),
        ("recent_categories", pa.list_(pa.string())),
        ("recent_actions", pa.list_(pa.string())),
        ("hour", pa.int64()),
        ("weekday", pa.int64()),
        ("scene", pa.string()),
        # side item
        ("item_id", pa.string()),
        ("category", pa.string()),
        ("brand", pa.string()),
        ("shop", pa.string()),
        ("price", pa.float32()),
        ("item_age_days", pa.float32()),
        ("item_impressions_7d", pa.float32()),
        ("item_ctr_7d", pa.float32()),
        ("position", pa.int64()),
        # labels
        ("click", pa.int8()),
        ("conversion", pa.int8()),
    ]
)
TRUTH_SCHEMA = pa.schema(
    [
        ("impression_id", pa.int64()),
        ("true_pctr", pa.float32()),
        ("true_pcvr", pa.float32()),
        ("would_convert", pa.int8()),
    ]
)


class Columns:
    """Turns indices and numbers of an hour into columns."""

    def __init__(self, users: Users, items: Items) -> None:
        self._users, self._items = users, items
        self._user_id, self._item_id = _ids("u", len(users.arrival)), _ids("i", len(items.arrival))
        self._brand, self._shop = _ids("b", int(items.brand.max()) + 1), _ids("s", int(items.shop.max()) + 1)
        self._city, self._category = _ids("city", CITIES), _ids("c", CATEGORIES)
        self._device, self._scene = _ids("phone", DEVICES), pa.array(SCENES)
        self._gender, self._membership = pa.array(["m", "f"]), pa.array(["none", "silver", "gold", "platinum"])
        self._action = pa.array(["view", "cart", "buy"])

    def log(
        self, first: tuple[int, int], visits: Visits, shown: Shown, times_ms: Ints, counters: Counters, events: Events
    ) -> pa.Table:
        """The log's rows of an hour. `first`: impression and request ids to count from; `times_ms` [R] since START."""
        rows, visit, item = len(shown.item), shown.visit, shown.item
        day = times_ms[visit] // (24 * HOUR_MS)
        impressions, clicks = counters.read()
        columns = {
            "impression_id": first[0] + np.arange(rows),
            "request_id": first[1] + visit,
            "timestamp": START_MS + times_ms[visit],
            **{name: column.take(pa.array(visit)) for name, column in self._user_side(visits, times_ms).items()},
            "item_id": self._item_id.take(pa.array(item)),
            "category": self._category.take(pa.array(self._items.category[item])),
            "brand": self._brand.take(pa.array(self._items.brand[item])),
            "shop": self._shop.take(pa.array(self._items.shop[item])),
            "price": _numbers(self._items.price[item]),
            "item_age_days": np.floor(day - self._items.arrival[item]).clip(0),
            "item_impressions_7d": impressions[item],
            "item_ctr_7d": _numbers(smoothed_rate(clicks, impressions)[item]),
            "position": shown.position,
            "click": events.click,
            "conversion": events.conversion,
        }
        return _table(columns, LOG_SCHEMA)

    def _user_side(self, visits: Visits, times_ms: Ints) -> dict[str, pa.Array]:
        """Columns with one value per page [R]."""
        users, user, recent = self._users, visits.user, visits.recent
        hour, day = times_ms // HOUR_MS, times_ms // (24 * HOUR_MS)
        held = np.arange(recent.items.shape[1]) < recent.lengths[:, None]
        items = recent.items[held].astype(np.int64)
        return {
            "user_id": self._user_id.take(pa.array(user)),
            "city": _named(self._city, users.city[user]),
            "age": _numbers(users.age[user]),
            "gender": _named(self._gender, users.gender[user]),
            "device": _named(self._device, users.device[user]),
            "membership": _named(self._membership, users.membership[user]),
            "days_since_signup": pa.array(np.floor(day - users.arrival[user]).clip(0)),
            "spend_90d": pa.array(users.spend[user]),
            "recent_items": _lists(self._item_id, items, recent),
            "recent_categories": _lists(self._category, self._items.category[items], recent),
            "recent_actions": _lists(self._action, recent.actions[held].astype(np.int64), recent),
            "hour": pa.array(hour % 24),
            "weekday": pa.array(day % 7),
            "scene": _named(self._scene, visits.scene),
        }


def truth_table(first_id: int, truth: Truth, events: Events) -> pa.Table:
    """The truth's rows of an hour."""
    columns = {
        "impression_id": first_id + np.arange(len(truth.pctr)),
        "true_pctr": truth.pctr,
        "true_pcvr": truth.pcvr,
        "would_convert": events.would_convert,
    }
    return _table(columns, TRUTH_SCHEMA)


def _table(columns: dict[str, pa.Array | NDArray[np.generic]], schema: pa.Schema) -> pa.Table:
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _ids(prefix: str, count: int) -> pa.Array:
    return pa.array([f"{prefix}{number}" for number in range(count)])


def _named(names: pa.Array, codes: Ints) -> pa.Array:
    return names.take(pa.array(codes, mask=codes < 0))


def _numbers(values: Floats) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))


def _lists(names: pa.Array, codes: Ints, recent: Recent) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(recent.lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), names.take(pa.array(codes)))
