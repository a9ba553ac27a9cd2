"""Simultaneous orthogonal matching pursuit: which units of a layer the others are combinations of.

Knows matrices. Does not know networks or where a matrix comes from.
"""

import numpy as np
from numpy.typing import NDArray

NEGLIGIBLE = 1e-6  # of the matrix's norm: what single precision leaves of a residual that is 0


def somp(weight: NDArray[np.floating], kept: int) -> list[int]:
    """Greedily choose rows w whose span is nearest to all rows: [units, inputs] -> `kept` numbers, ascending.

    min over A and w of norm(W - A W_w)_F (Lu et al. 2017, section 3.1, eq. 1), by the pursuit of Tropp et al. (2006,
    "Algorithms for simultaneous sparse approximation"): each step takes the row with the largest
    sum_i |<r_i, w_j>| / norm(w_j) over the residuals r_i, then removes its span from every residual.
    NOTE[DIFF]: once nothing is left to reconstruct, the longest of the other rows follow; the paper has no such case.
    Raises: ValueError when more rows are to be kept than there are.

    >>> somp(np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.2]]), 1)
    [1]
    """
    if not 1 <= kept <= len(weight):
        raise ValueError(f"{kept} of {len(weight)} rows cannot be kept")
    residual = weight.astype(np.float64)
    norms = np.linalg.norm(residual, axis=1)
    atoms = residual / np.maximum(norms, np.finfo(np.float64).tiny)[:, None]
    left, least = np.ones(len(weight), bool), NEGLIGIBLE * np.linalg.norm(residual)
    for _ in range(kept):
        exhausted = np.linalg.norm(residual) <= least
        gains = norms if exhausted else np.abs(residual @ atoms.T).sum(axis=0)
        best = int(np.where(left, gains, -1.0).argmax())
        left[best] = False
        length = np.linalg.norm(residual[best])
        if length > least:
            direction = residual[best] / length
            residual -= np.outer(residual @ direction, direction)
    chosen: list[int] = np.flatnonzero(~left).tolist()
    return chosen
