"""The run of a simulation: the population, then hour after hour of traffic, behaviour and memory.

Knows the order of the stages. Does not know effects or files.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from training.simulator.behaviour import CLICK_RATE, Intercepts, draw_events, solve_intercepts, tendencies
from training.simulator.memory import BUY, CART, LENGTH, VIEW, WINDOW_DAYS, Counters, Histories
from training.simulator.population import CATEGORIES, make_items, make_users
from training.simulator.table import HOUR_MS, Columns, truth_table
from training.simulator.traffic import Shown, Visits, favourite_category, fill, hourly_rows, page_count, scenes

ROWS_PER_USER, ROWS_PER_ITEM = 60, 60
FEWEST_USERS, FEWEST_ITEMS = 200, 20 * CATEGORIES
PILOT_ROWS = 30_000
DAYS_BEFORE = 30  # of clicks that histories hold when the log starts


@dataclass(frozen=True)
class Hour:
    """The rows of an hour."""

    log: pa.Table
    truth: pa.Table
    last_of_day: bool


class Simulation:
    """A world of a size that fits `rows` impressions over `days` days, reproducible by `seed`."""

    def __init__(self, *, rows: int, seed: int, days: int) -> None:
        rng = np.random.default_rng([seed, 0])
        self._seed, self._days = seed, days
        self._users = make_users(rng, max(rows // ROWS_PER_USER, FEWEST_USERS), days)
        self._items = make_items(rng, max(rows // ROWS_PER_ITEM, FEWEST_ITEMS), days)
        self._hourly_rows = hourly_rows(rng, rows, days)
        self._histories = Histories(len(self._users.arrival))
        self._counters = Counters(len(self._items.arrival))
        self._remember_before(rng, rows / days)
        self._intercepts = self._pilot(rng)

    def hours(self) -> Iterator[Hour]:
        """The log in time order; to be run through once."""
        columns = Columns(self._users, self._items)
        impressions, requests = 0, 0
        for hour, rows in enumerate(self._hourly_rows.tolist()):
            rng = np.random.default_rng([self._seed, 1, hour])
            visits, shown = self._show(rng, rows, hour)
            pages = int(shown.visit[-1]) + 1 if rows else 0
            times_ms = hour * HOUR_MS + np.sort(rng.integers(0, HOUR_MS, pages))
            truth = self._intercepts.truth(*tendencies(self._users, self._items, visits, shown, hour))
            events = draw_events(rng, truth)
            log = columns.log((impressions, requests), visits, shown, times_ms, self._counters, events)
            yield Hour(log, truth_table(impressions, truth, events), last_of_day=hour % 24 == 23)
            impressions, requests = impressions + rows, requests + pages
            clicked = np.flatnonzero(events.click)
            self._histories.add(visits.user[shown.visit[clicked]], shown.item[clicked], events.action[clicked])
            self._counters.add(shown.item, events.click)
            if hour % 24 == 23:
                self._counters.close_day()

    def _show(self, rng: np.random.Generator, rows: int, hour: int) -> tuple[Visits, Shown]:
        """`rows` impressions of an hour; the last page is cut short."""
        day, pages = hour / 24, page_count(rows)
        while True:
            user = self._users.pool.draw(rng, np.zeros(pages, np.int64), day)
            visits = Visits(user, scenes(rng, pages), self._histories.read(user))
            shown = fill(rng, self._users, self._items, visits, day)
            if len(shown.item) >= rows:
                break
            pages *= 2
        shown = Shown(shown.visit[:rows], shown.item[:rows], shown.position[:rows])
        pages = int(shown.visit[-1]) + 1 if rows else 0
        return visits.first(pages), shown

    def _pilot(self, rng: np.random.Generator) -> Intercepts:
        hour = 12 * self._days
        return solve_intercepts(*tendencies(self._users, self._items, *self._show(rng, PILOT_ROWS, hour), hour))

    def _remember_before(self, rng: np.random.Generator, rows_per_day: float) -> None:
        """Histories and counters as a log that had run for long would have left them."""
        users, items = self._users, self._items
        known = np.flatnonzero(users.arrival < 0)
        clicks = DAYS_BEFORE * CLICK_RATE * rows_per_day * users.share[known] * np.exp(users.click_lean[known])
        length = rng.poisson(clicks).clip(0, LENGTH)
        user = np.repeat(known, length)
        item = items.by_category.draw(rng, favourite_category(rng, users, items, user), 0)
        self._histories.add(user, item, rng.choice([VIEW, CART, BUY], len(user), p=[0.72, 0.2, 0.08]))
        here = items.arrival < 0
        rate = np.clip(CLICK_RATE * np.exp(0.8 * items.quality - 0.3), 0, 1)
        for _ in range(WINDOW_DAYS):
            impressions = rng.poisson(rows_per_day * items.share * here)
            self._counters.add_day(impressions, rng.binomial(impressions, rate))
