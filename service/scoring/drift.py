"""How far what is seen is from what the bundle's validation split looked like.

PSI is the population stability index, sum of (a - e) ln(a / e) over bins with the share `a` here and `e` in the
reference. Knows reference statistics and counts. Does not know where the counts come from.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from contract.manifest import FeatureReference

LEAST_SHARE = 1e-4  # an empty bin counts as this, so that PSI stays finite


def psi(here: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """The population stability index of two lists of shares.

    >>> even = np.array([0.5, 0.5])
    >>> round(psi(even, even), 3), round(psi(np.array([0.9, 0.1]), even), 3)
    (0.0, 0.879)
    """
    a, e = np.maximum(here, LEAST_SHARE), np.maximum(reference, LEAST_SHARE)
    return float(((a - e) * np.log(a / e)).sum())


def bins_between(quantiles: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bins between equally spaced quantiles (0 % first, 100 % last): their inner upper edges, and the share of each.

    Quantiles that are equal make one bin of them, which holds their value.

    >>> edges, shares = bins_between([0.0, 1.0, 1.0, 1.0, 5.0])
    >>> edges.tolist(), shares.tolist()
    ([1.0], [0.75, 0.25])
    """
    inner = np.array(quantiles[1:-1])
    edges = np.unique(inner)
    below = np.searchsorted(inner, edges, side="right") / (len(quantiles) - 1)
    return edges, np.diff(np.append(below, 1.0), prepend=0.0)


def three(missing: float, unknown: float | None) -> NDArray[np.float64]:
    """Shares of missing, unknown and other values; `unknown` is the share of the present ones."""
    strange = (1 - missing) * (unknown or 0.0)
    return np.array([missing, strange, 1 - missing - strange])


def expected_shares(reference: FeatureReference) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The inner edges of the bins of a number, and the share of each with that of missing values last."""
    edges, shares = bins_between(reference.quantiles or ())
    return edges, np.append(shares * (1 - reference.missing_rate), reference.missing_rate)
