"""What the log remembers about users and items: recent behaviour (hourly) and counters (daily).

Knows events. Does not know why they happened, probabilities or files.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.simulator.population import Floats, Ints

VIEW, CART, BUY = 0, 1, 2
LENGTH = 20
WINDOW_DAYS = 7


@dataclass(frozen=True)
class Recent:
    """The last LENGTH clicks of R users, oldest first, then padding."""

    items: NDArray[np.int32]  # [R, LENGTH], -1 where padded
    actions: NDArray[np.int8]  # [R, LENGTH]
    lengths: Ints  # [R]


class Histories:
    """The last LENGTH clicks of every user, in a ring per user."""

    def __init__(self, users: int) -> None:
        self._items = np.full((users, LENGTH), -1, np.int32)
        self._actions = np.zeros((users, LENGTH), np.int8)
        self._count = np.zeros(users, np.int64)

    def add(self, user: Ints, item: Ints, action: Ints) -> None:
        """Append clicks in time order; a user may occur several times. All [clicks]."""
        order = np.argsort(user, kind="stable")
        user, item, action = user[order], item[order], action[order]
        rank = np.arange(len(user)) - np.searchsorted(user, user)
        at = (self._count[user] + rank) % LENGTH
        self._items[user, at], self._actions[user, at] = item, action
        np.add.at(self._count, user, 1)

    def read(self, user: Ints) -> Recent:
        """Recent behaviour of `user` [R]."""
        count = self._count[user]
        lengths = np.minimum(count, LENGTH)
        step = np.arange(LENGTH)
        at = ((count - lengths)[:, None] + step) % LENGTH
        items = np.where(step < lengths[:, None], self._items[user[:, None], at], -1)
        return Recent(items, self._actions[user[:, None], at], lengths)


class Counters:
    """Impressions and clicks of every item over the last WINDOW_DAYS whole days."""

    def __init__(self, items: int) -> None:
        self._past = np.zeros((2, WINDOW_DAYS, items), np.int32)
        self._today = np.zeros((2, items), np.int32)

    def add(self, item: Ints, click: NDArray[np.bool_]) -> None:
        """Count impressions [B] and their clicks [B] of the day under way."""
        size = self._today.shape[1]
        self._today += np.stack([np.bincount(item, minlength=size), np.bincount(item[click], minlength=size)])

    def add_day(self, impressions: Ints, clicks: Ints) -> None:
        """Count a whole day at once: impressions and clicks of every item."""
        self._today += np.stack([impressions, clicks])
        self.close_day()

    def close_day(self) -> None:
        """At midnight: the day under way joins the window, the oldest leaves it."""
        self._past = np.concatenate([self._past[:, 1:], self._today[:, None]], axis=1)
        self._today = np.zeros_like(self._today)

    def read(self) -> tuple[Ints, Ints]:
        """Impressions and clicks of every item over the window."""
        impressions, clicks = self._past.sum(axis=1)
        return impressions, clicks


def smoothed_rate(clicks: Ints, impressions: Ints) -> Floats:
    """Clicks per impression drawn towards 4 % by 25 impressions; NaN where there was no impression."""
    rate = (clicks + 1) / (impressions + 25)
    return np.where(impressions > 0, rate, np.nan).astype(np.float32)
