"""The columns of the log and of the truth, from indices, codes and numbers made by hand."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from training.simulator.behaviour import Events, Truth
from training.simulator.memory import BUY, CART, LENGTH, VIEW, Counters, Recent
from training.simulator.population import ABSENT, Floats, Items, Users
from training.simulator.table import HOUR_MS, LOG_SCHEMA, START_MS, TRUTH_SCHEMA, Columns, truth_table
from training.simulator.traffic import SCENES, Shown, Visits

DAY_MS = 24 * HOUR_MS
FIRST = (100, 40)


def visits_of(user: list[int], *histories: list[tuple[int, int]]) -> Visits:
    """A page for each of `user` on the scenes in turn, with the (item, action) pairs of its history."""
    held, kinds = np.full((len(user), LENGTH), -1, np.int32), np.zeros((len(user), LENGTH), np.int8)
    for row, history in enumerate(histories):
        for step, (item, action) in enumerate(history):
            held[row, step], kinds[row, step] = item, action
    lengths = np.array([len(history) for history in histories] + [0] * (len(user) - len(histories)), np.int64)
    return Visits(np.array(user, np.int64), np.arange(len(user)) % len(SCENES), Recent(held, kinds, lengths))


def shown_on(visit: list[int], item: list[int]) -> Shown:
    return Shown(np.array(visit, np.int64), np.array(item, np.int64), np.arange(1, len(item) + 1))


def events_of(click: list[int], would_convert: list[int]) -> Events:
    return Events(np.array(click, bool), np.array(would_convert, bool), np.zeros(len(click), np.int64))


def log(
    users: Users,
    items: Items,
    visits: Visits,
    shown: Shown,
    times_ms: int | list[int] = 0,
    counters: Counters | None = None,
    events: Events | None = None,
) -> pa.Table:
    """Rows with what matters to a test, and nothing else happening."""
    rows = len(shown.item)
    times = np.full(len(visits.user), times_ms) if isinstance(times_ms, int) else np.array(times_ms, np.int64)
    counters = counters or Counters(len(items.arrival))
    return Columns(users, items).log(FIRST, visits, shown, times, counters, events or events_of([0] * rows, [0] * rows))


def numbers(values: Floats, at: int, value: float) -> Floats:
    """The same, but for one."""
    changed = values.copy()
    changed[at] = value
    return changed


def test_rows_and_pages_are_counted_from_the_first_ids(users: Users, items: Items) -> None:
    table = log(users, items, visits_of([3, 3, 7]), shown_on([0, 0, 1, 2, 2], [4, 5, 6, 4, 9]), [10, 20, 30])
    assert table["impression_id"].to_pylist() == [100, 101, 102, 103, 104]
    assert table["request_id"].to_pylist() == [40, 40, 41, 42, 42]
    assert [int(x) - START_MS for x in table["timestamp"].cast("int64").to_pylist()] == [10, 10, 20, 30, 30]
    assert table["position"].to_pylist() == [1, 2, 3, 4, 5]


def test_ids_are_a_letter_and_the_number_in_order_of_arrival(users: Users, items: Items) -> None:
    (row,) = log(users, items, visits_of([17]), shown_on([0], [600])).to_pylist()
    assert (row["user_id"], row["item_id"]) == ("u17", "i600")
    assert row["category"] == f"c{items.category[600]}"
    assert row["brand"] == f"b{items.brand[600]}"
    assert row["shop"] == f"s{items.shop[600]}"
    assert row["price"] == items.price[600]
    assert row["spend_90d"] == users.spend[17]


def test_the_last_user_item_brand_and_shop_have_names_too(users: Users, items: Items) -> None:
    last = [len(items.arrival) - 1, int(items.brand.argmax()), int(items.shop.argmax())]
    table = log(users, items, visits_of([len(users.arrival) - 1]), shown_on([0, 0, 0], last))
    assert table["user_id"][0].as_py() == "u199"
    assert table["item_id"][0].as_py() == "i799"
    assert table["brand"][1].as_py() == f"b{items.brand.max()}"
    assert table["shop"][2].as_py() == f"s{items.shop.max()}"


def test_all_rows_of_a_page_have_its_user_side(users: Users, items: Items) -> None:
    visits = visits_of([5, 9], [(1, VIEW), (2, BUY)], [(3, CART)])
    table = log(users, items, visits, shown_on([0, 0, 1, 1, 1], [1, 2, 3, 4, 5]), [HOUR_MS, 30 * HOUR_MS])
    names = LOG_SCHEMA.names
    pages = table.select(names[names.index("user_id") : names.index("item_id")]).to_pylist()
    assert pages[0] == pages[1]
    assert pages[2] == pages[3] == pages[4] != pages[0]
    assert [page["user_id"] for page in pages] == ["u5", "u5", "u9", "u9", "u9"]


@pytest.mark.parametrize(
    ("times_ms", "hour", "weekday"),
    [
        (0, 0, 0),
        (HOUR_MS - 1, 0, 0),
        (HOUR_MS, 1, 0),
        (DAY_MS - 1, 23, 0),
        (DAY_MS, 0, 1),
        (6 * DAY_MS + 5 * HOUR_MS, 5, 6),
        (7 * DAY_MS, 0, 0),
    ],
)
def test_hour_and_weekday_are_those_of_the_timestamp(
    times_ms: int, hour: int, weekday: int, users: Users, items: Items
) -> None:
    (row,) = log(users, items, visits_of([0]), shown_on([0], [0]), times_ms).to_pylist()
    assert (row["hour"], row["weekday"]) == (hour, weekday)
    assert (row["timestamp"].hour, row["timestamp"].weekday()) == (hour, weekday)


def test_the_log_starts_on_a_monday_at_midnight() -> None:
    assert datetime.fromtimestamp(START_MS / 1000, UTC) == datetime(2026, 1, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("arrival", "times_ms", "age"),
    [
        (-2.5, 0, 2),
        (-2.5, DAY_MS - 1, 2),
        (-2.5, DAY_MS, 3),
        (0.4, DAY_MS - 1, 0),
        (0.4, DAY_MS, 0),
        (0.4, 2 * DAY_MS, 1),
    ],
)
def test_ages_are_whole_days_and_never_negative(
    arrival: float, times_ms: int, age: int, users: Users, items: Items
) -> None:
    users = replace(users, arrival=numbers(users.arrival, 6, arrival))
    items = replace(items, arrival=numbers(items.arrival, 8, arrival))
    (row,) = log(users, items, visits_of([6]), shown_on([0], [8]), times_ms).to_pylist()
    assert (row["days_since_signup"], row["item_age_days"]) == (age, age)


@pytest.mark.parametrize(
    ("attribute", "code", "value"),
    [
        ("city", 0, "city0"),
        ("city", 79, "city79"),
        ("city", ABSENT, None),
        ("gender", 0, "m"),
        ("gender", 1, "f"),
        ("gender", ABSENT, None),
        ("device", 5, "phone5"),
        ("membership", 0, "none"),
        ("membership", 3, "platinum"),
        ("age", 16.0, 16.0),
        ("age", np.nan, None),
    ],
)
def test_attributes_of_users_have_their_names_and_absent_ones_none(
    attribute: str, code: float, value: Any, users: Users, items: Items
) -> None:
    changed: Any = {attribute: numbers(getattr(users, attribute), 6, code)}
    table = log(replace(users, **changed), items, visits_of([6]), shown_on([0], [0]))
    assert table[attribute].to_pylist() == [value]


def test_an_absent_price_is_missing_and_the_others_are_not(users: Users, items: Items) -> None:
    items = replace(items, price=numbers(numbers(items.price, 3, np.nan), 4, 9.5))
    assert log(users, items, visits_of([0]), shown_on([0, 0, 0], [4, 3, 4]))["price"].to_pylist() == [9.5, None, 9.5]


def test_every_scene_has_its_name(users: Users, items: Items) -> None:
    table = log(users, items, visits_of([0] * 4), shown_on([0, 1, 2, 3], [0] * 4))
    assert table["scene"].to_pylist() == ["home", "search", "detail", "cart"]


def test_histories_are_lists_oldest_first_without_their_padding(users: Users, items: Items) -> None:
    full = [(item, VIEW) for item in range(LENGTH)]
    visits = visits_of([0, 1, 2], [(30, CART), (7, BUY), (30, VIEW)], [], full)
    table = log(users, items, visits, shown_on([0, 1, 2], [0, 0, 0]))
    assert table["recent_items"].to_pylist() == [["i30", "i7", "i30"], [], [f"i{item}" for item in range(LENGTH)]]
    assert table["recent_actions"].to_pylist() == [["cart", "buy", "view"], [], ["view"] * LENGTH]
    categories = [f"c{category}" for category in items.category]
    assert table["recent_categories"].to_pylist() == [[categories[i] for i in (30, 7, 30)], [], categories[:LENGTH]]


def test_counters_are_of_the_item_shown_and_a_rate_without_impressions_is_missing(users: Users, items: Items) -> None:
    counters = Counters(len(items.arrival))
    counters.add(np.array([5] * 75 + [6]), np.array([True] * 24 + [False] * 52))
    shown = shown_on([0, 0, 0], [6, 5, 7])
    today = log(users, items, visits_of([0]), shown, counters=counters)
    assert today["item_impressions_7d"].to_pylist() == [0, 0, 0]
    assert today["item_ctr_7d"].to_pylist() == [None, None, None]
    counters.close_day()
    tomorrow = log(users, items, visits_of([0]), shown, counters=counters)
    assert tomorrow["item_impressions_7d"].to_pylist() == [1, 75, 0]
    assert tomorrow["item_ctr_7d"].to_pylist() == pytest.approx([1 / 26, 0.25, None])


def test_labels_are_0_and_1_and_a_conversion_needs_a_click(users: Users, items: Items) -> None:
    events = events_of([0, 0, 1, 1], [0, 1, 0, 1])
    table = log(users, items, visits_of([0]), shown_on([0] * 4, [1, 2, 3, 4]), events=events)
    assert table["click"].to_pylist() == [0, 0, 1, 1]
    assert table["conversion"].to_pylist() == [0, 0, 0, 1]


def test_the_truth_holds_what_a_click_would_have_brought_beside_unclicked_rows_too() -> None:
    truth = Truth(np.array([0.25, 0.5, 1.0], np.float32), np.array([0.0, 0.125, 0.75], np.float32))
    table = truth_table(7, truth, events_of([0, 0, 1], [1, 0, 1]))
    assert table.schema.equals(TRUTH_SCHEMA)
    assert table.to_pydict() == {
        "impression_id": [7, 8, 9],
        "true_pctr": [0.25, 0.5, 1.0],
        "true_pcvr": [0.0, 0.125, 0.75],
        "would_convert": [1, 0, 1],
    }


def test_an_hour_without_rows_has_all_columns(users: Users, items: Items) -> None:
    table = log(users, items, visits_of([]), shown_on([], []), [])
    nothing = Truth(np.zeros(0, np.float32), np.zeros(0, np.float32))
    truth = truth_table(0, nothing, events_of([], []))
    assert table.schema.equals(LOG_SCHEMA) and truth.schema.equals(TRUTH_SCHEMA)
    assert table.num_rows == truth.num_rows == 0
