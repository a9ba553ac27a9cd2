"""Who and what there is: users, items, and the latent traits that persist behind their ids.

Knows sizes and distributions. Does not know time passing, pages, clicks or files.
Indices run in order of arrival; the log turns them into ids.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

CATEGORIES, CITIES, DEVICES, GENDERS, LEVELS = 40, 80, 6, 2, 4
SEGMENTS, TASTES = 10, 6
ABSENT = -1  # the code of a missing attribute


class Pool:
    """Indices drawn by weight among those that have arrived, overall or inside a group."""

    def __init__(self, weight: NDArray[np.float64], arrival: Floats, group: Ints | None = None) -> None:
        group = np.zeros(len(weight), np.int64) if group is None else group
        self._order = np.lexsort((arrival, group))
        day = np.clip(arrival[self._order], -1, None)
        self._span = float(day.max()) + 2
        self._key = group[self._order] * self._span + day
        self._upto = np.concatenate([[0.0], np.cumsum(weight[self._order])])
        self._groups = np.arange(int(group.max()) + 1)
        self._first = np.searchsorted(self._key, self._groups * self._span - 1)

    def draw(self, rng: np.random.Generator, group: Ints, day: float) -> Ints:
        """One index for each entry of `group` [B] -> [B]. Every group needs a member that has arrived by `day`."""
        end = np.searchsorted(self._key, self._groups * self._span + min(day, self._span - 1.5), side="right")
        low, high = self._upto[self._first[group]], self._upto[end[group]]
        at = np.searchsorted(self._upto, low + rng.random(len(group)) * (high - low), side="right") - 1
        drawn: Ints = self._order[np.clip(at, self._first[group], end[group] - 1)]
        return drawn


@dataclass(frozen=True)
class Users:
    """One entry per user, in order of arrival. Codes may be ABSENT, numbers NaN."""

    arrival: Floats  # day; negative: before the log starts
    city: Ints
    gender: Ints
    device: Ints
    membership: Ints
    age: Floats
    spend: Floats  # over the 90 days before the log starts; mostly zero
    taste: Floats  # [users, TASTES]
    thrift: Floats
    click_lean: Floats
    buy_lean: Floats
    share: Floats  # of the visits when all have arrived
    pool: Pool


@dataclass(frozen=True)
class Items:
    """One entry per item, in order of arrival."""

    arrival: Floats
    category: Ints
    brand: Ints
    shop: Ints
    price: Floats  # as logged: NaN where missing
    dearness: Floats  # log price within its category, in standard deviations
    taste: Floats  # [items, TASTES]
    quality: Floats  # moves clicks and conversions
    service: Floats  # moves conversions only
    pool: Pool
    by_category: Pool
    category_taste: Floats  # [CATEGORIES, TASTES]
    share: Floats  # of the draws from `pool` when all have arrived


def make_users(rng: np.random.Generator, count: int, days: int) -> Users:
    """`count` users, a quarter of whom arrive during the log."""
    arrival = _arrivals(rng, count, days, newcomers=0.25, mean_age_days=300)
    segment = rng.choice(SEGMENTS, count, p=rng.dirichlet(np.full(SEGMENTS, 4.0)))
    wealth = _normal(rng, SEGMENTS)[segment] * 0.6 + _normal(rng, count) * 0.8
    lean = _normal(rng, SEGMENTS)[segment] * 0.5 + _normal(rng, count)
    level = np.searchsorted([0.4, 1.4, 2.3], 0.8 * wealth + 0.6 * _normal(rng, count)).astype(np.int64)
    buyer = (rng.random(count) < 0.3 + 0.1 * level) & (arrival < 0)
    spend = np.where(buyer, np.exp(4.5 + 0.8 * wealth + 0.9 * _normal(rng, count)), 0)
    weight = rng.permutation(_zipf(count, 0.9, head=0.01 * count))
    age = rng.uniform(22, 58, SEGMENTS)[segment] + 7 * _normal(rng, count)
    women = rng.random(count) < rng.uniform(0.1, 0.9, SEGMENTS)[segment]
    home = rng.permuted(np.tile(np.arange(CITIES), (SEGMENTS, 1)), axis=1)
    city = home[segment, rng.choice(CITIES, count, p=_zipf(CITIES, 1.1))]
    device = np.clip(np.round(2.5 + 1.2 * wealth + 0.8 * _normal(rng, count)), 0, DEVICES - 1)
    return Users(
        arrival=arrival,
        city=_absent(rng, city, 0.03),
        gender=_absent(rng, women.astype(np.int64), 0.10),
        device=device.astype(np.int64),
        membership=level,
        age=_missing(rng, np.clip(np.round(age), 16, 85), 0.15),
        spend=np.round(spend, 2).astype(np.float32),
        taste=_normal(rng, SEGMENTS, TASTES)[segment] * 0.9 + _normal(rng, count, TASTES) * 0.5,
        thrift=1 - 0.5 * wealth + 0.4 * _normal(rng, count),
        click_lean=0.3 * lean + 0.15 * _normal(rng, count),
        buy_lean=0.35 * lean + 0.3 * wealth + 0.15 * level.astype(np.float32),
        share=weight.astype(np.float32),
        pool=Pool(weight, arrival),
    )


def make_items(rng: np.random.Generator, count: int, days: int) -> Items:
    """`count` (>= CATEGORIES) items, a fifth of which arrive during the log; each category has one from before."""
    arrival = _arrivals(rng, count, days, newcomers=0.2, mean_age_days=120)
    category = _grouped(rng, count)
    makers, shops = CATEGORIES + int(3 * count**0.5), CATEGORIES + int(5 * count**0.5)
    maker_of, shop_of = _grouped(rng, makers), _grouped(rng, shops)
    brand = Pool(rng.permutation(_zipf(makers, 0.9, head=2)), np.zeros(makers, np.float32), maker_of).draw(
        rng, category, 0
    )
    shop = Pool(rng.permutation(_zipf(shops, 0.9, head=2)), np.zeros(shops, np.float32), shop_of).draw(rng, category, 0)
    dearness = 0.8 * _normal(rng, makers)[brand] + 0.6 * _normal(rng, count)
    price = np.round(np.exp((3.5 + 0.9 * _normal(rng, CATEGORIES))[category] + 0.6 * dearness), 2)
    category_taste = _normal(rng, CATEGORIES, TASTES)
    own = 0.5 * _normal(rng, makers, TASTES)[brand] + 0.3 * _normal(rng, count, TASTES)
    quality = _levels(rng, (0.3, category), (0.65, brand), (0.65, shop), (0.4, np.arange(count)))
    weight = rng.permutation(_zipf(count, 0.9, head=0.002 * count)) * np.exp(0.4 * quality.astype(np.float64))
    return Items(
        arrival=arrival,
        category=category,
        brand=brand,
        shop=shop,
        price=_missing(rng, np.maximum(price, 0.01), 0.04),
        dearness=dearness,
        taste=category_taste[category] + own,
        quality=quality,
        service=_levels(rng, (0.4, brand), (0.4, shop), (0.3, np.arange(count))),
        pool=Pool(weight, arrival),
        by_category=Pool(weight, arrival, category),
        category_taste=category_taste,
        share=(weight / weight.sum()).astype(np.float32),
    )


def _normal(rng: np.random.Generator, *shape: int) -> Floats:
    return rng.standard_normal(shape, np.float32)


def _zipf(count: int, exponent: float, head: float = 0) -> NDArray[np.float64]:
    """Shares in descending order, proportional to 1 / (head + rank)^exponent (Zipf-Mandelbrot)."""
    weight = (head + np.arange(1, count + 1, dtype=np.float64)) ** -exponent
    share: NDArray[np.float64] = weight / weight.sum()
    return share


def _arrivals(rng: np.random.Generator, count: int, days: int, *, newcomers: float, mean_age_days: float) -> Floats:
    new = int(count * newcomers)
    before = -1 - rng.exponential(mean_age_days, count - new)
    return np.sort(np.concatenate([before, rng.uniform(0, days, new)])).astype(np.float32)


def _grouped(rng: np.random.Generator, count: int) -> Ints:
    """A category for each of `count` (>= CATEGORIES) things, the first ones covering every category."""
    rest = rng.choice(CATEGORIES, count - CATEGORIES, p=_zipf(CATEGORIES, 0.8, head=1))
    return np.concatenate([np.arange(CATEGORIES), rest])


def _levels(rng: np.random.Generator, *levels: tuple[float, Ints]) -> Floats:
    """The sum of a normal effect per level: (standard deviation, which group each entry is of)."""
    total: Floats = np.sum([scale * _normal(rng, int(group.max()) + 1)[group] for scale, group in levels], axis=0)
    return total.astype(np.float32)


def _absent(rng: np.random.Generator, codes: Ints, rate: float) -> Ints:
    return np.where(rng.random(len(codes)) < rate, ABSENT, codes)


def _missing(rng: np.random.Generator, values: NDArray[np.floating], rate: float) -> Floats:
    return np.where(rng.random(len(values)) < rate, np.nan, values).astype(np.float32)
