"""What follows an impression: true pCTR and pCVR, and the events drawn from them.

Knows the effects of traits, context and recent behaviour. Does not know how impressions come about, or files.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.simulator.memory import BUY, CART, VIEW, Recent
from training.simulator.population import Floats, Ints, Items, Users
from training.simulator.traffic import Shown, Visits

CLICK_RATE, CONVERSION_RATE = 0.04, 0.08
# how much a view, a cart and a purchase of something similar count, for the click and for the conversion
CLICK_WEIGHT, BUY_WEIGHT = np.array([1, 1.5, 2], np.float32), np.array([0.5, 2.5, 2], np.float32)
DECAY = np.float32(0.92)  # of a recent action's weight, with every later one
SCENE_CLICK, SCENE_BUY = np.array([0, 0.5, 0.2, -0.2], np.float32), np.array([0, 0.4, 0.2, 0.9], np.float32)
DEVICE_BUY = np.array([-0.2, -0.1, 0, 0, 0.1, 0.2], np.float32)


@dataclass(frozen=True)
class Truth:
    """True probabilities of B impressions."""

    pctr: Floats
    pcvr: Floats


@dataclass(frozen=True)
class Events:
    """What happened on B impressions."""

    click: NDArray[np.bool_]
    would_convert: NDArray[np.bool_]
    action: Ints  # VIEW, CART or BUY; of meaning on clicked rows only

    @property
    def conversion(self) -> NDArray[np.bool_]:
        """Conversions: a click first."""
        return self.click & self.would_convert


@dataclass(frozen=True)
class Intercepts:
    """What sets the rates."""

    click: float
    buy: float

    def truth(self, click: Floats, buy: Floats) -> Truth:
        """Probabilities of the two tendencies [B], [B]."""
        return Truth(_sigmoid(click + np.float32(self.click)), _sigmoid(buy + np.float32(self.buy)))


def tendencies(users: Users, items: Items, visits: Visits, shown: Shown, hour: int) -> tuple[Floats, Floats]:
    """Logits of click and of conversion, less their intercepts, each [B]. `hour` counts from the log's start."""
    user, item, scene = visits.user[shown.visit], shown.item, visits.scene[shown.visit]
    taste = np.einsum("bk,bk->b", users.taste[user], items.taste[item]) / np.float32(2.7)
    click_alike, buy_alike = _alike(items, visits.recent, shown)
    dear = users.thrift[user] * items.dearness[item]
    age = np.log1p(np.maximum(hour / 24 - items.arrival[item], 0) / 7).astype(np.float32)
    evening = np.float32(np.cos((hour % 24 - 21) / 24 * 2 * np.pi))
    click = (
        0.6 * items.quality[item]
        + 0.35 * taste
        + 0.4 * click_alike
        + users.click_lean[user]
        + SCENE_CLICK[scene]
        - 0.2 * dear
        - 0.45 * np.log(shown.position).astype(np.float32)
        - 0.12 * age
        + 0.1 * evening
    )
    buy = (
        0.9 * items.quality[item]
        + 0.4 * items.service[item]
        + 0.3 * taste
        + 0.5 * buy_alike
        + users.buy_lean[user]
        + SCENE_BUY[scene]
        + DEVICE_BUY[users.device[user]]
        - 0.5 * dear
        + 0.15 * evening
    )
    return click, buy


def solve_intercepts(click: Floats, buy: Floats) -> Intercepts:
    """Intercepts at which a sample's mean pCTR is CLICK_RATE and, weighted by pCTR, its mean pCVR CONVERSION_RATE."""
    at_click = _solve(click, np.ones_like(click), CLICK_RATE)
    return Intercepts(at_click, _solve(buy, _sigmoid(click + np.float32(at_click)), CONVERSION_RATE))


def draw_events(rng: np.random.Generator, truth: Truth) -> Events:
    """Independent draws, given the row. Some of the clicks that do not convert end in the cart."""
    chance = rng.random((3, len(truth.pctr)), np.float32)
    click, would_convert = chance[0] < truth.pctr, chance[1] < truth.pcvr
    cart = chance[2] < np.minimum(0.08 + 1.5 * truth.pcvr, 0.5)
    return Events(click, would_convert, np.where(would_convert, BUY, np.where(cart, CART, VIEW)))


def _alike(items: Items, recent: Recent, shown: Shown) -> tuple[Floats, Floats]:
    """How much each impression [B] resembles the recent behaviour of its user, for click and for conversion.

    log(1 + sum over recent actions of weight x decay x similarity), with similarity .6 for the same category
    and .4 more for the same brand.
    """
    length = recent.items.shape[1]
    later = recent.lengths[:, None] - 1 - np.arange(length)
    decay = np.where(later >= 0, DECAY ** np.maximum(later, 0), 0).astype(np.float32)
    category, brand = (items.category[recent.items], items.brand[recent.items])
    visit = shown.visit
    similarity = np.float32(0.6) * (category[visit] == items.category[shown.item][:, None])
    similarity += np.float32(0.4) * (brand[visit] == items.brand[shown.item][:, None])
    sums = (
        np.einsum("bl,bl->b", similarity, (decay * weight[recent.actions])[visit])
        for weight in (CLICK_WEIGHT, BUY_WEIGHT)
    )
    click, buy = (np.log1p(total) for total in sums)
    return click, buy


def _sigmoid(logit: Floats) -> Floats:
    return (1 / (1 + np.exp(-logit))).astype(np.float32)


def _solve(logit: Floats, weight: Floats, rate: float) -> float:
    """The intercept at which the weighted mean probability is `rate`, by bisection."""
    low, high = -20.0, 20.0
    for _ in range(40):
        middle = (low + high) / 2
        mean = float(np.average(_sigmoid(logit + np.float32(middle)), weights=weight))
        low, high = (middle, high) if mean < rate else (low, middle)
    return (low + high) / 2
