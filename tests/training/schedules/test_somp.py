"""SOMP finds the rows that the others are made of."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from training.schedules.somp import somp


def left_over(weight: NDArray[np.float64], kept: list[int]) -> float:
    """norm(W - A W_kept)_F for the best A."""
    chosen = weight[kept]
    solution = np.linalg.lstsq(chosen.T, weight.T, rcond=None)[0]
    return float(np.linalg.norm(weight - solution.T @ chosen))


@pytest.mark.parametrize("seed", range(5))
def test_one_row_of_each_planted_direction_is_found_though_the_longest_rows_are_all_of_one(seed: int) -> None:
    random = np.random.default_rng(seed)
    planted = np.linalg.qr(random.normal(size=(12, 4)))[0].T * np.array([[4.0], [2.0], [2.0], [2.0]])
    direction = random.permutation(np.repeat(np.arange(4), 6))
    weight = planted[direction] * random.uniform(0.8, 1.2, (24, 1)) + random.normal(0, 0.05, (24, 12))
    assert sorted(direction[somp(weight, 4)]) == [0, 1, 2, 3]
    assert set(direction[np.linalg.norm(weight, axis=1).argsort()[-4:]]) == {0}


def test_a_matrix_of_rank_3_is_rebuilt_from_3_rows_and_not_from_2() -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(10, 3)) @ random.normal(size=(3, 8))
    assert left_over(weight, somp(weight, 3)) < 1e-9
    assert left_over(weight, somp(weight, 2)) > 1e-3


def test_it_is_near_the_best_of_all_choices_and_the_longest_rows_are_not() -> None:
    ratios, longest = [], []
    for seed in range(10):
        random = np.random.default_rng(seed)
        weight = random.normal(size=(9, 3)) @ random.normal(size=(3, 6)) + random.normal(0, 0.1, (9, 6))
        weight[:4] = 5 * weight[0] + random.normal(0, 0.1, (4, 6))
        best = min(left_over(weight, list(kept)) for kept in itertools.combinations(range(9), 3))
        ratios.append(left_over(weight, somp(weight, 3)) / best)
        longest.append(left_over(weight, list(np.linalg.norm(weight, axis=1).argsort()[-3:])) / best)
    assert np.median(ratios) < 1.5 < 2 < np.median(longest)


def test_where_fewer_rows_already_rebuild_all_the_longest_of_the_others_follow() -> None:
    weight = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.3, 0.3], [2.0, 2.0]])
    kept = somp(weight, 4)
    assert len(set(kept)) == 4
    assert 3 not in kept
    assert somp(np.zeros((3, 2)), 2) == [0, 1]


def test_only_as_many_rows_as_there_are_can_be_kept() -> None:
    assert somp(np.eye(3), 3) == [0, 1, 2]
    for kept in (0, 4):
        with pytest.raises(ValueError, match="of 3 rows"):
            somp(np.eye(3), kept)
