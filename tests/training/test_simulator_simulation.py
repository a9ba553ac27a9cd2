"""The run of a simulation: hours that count up, the same for the same seed, and true to what is remembered."""

from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from training.simulator import simulation
from training.simulator.memory import WINDOW_DAYS
from training.simulator.population import Items, Users, make_items, make_users
from training.simulator.simulation import FEWEST_ITEMS, FEWEST_USERS, ROWS_PER_ITEM, ROWS_PER_USER, Hour, Simulation
from training.simulator.table import HOUR_MS, LOG_SCHEMA, START_MS, TRUTH_SCHEMA

ROWS, DAYS, SEED = 4000, 3, 5


@pytest.fixture(scope="module")
def hours() -> list[Hour]:
    return list(Simulation(rows=ROWS, seed=SEED, days=DAYS).hours())


@pytest.fixture(scope="module")
def log(hours: list[Hour]) -> pa.Table:
    return pa.concat_tables(hour.log for hour in hours)


@pytest.fixture(scope="module")
def truth(hours: list[Hour]) -> pa.Table:
    return pa.concat_tables(hour.truth for hour in hours)


@pytest.fixture(scope="module")
def world() -> tuple[Users, Items]:
    """The users and items of the simulation."""
    rng = np.random.default_rng([SEED, 0])
    users = make_users(rng, max(ROWS // ROWS_PER_USER, FEWEST_USERS), DAYS)
    return users, make_items(rng, max(ROWS // ROWS_PER_ITEM, FEWEST_ITEMS), DAYS)


def column(table: pa.Table, name: str) -> NDArray[Any]:
    values: NDArray[Any] = table[name].to_numpy()
    return values


def numbers(table: pa.Table, name: str) -> NDArray[np.int64]:
    """What ids count."""
    return np.array([int(x[1:]) for x in table[name].to_pylist()], np.int64)


def days_into(table: pa.Table) -> NDArray[np.float64]:
    days: NDArray[np.float64] = (table["timestamp"].cast("int64").to_numpy() - START_MS) / (24 * HOUR_MS)
    return days


def same(one: Hour, other: Hour) -> bool:
    return bool(one.log.equals(other.log) and one.truth.equals(other.truth) and one.last_of_day == other.last_of_day)


def test_there_is_an_hour_for_each_and_every_day_ends_with_its_last(hours: list[Hour]) -> None:
    assert len(hours) == 24 * DAYS
    assert [number for number, hour in enumerate(hours) if hour.last_of_day] == [23, 47, 71]


def test_rows_add_up_to_those_asked_for_and_the_truth_has_the_same(hours: list[Hour]) -> None:
    assert sum(hour.log.num_rows for hour in hours) == ROWS
    for hour in hours:
        assert hour.log["impression_id"].equals(hour.truth["impression_id"])


def test_ids_go_on_from_hour_to_hour_without_a_gap(log: pa.Table) -> None:
    assert column(log, "impression_id").tolist() == list(range(ROWS))
    requests = column(log, "request_id")
    assert requests[0] == 0
    assert set(np.diff(requests).tolist()) == {0, 1}


def test_no_page_spans_two_hours(hours: list[Hour]) -> None:
    pages = Counter(page for hour in hours for page in hour.log["request_id"].unique().to_pylist())
    assert set(pages.values()) == {1}


def test_timestamps_fall_into_their_hour_in_order(hours: list[Hour]) -> None:
    for number, hour in enumerate(hours):
        times = hour.log["timestamp"].cast("int64").to_numpy() - START_MS
        assert (times // HOUR_MS == number).all()
        assert (np.diff(times) >= 0).all()


def test_probabilities_lie_between_0_and_1_and_differ_from_row_to_row(truth: pa.Table) -> None:
    for name in ("true_pctr", "true_pcvr"):
        values = column(truth, name)
        assert ((values > 0) & (values < 1)).all()
        assert len(np.unique(values)) > 0.9 * ROWS


def test_a_conversion_comes_after_a_click_and_exactly_if_it_would_have_come(log: pa.Table, truth: pa.Table) -> None:
    click, conversion, would = (
        column(*pair) for pair in ((log, "click"), (log, "conversion"), (truth, "would_convert"))
    )
    assert 0 < conversion.sum() < min(click.sum(), would.sum())
    assert (conversion == click * would).all()


def test_rows_of_a_request_share_all_that_is_of_the_user(log: pa.Table) -> None:
    names = LOG_SCHEMA.names
    shared = log.select(
        ["request_id", "timestamp", *names[names.index("user_id") : names.index("item_id")]]
    ).to_pylist()
    first: dict[int, dict[str, Any]] = {}
    for row in shared:
        assert row == first.setdefault(row["request_id"], row)
    assert 1 < len(first) < ROWS


def test_the_same_seed_gives_the_same_hours_however_they_are_taken(hours: list[Hour]) -> None:
    again, other = Simulation(rows=ROWS, seed=SEED, days=DAYS).hours(), Simulation(rows=ROWS, seed=9, days=DAYS).hours()
    differences = 0
    for hour in islice(hours, 30):
        differences += not same(hour, next(other))  # two at a time draw from nothing that they share
        assert same(hour, next(again))
    assert differences == 30


def test_nothing_is_drawn_from_numpys_common_generator() -> None:
    before = np.random.get_state(legacy=False)
    found = []
    for seed in (1, 2):
        np.random.seed(seed)
        found.append(next(Simulation(rows=200, seed=0, days=1).hours()))
    np.random.set_state(before)
    assert same(*found)


def test_every_seed_and_every_hour_has_draws_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "hourly_rows", lambda rng, rows, days: np.full(24 * days, rows // (24 * days)))
    scenes = []
    for seed in range(3):
        for hour in islice(Simulation(rows=4800, seed=seed, days=1).hours(), 4):
            pages = hour.log.filter(column(hour.log, "position") == 1)
            scenes.append(tuple(pages["scene"].to_pylist()[:15]))
    assert len(set(scenes)) == 12


def test_only_users_and_items_that_have_arrived_are_in_the_log(log: pa.Table, world: tuple[Users, Items]) -> None:
    users, items = world
    at = days_into(log)
    for arrival, name in ((users.arrival, "user_id"), (items.arrival, "item_id")):
        of_rows = arrival[numbers(log, name)]
        assert (of_rows <= at).all()
        assert (of_rows > 0).any()


def test_users_and_items_are_those_of_the_seed(log: pa.Table, world: tuple[Users, Items]) -> None:
    users, items = world
    assert (column(log, "spend_90d") == users.spend[numbers(log, "user_id")]).all()
    assert (numbers(log, "brand") == items.brand[numbers(log, "item_id")]).all()


def test_the_first_hour_remembers_clicks_on_items_from_before(hours: list[Hour], world: tuple[Users, Items]) -> None:
    first = hours[0].log
    recent = [int(item[1:]) for items in first["recent_items"].to_pylist() for item in items]
    assert recent
    assert (world[1].arrival[recent] < 0).all()
    assert {action for row in first["recent_actions"].to_pylist() for action in row} == {"view", "cart", "buy"}


def test_the_first_day_remembers_impressions_of_items_from_before_only(
    log: pa.Table, world: tuple[Users, Items]
) -> None:
    first = log.filter(days_into(log) < 1)
    new = world[1].arrival[numbers(first, "item_id")] >= 0
    impressions = column(first, "item_impressions_7d")
    assert new.any()
    assert not impressions[new].any()
    assert first.filter(new)["item_ctr_7d"].null_count == new.sum()
    assert (impressions[~new] > 0).mean() > 0.5


def test_the_impressions_remembered_at_first_are_those_of_a_week(log: pa.Table, world: tuple[Users, Items]) -> None:
    _, items = world
    first = log.filter(days_into(log) < 1)
    shown, at = np.unique(numbers(first, "item_id"), return_index=True)
    expected = WINDOW_DAYS * ROWS / DAYS * items.share[shown[items.arrival[shown] < 0]].sum()
    assert column(first, "item_impressions_7d")[at].sum() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("day", [1, 2])
def test_counters_of_an_item_that_is_new_hold_all_days_since_but_not_today(
    day: int, log: pa.Table, world: tuple[Users, Items]
) -> None:
    item, at = numbers(log, "item_id"), days_into(log)
    today = np.flatnonzero((at >= day) & (at < day + 1) & (world[1].arrival[item] >= 0))
    past = item[at < day]
    expected = [np.count_nonzero(past == item[row]) for row in today]
    assert max(expected) > 0
    assert column(log, "item_impressions_7d")[today].tolist() == expected


def test_a_users_history_grows_by_each_click_of_the_hours_before(hours: list[Hour]) -> None:
    known: dict[str, list[str]] = {}
    grown = 0
    for hour in hours:
        clicks: dict[str, list[str]] = {}
        for row in hour.log.select(["user_id", "item_id", "recent_items", "click"]).to_pylist():
            if row["user_id"] in known:
                assert row["recent_items"] == known[row["user_id"]][-20:]
            known.setdefault(row["user_id"], row["recent_items"])
            if row["click"]:
                clicks.setdefault(row["user_id"], []).append(row["item_id"])
        for user, clicked in clicks.items():
            known[user], grown = known[user] + clicked, grown + 1
    assert grown > 20


def test_an_action_is_remembered_as_a_purchase_exactly_if_it_was_one(log: pa.Table) -> None:
    rows = log.select(["user_id", "timestamp", "item_id", "recent_items", "recent_actions", "click", "conversion"])
    last: dict[str, dict[str, Any]] = {}
    checked = Counter[bool]()
    for row in rows.to_pylist():
        before, hour = last.get(row["user_id"]), row["timestamp"].replace(minute=0, second=0, microsecond=0)
        if before and before["timestamp"] < hour:
            assert row["recent_items"][-1] == before["item_id"]
            assert (row["recent_actions"][-1] == "buy") == bool(before["conversion"])
            checked[bool(before["conversion"])] += 1
        if row["click"]:
            last[row["user_id"]] = row
    assert checked[True] > 0 and checked[False] > 20


def test_a_single_row_has_a_world_and_hours_that_are_empty_but_for_one() -> None:
    hours = list(Simulation(rows=1, seed=0, days=1).hours())
    assert len(hours) == 24
    assert sorted(hour.log.num_rows for hour in hours) == [*[0] * 23, 1]
    for hour in hours:
        assert hour.log.schema.equals(LOG_SCHEMA) and hour.truth.schema.equals(TRUTH_SCHEMA)


def test_a_guess_of_too_few_pages_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "page_count", lambda rows: 1)
    hours = list(Simulation(rows=3000, seed=1, days=1).hours())
    assert sum(hour.log.num_rows for hour in hours) == 3000
    assert all(hour.log["position"][0].as_py() == 1 for hour in hours if hour.log.num_rows)
