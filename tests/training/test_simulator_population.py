import numpy as np
import pytest

from training.simulator.population import CATEGORIES, Pool, make_items, make_users


def test_a_pool_draws_by_weight_among_those_that_have_arrived() -> None:
    pool = Pool(np.array([1.0, 3.0, 100.0]), np.array([-50, 0, 5], np.float32))
    rng, group = np.random.default_rng(0), np.zeros(20_000, np.int64)
    before = np.bincount(pool.draw(rng, group, 4.9), minlength=3) / len(group)
    assert before == pytest.approx([0.25, 0.75, 0], abs=0.02)
    assert (pool.draw(rng, group, 5.0) == 2).mean() == pytest.approx(100 / 104, abs=0.02)


def test_a_pool_draws_inside_the_group_asked_for() -> None:
    rng = np.random.default_rng(0)
    groups, arrivals = rng.integers(0, 5, 200), rng.uniform(-9, 9, 200).astype(np.float32)
    groups[:5], arrivals[:5] = np.arange(5), -1
    pool, wanted = Pool(1 + rng.random(200), arrivals, groups), rng.integers(0, 5, 5000)
    for day in (0.0, 3.5, 9.0, 20.0):
        drawn = pool.draw(rng, wanted, day)
        assert (groups[drawn] == wanted).all()
        assert (arrivals[drawn] <= day).all()
        assert set(drawn) == set(np.flatnonzero(arrivals <= day))


def test_every_category_has_an_item_before_the_log_starts() -> None:
    items = make_items(np.random.default_rng(0), 800, 14)
    assert set(items.category[items.arrival < 0]) == set(range(CATEGORIES))
    assert (np.diff(items.arrival) >= 0).all()


def test_brands_and_shops_keep_to_a_category() -> None:
    items = make_items(np.random.default_rng(0), 2000, 14)
    for group in (items.brand, items.shop):
        assert all(len(set(items.category[group == one])) == 1 for one in np.unique(group))


def test_a_quarter_of_the_users_arrive_during_the_log() -> None:
    users = make_users(np.random.default_rng(0), 4000, 14)
    assert (users.arrival >= 0).mean() == 0.25
    assert users.arrival.max() < 14
    assert (users.spend[users.arrival >= 0] == 0).all()


def test_what_a_user_is_asked_tells_something_about_what_they_want() -> None:
    users = make_users(np.random.default_rng(0), 20_000, 14)
    share = np.array([users.taste[users.city == city].mean(axis=0) for city in range(10)])
    assert share.std(axis=0).max() > 0.2
    assert np.corrcoef(users.membership, users.buy_lean)[0, 1] > 0.2
    assert 0.1 < np.corrcoef(users.click_lean, users.buy_lean)[0, 1] < 0.9
