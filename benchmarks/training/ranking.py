"""The AUC by which all systems are judged.

Knows numpy. Independent of the metrics of `training`, which it checks by the way.
"""

import numpy as np
from numpy.typing import ArrayLike


def auc(label: ArrayLike, score: ArrayLike) -> float:
    """Probability that a positive scores above a negative; ties count half.

    >>> auc([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.8])
    0.875
    """
    positive = np.asarray(label) > 0
    _, index, counts = np.unique(np.asarray(score), return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    p, n = int(positive.sum()), int((~positive).sum())
    return float((mean_rank[index[positive]].sum() - p * (p + 1) / 2) / (p * n))
