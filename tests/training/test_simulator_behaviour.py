from dataclasses import replace

import numpy as np
import pytest

from training.simulator.behaviour import (
    CLICK_RATE,
    CONVERSION_RATE,
    Events,
    Truth,
    draw_events,
    solve_intercepts,
    tendencies,
)
from training.simulator.memory import BUY, LENGTH, VIEW, Recent
from training.simulator.population import Items, Users
from training.simulator.traffic import Shown, Visits

HOUR = 30


def one_visit(actions: list[int], recent_item: int) -> Visits:
    held, kinds = np.full((1, LENGTH), -1, np.int32), np.zeros((1, LENGTH), np.int8)
    held[0, : len(actions)], kinds[0, : len(actions)] = recent_item, actions
    return Visits(np.array([3]), np.array([0]), Recent(held, kinds, np.array([len(actions)])))


def shown(item: int, position: int = 1) -> Shown:
    return Shown(np.array([0]), np.array([item]), np.array([position]))


def test_similar_recent_items_raise_click_and_purchase_and_purchases_more_than_views(
    users: Users, items: Items
) -> None:
    none, view, buy = (
        np.concatenate(tendencies(users, items, one_visit(actions, 5), shown(5), HOUR))
        for actions in ([], [VIEW], [BUY])
    )
    assert (none < view).all()
    assert (view < buy).all()


def test_recent_items_of_other_categories_change_nothing(users: Users, items: Items) -> None:
    other = int(np.flatnonzero(items.category != items.category[5])[0])
    with_history = tendencies(users, items, one_visit([VIEW, BUY], other), shown(5), HOUR)
    without = tendencies(users, items, one_visit([], other), shown(5), HOUR)
    np.testing.assert_array_equal(with_history, without)


def test_position_acts_on_the_click_and_not_on_the_purchase(users: Users, items: Items) -> None:
    visit = one_visit([], 5)
    first = tendencies(users, items, visit, shown(5, 1), HOUR)
    tenth = tendencies(users, items, visit, shown(5, 10), HOUR)
    assert tenth[0] < first[0]
    assert tenth[1] == first[1]


def test_quality_moves_both_and_service_the_purchase_only(users: Users, items: Items) -> None:
    visit = one_visit([], 5)
    click, buy = tendencies(users, items, visit, shown(5), HOUR)
    better = tendencies(users, replace(items, quality=items.quality + 1), visit, shown(5), HOUR)
    served = tendencies(users, replace(items, service=items.service + 1), visit, shown(5), HOUR)
    assert better[0] > click and better[1] > buy
    assert served[0] == click and served[1] > buy


def test_intercepts_bring_the_rates_about() -> None:
    rng = np.random.default_rng(0)
    click = rng.standard_normal(50_000, np.float32)
    buy = 0.7 * click + rng.standard_normal(50_000, np.float32)
    truth = solve_intercepts(click, buy).truth(click, buy)
    assert truth.pctr.mean() == pytest.approx(CLICK_RATE, rel=1e-4)
    assert np.average(truth.pcvr, weights=truth.pctr) == pytest.approx(CONVERSION_RATE, rel=1e-4)


def test_events_follow_the_truth_and_a_conversion_needs_a_click() -> None:
    truth = Truth(np.full(100_000, 0.3, np.float32), np.full(100_000, 0.2, np.float32))
    events: Events = draw_events(np.random.default_rng(0), truth)
    assert events.click.mean() == pytest.approx(0.3, abs=0.01)
    assert events.would_convert[~events.click].mean() == pytest.approx(0.2, abs=0.01)
    assert (events.conversion == (events.click & events.would_convert)).all()
    assert ((events.action == BUY) == events.would_convert).all()
