"""What is looked at for drift: it moves when the input does, and is forgotten when the window has passed."""

from typing import Any

import numpy as np
import pytest

from contract.manifest import FeatureReference, Reference, ScoreReference
from service.api.metrics.cells import Block
from service.api.metrics.drift import SLOTS, Drift, Layout, drifts
from service.scoring.scorer import Scorer

WINDOW_S = 12.0 * SLOTS
EVEN = tuple(float(x) for x in np.linspace(0, 100, 11))
REFERENCE = Reference(
    rows=1000,
    features=(
        FeatureReference(name="price", missing_rate=0.0, quantiles=EVEN),
        FeatureReference(name="item_id", missing_rate=0.0, unknown_rate=0.2),
        FeatureReference(name="recent_items", missing_rate=0.5, unknown_rate=0.0),
    ),
    scores=(ScoreReference(name="pctr", mean=0.5, quantiles=tuple(float(x) for x in np.linspace(0, 1, 11))),),
)


class Watch:
    """A drift with a clock of its own, over a block of two workers of which it is the first."""

    def __init__(self, scorer: Scorer, every: int = 1) -> None:
        self.scorer, self.now, self.block = scorer, 1e6, Block(2)
        self.layout = Layout(scorer.manifest.model_copy(update={"reference": REFERENCE}), start=7)
        self.drift = Drift(
            scorer, self.layout, self.block.row(0), every=every, window_s=WINDOW_S, clock=lambda: self.now
        )

    def see(self, prices: Any, items: Any, users: Any = None) -> None:
        people = max(map(len, (users or {}).values()), default=1)
        feeds = self.scorer.read(users or {}, {"price": prices, "item_id": items}, np.arange(len(items)) % people)
        self.drift.read((people, len(items)), feeds)

    def psi(self) -> tuple[dict[str, float], dict[str, float], int]:
        return drifts(self.block, self.layout, WINDOW_S, self.now)

    def counted(self, name: str) -> list[float]:
        at = self.layout.values[name]
        found: list[float] = self.block.values(at, at + 3).sum(axis=0).tolist()
        return found


@pytest.fixture
def watch(scorer: Scorer) -> Watch:
    return Watch(scorer)


def usual(rng: np.random.Generator, rows: int = 1000) -> tuple[list[float], list[str]]:
    return rng.uniform(0, 100, rows).tolist(), rng.choice(["i1", "i2", "i3", "i4", "stranger"], rows).tolist()


def test_traffic_like_the_reference_has_no_drift_and_shifted_traffic_has(watch: Watch) -> None:
    rng = np.random.default_rng(0)
    prices, items = usual(rng)
    watch.see(prices, items)
    features, _, _ = watch.psi()
    assert features["price"] < 0.05 and features["item_id"] < 0.05
    shifted = Watch(watch.scorer)
    shifted.see([price + 40 for price in prices], ["stranger"] * 500 + items[500:])
    features, _, _ = shifted.psi()
    assert features["price"] > 0.25 and features["item_id"] > 0.25


def test_scores_like_the_reference_have_no_drift_and_others_have(watch: Watch) -> None:
    even = np.linspace(0, 1, 1001, dtype=np.float32)
    watch.drift.ran({"pctr": even})
    assert watch.psi()[1]["pctr"] < 0.01 and watch.psi()[2] == 1
    shifted = Watch(watch.scorer)
    shifted.drift.ran({"pctr": even**3})
    assert shifted.psi()[1]["pctr"] > 0.25


def test_missing_and_unknown_values_are_counted(watch: Watch) -> None:
    watch.see([1.0, None, 3.0, None], ["i1", "stranger", "i2", "q"], {"city": ["Berlin", "stranger", None, ""]})
    assert watch.counted("price") == [4, 2, 0]
    assert watch.counted("item_id") == [4, 0, 2]
    assert watch.counted("city") == [4, 2, 1]
    assert watch.counted("age") == [4, 4, 0], "a feature that is not sent is missing"
    assert watch.counted("user_id") == [4, 4, 0] and watch.counted("category") == [4, 4, 0]


def test_a_sequence_is_missing_where_it_is_empty_and_its_members_may_be_unknown(watch: Watch) -> None:
    users: dict[str, Any] = {"recent_items": [["i1", "stranger"], [], None, ["i2"], [None]]}
    users["recent_actions"] = [["buy", None], [], None, ["sell"], ["buy"]]
    watch.see([1.0] * 5, ["i1"] * 5, users)
    assert watch.counted("recent_items") == [5, 3, 1]
    assert watch.counted("recent_actions") == [5, 3, 1], "what runs along a value that is missing is dropped with it"


def test_the_window_forgets(watch: Watch) -> None:
    rng = np.random.default_rng(0)
    watch.see([500.0] * 1000, ["stranger"] * 1000)
    watch.now += WINDOW_S * (SLOTS - 1) / SLOTS
    watch.see(*usual(rng))
    assert watch.psi()[0]["price"] > 0.25, "both are in the window"
    watch.now += 2 * WINDOW_S / SLOTS
    assert watch.psi()[0]["price"] < 0.05, "the older is not"
    watch.now += 2 * WINDOW_S
    assert watch.psi() == ({}, {}, 0)


def test_a_slot_that_is_due_again_begins_empty(watch: Watch) -> None:
    watch.see([500.0] * 1000, ["i1"] * 1000)
    watch.now += WINDOW_S
    watch.see(*usual(np.random.default_rng(0)))
    assert watch.psi()[0]["price"] < 0.05


def test_workers_are_added_up(watch: Watch) -> None:
    prices, _ = usual(np.random.default_rng(0))
    other = Drift(watch.scorer, watch.layout, watch.block.row(1), every=1, window_s=WINDOW_S, clock=lambda: watch.now)
    watch.see([price for price in prices if price < 50], ["i1"] * sum(price < 50 for price in prices))
    assert watch.psi()[0]["price"] > 0.25
    watch.drift = other
    watch.see([price for price in prices if price >= 50], ["i1"] * sum(price >= 50 for price in prices))
    assert watch.psi()[0]["price"] < 0.05


def test_one_in_so_many_is_looked_at(scorer: Scorer) -> None:
    watch = Watch(scorer, every=4)
    for _ in range(9):
        watch.see([1.0], ["i1"])
        watch.drift.ran({"pctr": np.array([0.5], np.float32)})
    assert watch.counted("price")[0] == 2 and watch.psi()[2] == 2
