"""Affinities and costs are the paper's formulas, and the cheapest partition is the cheapest."""

import numpy as np
import pytest
from numpy.typing import NDArray

from training.schedules.grouping import affinity, branch_affinity, cheapest, cost, merged, partitions, separation

PAIRS = np.array(  # 0 with 2, 1 with 3
    [[1.0, 0.5, 0.9, 0.5], [0.5, 1.0, 0.4, 0.8], [0.9, 0.4, 1.0, 0.6], [0.5, 0.8, 0.6, 1.0]]
)
EACH = ((0,), (1,), (2,), (3,))


def everywhere(errors: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.ones(errors.shape, bool)


def test_affinity_is_the_share_of_rows_hard_for_both_or_for_neither() -> None:
    errors = np.array([[0.9, 0.6, 0.1], [0.8, 0.1, 0.1], [0.1, 0.2, 0.1], [0.2, 0.3, 0.9]])
    assert affinity(errors, everywhere(errors)).tolist() == [[1.0, 0.75, 0.25], [0.75, 1.0, 0.5], [0.25, 0.5, 1.0]]


def test_affinity_of_independent_errors_is_that_of_coins_and_of_opposite_ones_0() -> None:
    one, other = np.random.default_rng(0).random((2, 20_000))
    found = affinity(np.stack([one, other, 1 - one], 1), np.ones((20_000, 3), bool))
    assert found[0, 1] == pytest.approx(0.5, abs=0.02)
    assert found[0, 2] < 0.001


def test_a_pair_is_compared_where_both_conditions_hold_by_its_means_there() -> None:
    """All clicked rows are hard for the click by its mean over all rows, and two of them by its mean over these."""
    click = np.array([0.9, 0.8, 0.9, 0.8, *[0.1] * 16])
    conversion = np.array([0.7, 0.1, 0.7, 0.1, *[0.7, 0.1] * 8])
    held = np.stack([np.ones(20, bool), np.arange(20) < 4], 1)
    assert affinity(np.stack([click, conversion], 1), held)[0, 1] == 1.0
    held[:, 1] = False
    assert affinity(np.stack([click, conversion], 1), held)[0, 1] == 0.5


def test_branch_affinity_is_the_mean_over_one_of_the_least_affinity_to_the_other_both_ways() -> None:
    found = branch_affinity(PAIRS, ((0, 2), (1,), (3,)))
    there, back = (0.5 + 0.4) / 2, 0.4
    assert found[0, 1] == found[1, 0] == pytest.approx((there + back) / 2)
    assert found[1, 2] == 0.8
    assert np.diag(found).tolist() == [1.0, 1.0, 1.0]
    assert np.array_equal(branch_affinity(PAIRS, EACH), PAIRS)


def test_separation_is_the_mean_over_groups_of_the_mean_distance_to_the_farthest_member() -> None:
    assert separation(PAIRS, EACH) == 0.0
    assert separation(PAIRS, ((0, 2), (1, 3))) == pytest.approx((0.1 + 0.2) / 2)
    assert separation(PAIRS, ((0, 1, 2), (3,))) == pytest.approx((1 - (0.5 + 0.4 + 0.4) / 3) / 2)


def test_cost_counts_branches_beyond_the_first_and_weighs_separation() -> None:
    groups = ((0, 2), (1,), (3,))
    assert cost(PAIRS, groups, branch=0.2, alpha=0.0) == pytest.approx(0.4)
    assert cost(PAIRS, groups, branch=0.2, alpha=3.0) == pytest.approx(0.4 + 3.0 * 0.1 / 3)


def test_there_are_as_many_partitions_as_bell_counted_and_all_differ() -> None:
    for count, bell in enumerate((1, 1, 2, 5, 15, 52, 203)):
        found = [frozenset(map(frozenset, groups)) for groups in partitions(count)]
        assert len(set(found)) == len(found) == bell
        assert all(sorted(x for group in groups for x in group) == list(range(count)) for groups in found)


def test_cheapest_partition_is_the_planted_one_and_a_larger_alpha_separates_more() -> None:
    by_alpha = [cheapest(PAIRS, branch=0.2, alpha=alpha) for alpha in (0.0, 0.4, 1.0, 3.0, 30.0)]
    assert by_alpha[0] == ((0, 1, 2, 3),)
    assert by_alpha[2] == ((0, 2), (1, 3))
    assert by_alpha[-1] == EACH
    assert sorted(map(len, by_alpha)) == list(map(len, by_alpha))


def test_dearer_branches_separate_less_and_equal_costs_do_not_separate() -> None:
    assert len(cheapest(PAIRS, branch=0.6, alpha=1.0)) == 1
    assert cheapest(np.ones((3, 3)), branch=0.0, alpha=1.0) == ((0, 1, 2),)


def test_groups_of_branches_are_named_by_their_tasks() -> None:
    assert merged(((1,), (0, 3), (2,)), ((0, 2), (1,))) == ((1, 2), (0, 3))
