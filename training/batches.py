"""Batches of an epoch: contiguous blocks in random order, shuffled within a window of them.

Knows arrays on disk. Does not know what is done with a batch.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.inputs import Encoded
from training.tensors import Tensors

BLOCK_ROWS = 2**13
WINDOW_BLOCKS = 64


def shuffled(
    rows: Tensors, batch_rows: int, negative_rate: float, random: np.random.Generator
) -> Iterator[tuple[Encoded, Tensor]]:
    """One epoch of (encoded rows, labels [B, T]); of the rows negative in the first task a random share.

    Reads the disk in blocks of 8,192 rows and holds 64 blocks; batches within a window are equally large.
    """
    starts = random.permutation(np.arange(0, len(rows), BLOCK_ROWS))
    for first in range(0, len(starts), WINDOW_BLOCKS):
        blocks = [np.arange(s, min(s + BLOCK_ROWS, len(rows))) for s in starts[first : first + WINDOW_BLOCKS]]
        window = rows.take(np.concatenate(blocks))
        order = random.permutation(len(window))
        if negative_rate < 1.0:
            order = order[(window.labels[order, 0] > 0) | (random.random(len(order)) < negative_rate)]
        for chosen in np.array_split(order, max(1, round(len(order) / batch_rows))):
            yield as_torch(window.take(chosen))


def in_order(rows: Tensors, batch_rows: int) -> Iterator[tuple[Encoded, Tensor]]:
    """All rows, in order."""
    for start in range(0, len(rows), batch_rows):
        yield as_torch(rows.take(slice(start, start + batch_rows)))


def as_torch(rows: Tensors) -> tuple[Encoded, Tensor]:
    """Share the memory of arrays with torch; labels become float32."""
    ids = {dim: torch.from_numpy(values) for dim, values in rows.ids.items()}
    labels: NDArray[np.float32] = rows.labels.astype(np.float32)
    return Encoded(ids, torch.from_numpy(rows.numbers)), torch.from_numpy(labels)
