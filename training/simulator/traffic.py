"""Who opens a page when, which items it shows and in which order.

Knows the production system that put the pages together. Does not know clicks.
"""

from dataclasses import dataclass

import numpy as np

from training.simulator.memory import Recent
from training.simulator.population import Floats, Ints, Items, Users

SCENES = ("home", "search", "detail", "cart")
SCENE_SHARE = (0.5, 0.25, 0.18, 0.07)
SHORTEST_PAGE, LONGEST_PAGE = 4, 16
NEW_FOR_DAYS = 3
# where a slot's candidate comes from; what is left is drawn from what is popular
TO_TASTE, LIKE_RECENT, NEW = 0.30, 0.25, 0.05


@dataclass(frozen=True)
class Visits:
    """R pages opened within an hour."""

    user: Ints  # [R]
    scene: Ints  # [R]
    recent: Recent  # of [R] users

    def first(self, pages: int) -> "Visits":
        """The first `pages` of them."""
        recent = self.recent
        held = Recent(recent.items[:pages], recent.actions[:pages], recent.lengths[:pages])
        return Visits(self.user[:pages], self.scene[:pages], held)


@dataclass(frozen=True)
class Shown:
    """B impressions on the pages of an hour, in the order of time and position."""

    visit: Ints  # [B] index of the page
    item: Ints  # [B]
    position: Ints  # [B] from 1


def hourly_rows(rng: np.random.Generator, rows: int, days: int) -> Ints:
    """How many of `rows` impressions fall into each hour [24 * days]: nights are quiet, weekends busier."""
    hour = np.arange(24 * days)
    of_day = 1 + 0.75 * np.sin((hour % 24 - 9) / 24 * 2 * np.pi) + 0.35 * np.cos((hour % 24 - 21) / 12 * 2 * np.pi)
    weekend = 1 + 0.2 * (hour // 24 % 7 >= 5)
    upto = np.cumsum(np.maximum(of_day, 0.1) * weekend * rng.lognormal(0, 0.1, len(hour)))
    counts: Ints = np.diff(np.round(upto / upto[-1] * rows).astype(np.int64), prepend=0)
    return counts


def page_count(rows: int) -> int:
    """Pages that are all but sure to hold `rows` impressions."""
    return 8 + int(1.3 * rows / ((SHORTEST_PAGE + LONGEST_PAGE) / 2))


def scenes(rng: np.random.Generator, count: int) -> Ints:
    """A scene for each of `count` pages."""
    return rng.choice(len(SCENES), count, p=SCENE_SHARE)


def fill(rng: np.random.Generator, users: Users, items: Items, visits: Visits, day: float) -> Shown:
    """Choose the items of each page, no item twice on a page, and put them into order."""
    length = rng.integers(SHORTEST_PAGE, LONGEST_PAGE + 1, len(visits.user))
    visit = np.repeat(np.arange(len(visits.user)), length)
    item = _candidates(rng, users, items, visits, visit, day)
    _, first = np.unique(visit * len(items.arrival) + item, return_index=True)
    visit, item = visit[first], item[first]
    order = np.lexsort((-_policy(rng, users, items, visits.user[visit], item), visit))
    visit, item = visit[order], item[order]
    return Shown(visit, item, np.arange(len(visit)) - np.searchsorted(visit, visit) + 1)


def favourite_category(rng: np.random.Generator, users: Users, items: Items, user: Ints) -> Ints:
    """A category for each of `user` [B], drawn with probability softmax(taste)."""
    score = users.taste[user] @ items.category_taste.T
    best: Ints = np.argmax(score + rng.gumbel(size=score.shape), axis=1)
    return best


def _candidates(rng: np.random.Generator, users: Users, items: Items, visits: Visits, visit: Ints, day: float) -> Ints:
    """An item for each slot [B], from one of four sources."""
    user, recent = visits.user[visit], visits.recent
    item = items.pool.draw(rng, np.zeros(len(visit), np.int64), day)
    source = rng.random(len(visit))
    tasted = np.flatnonzero(source < TO_TASTE)
    item[tasted] = items.by_category.draw(rng, favourite_category(rng, users, items, user[tasted]), day)
    alike = np.flatnonzero((source >= TO_TASTE) & (source < TO_TASTE + LIKE_RECENT) & (recent.lengths[visit] > 0))
    step = (rng.random(len(alike)) * recent.lengths[visit[alike]]).astype(np.int64)
    item[alike] = items.by_category.draw(rng, items.category[recent.items[visit[alike], step]], day)
    begin, end = np.searchsorted(items.arrival, [day - NEW_FOR_DAYS, day])
    if end > begin:
        new = np.flatnonzero(source > 1 - NEW)
        item[new] = rng.integers(begin, end, len(new))
    return item


def _policy(rng: np.random.Generator, users: Users, items: Items, user: Ints, item: Ints) -> Floats:
    """The score by which the production system orders a page: popularity, taste and chance."""
    taste = np.einsum("bk,bk->b", users.taste[user], items.taste[item])
    score: Floats = 0.3 * np.log(items.share[item]) + 0.3 * taste + rng.standard_normal(len(item), np.float32)
    return score
