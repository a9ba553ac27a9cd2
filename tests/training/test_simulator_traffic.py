import numpy as np
import pytest

from training.simulator.memory import LENGTH, Recent
from training.simulator.population import Items, Users, make_items, make_users
from training.simulator.traffic import NEW, NEW_FOR_DAYS, Shown, Visits, fill, hourly_rows

PAGES, DAY = 4000, 10.0


@pytest.fixture(scope="module")
def users() -> Users:
    return make_users(np.random.default_rng(1), 500, 14)


@pytest.fixture(scope="module")
def items() -> Items:
    return make_items(np.random.default_rng(2), 2000, 14)


def visits_of(user: int, recent_item: int | None) -> Visits:
    held = np.full((PAGES, LENGTH), -1, np.int32)
    if recent_item is not None:
        held[:, 0] = recent_item
    lengths = np.full(PAGES, 0 if recent_item is None else 1)
    recent = Recent(held, np.zeros((PAGES, LENGTH), np.int8), lengths)
    return Visits(np.full(PAGES, user), np.zeros(PAGES, np.int64), recent)


def filled(users: Users, items: Items, visits: Visits) -> Shown:
    return fill(np.random.default_rng(3), users, items, visits, DAY)


def test_every_row_falls_into_an_hour_and_nights_are_quiet() -> None:
    counts = hourly_rows(np.random.default_rng(0), 100_000, 14)
    assert (len(counts), counts.sum()) == (14 * 24, 100_000)
    of_day = counts.reshape(14, 24).sum(axis=0)
    assert of_day[2:5].max() < 0.5 * of_day[19:22].min()


def test_only_items_that_have_arrived_are_shown(users: Users, items: Items) -> None:
    assert (items.arrival[filled(users, items, visits_of(0, None)).item] <= DAY).all()


def test_items_that_have_just_arrived_are_shown_beyond_their_popularity(users: Users, items: Items) -> None:
    shown = filled(users, items, visits_of(0, None))
    new = (items.arrival > DAY - NEW_FOR_DAYS) & (items.arrival <= DAY)
    assert new[shown.item].mean() > NEW + 0.5 * items.share[new].sum()


def test_what_resembles_the_recent_items_is_shown_more(users: Users, items: Items) -> None:
    rare = int(np.flatnonzero(items.category == np.bincount(items.category).argmin())[0])
    without, with_it = (
        (items.category[filled(users, items, visits_of(0, recent)).item] == items.category[rare]).mean()
        for recent in (None, rare)
    )
    assert with_it > without + 0.1


def test_users_are_shown_what_is_to_their_taste(users: Users, items: Items) -> None:
    """Users of opposite taste see the other's items less than their own."""
    one = int(np.argmax(users.taste[:, 0]))
    other = int(np.argmin(users.taste[one] @ users.taste.T))
    taste_of_one = [
        (items.taste[filled(users, items, visits_of(user, None)).item] @ users.taste[one]).mean()
        for user in (one, other)
    ]
    assert taste_of_one[0] > taste_of_one[1] + 0.5


def test_better_positions_hold_more_popular_items(users: Users, items: Items) -> None:
    shown = filled(users, items, visits_of(0, None))
    popularity = np.log(items.share[shown.item])
    assert popularity[shown.position == 1].mean() > popularity[shown.position == 10].mean() + 0.3
