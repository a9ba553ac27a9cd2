"""Which tasks belong together: affinities of tasks and branches, and the cheapest partition of branches.

Knows errors, rows and costs. Does not know networks, nor how the errors came about. After Lu et al. 2017, section 3.2.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from models.architecture import Partition

Matrix = NDArray[np.float64]


def affinity(errors: Matrix, held: NDArray[np.bool_]) -> Matrix:
    """A(i, j) = P(e_i = e_j) with e_i = "the row is hard for task i": its error is above the task's mean.

    errors [N, T] = |label - probability|; held [N, T]: rows where a task's condition holds. -> [T, T].
    NOTE[DIFF]: the paper's tasks have labels on every row. Here a pair is compared on the rows where the conditions of
    both hold, and a task's mean is over these rows: a click is certain where conversion is asked about, and all such
    rows would be hard for the click by its mean over all impressions. A pair without rows has the .5 of coins.
    """
    tasks = errors.shape[1]
    found = np.eye(tasks)
    for i in range(tasks):
        for j in range(i):
            both = errors[held[:, i] & held[:, j]][:, [i, j]]
            hard = both > both.mean(axis=0) if len(both) else np.empty((0, 2), bool)
            found[i, j] = found[j, i] = float((hard[:, 0] == hard[:, 1]).mean()) if len(both) else 0.5
    return found


def branch_affinity(tasks: Matrix, branches: Partition) -> Matrix:
    """A_b(k, l) = (a(k, l) + a(l, k)) / 2 with a(k, l) = mean over tasks i of k of min over tasks j of l of A(i, j).

    [T, T] and K branches -> [K, K]; a branch's affinity to itself is 1.
    """
    one_way = np.array([[tasks[np.ix_(k, m)].min(axis=1).mean() for m in branches] for k in branches])
    found: Matrix = (one_way + one_way.T) / 2
    np.fill_diagonal(found, 1.0)
    return found


def separation(affinities: Matrix, groups: Partition) -> float:
    """L_sep: the mean over groups g of 1 - mean over k in g of min over l in g of A_b(k, l)."""
    return float(np.mean([1.0 - affinities[np.ix_(group, group)].min(axis=1).mean() for group in groups]))


def cost(affinities: Matrix, groups: Partition, *, branch: float, alpha: float) -> float:
    """(d - 1) `branch` + alpha L_sep for d groups, where `branch` is L_0 2^(p_l)."""
    return (len(groups) - 1) * branch + alpha * separation(affinities, groups)


def cheapest(affinities: Matrix, *, branch: float, alpha: float) -> Partition:
    """The partition of the branches that costs least; the one with the fewest groups among equals.

    NOTE[DIFF]: every partition is tried, which is exact. The paper tries every number of groups with the grouping that
    spectral clustering finds, having 40 tasks; a funnel has a few.
    """
    ordered = sorted(partitions(len(affinities)), key=len)
    return min(ordered, key=lambda groups: round(cost(affinities, groups, branch=branch, alpha=alpha), 12))


def partitions(count: int) -> Iterator[Partition]:
    """Every partition of 0 .. count - 1, groups in the order of their first members.

    >>> list(partitions(2))
    [((0, 1),), ((0,), (1,))]
    """
    if count == 0:
        yield ()
        return
    last = count - 1
    for groups in partitions(last):
        for i, group in enumerate(groups):
            yield (*groups[:i], (*group, last), *groups[i + 1 :])
        yield (*groups, (last,))


def merged(branches: Partition, groups: Partition) -> Partition:
    """The tasks of each group of branches, in order."""
    return tuple(tuple(sorted(task for k in group for task in branches[k])) for group in groups)
