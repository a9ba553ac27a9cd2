import numpy as np
import pytest

from training.simulator.memory import BUY, CART, LENGTH, VIEW, WINDOW_DAYS, Counters, Histories, smoothed_rate


def array(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, np.int64)


def test_a_history_holds_each_users_clicks_oldest_first() -> None:
    histories = Histories(3)
    histories.add(array(2, 0, 2), array(10, 11, 12), array(VIEW, CART, BUY))
    histories.add(array(2), array(13), array(CART))
    recent = histories.read(array(2, 1, 0))
    assert recent.lengths.tolist() == [3, 0, 1]
    assert [row[row >= 0].tolist() for row in recent.items] == [[10, 12, 13], [], [11]]
    assert recent.actions[0, :3].tolist() == [VIEW, BUY, CART]


@pytest.mark.parametrize("at_once", [1, 7, 2 * LENGTH + 3])
def test_a_full_history_keeps_the_latest_however_many_come_at_once(at_once: int) -> None:
    histories, clicks = Histories(1), np.arange(2 * LENGTH + 3)
    for begin in range(0, len(clicks), at_once):
        some = clicks[begin : begin + at_once]
        histories.add(np.zeros_like(some), some, np.zeros_like(some))
    recent = histories.read(array(0))
    assert recent.items[0].tolist() == clicks[-LENGTH:].tolist()


def test_counters_know_whole_days_and_forget_those_that_left_the_window() -> None:
    counters = Counters(2)
    counters.add(array(0, 0, 1), np.array([True, False, False]))
    assert counters.read()[0].tolist() == [0, 0]
    counters.close_day()
    assert [kind.tolist() for kind in counters.read()] == [[2, 1], [1, 0]]
    for _ in range(WINDOW_DAYS - 1):
        counters.close_day()
    assert counters.read()[0].tolist() == [2, 1]
    counters.close_day()
    assert counters.read()[0].tolist() == [0, 0]


def test_a_rate_without_impressions_is_missing() -> None:
    rate = smoothed_rate(array(0, 24), array(0, 75))
    assert np.isnan(rate[0])
    assert rate[1] == np.float32(0.25)
