"""Numbers that forked workers write, each in its own row, and that any of them can read and add up.

A worker is the only writer of its row, so nothing is locked; one that is started in the place of another goes on in the
same row, so that no count ever goes back. Knows memory. Does not know what is counted.
"""

import mmap
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CELLS = 2**20  # of a worker, 8 MiB of address space; memory is taken as it is written


class Block:
    """A row of float64 cells for each worker, all 0. Made before the workers are forked."""

    def __init__(self, workers: int, cells: int = CELLS) -> None:
        self.workers, self.cells = workers, cells
        self._memory = mmap.mmap(-1, workers * cells * 8)
        self._all = np.frombuffer(self._memory, np.float64).reshape(workers, cells)
        self._rows = memoryview(self._memory).cast("d")

    def row(self, worker: int) -> "memoryview[float]":
        """The cells of a worker, to write."""
        return self._rows[worker * self.cells : (worker + 1) * self.cells]

    def values(self, start: int, stop: int) -> NDArray[np.float64]:
        """Some cells of every worker: [workers, stop - start]."""
        return self._all[:, start:stop].copy()


class Counter:
    """One number that only grows."""

    def __init__(self, row: "memoryview[float]", at: int) -> None:
        self._row, self._at = row, at

    def add(self, amount: float = 1.0) -> None:
        """Count."""
        self._row[self._at] += amount


class Histogram:
    """How many values lie up to each edge and above the one before, how many above all, and the sum of them."""

    def __init__(self, row: "memoryview[float]", at: int, edges: Sequence[float]) -> None:
        self._row, self._at, self._edges, self._sum = row, at, edges, at + len(edges) + 1

    @staticmethod
    def size(edges: Sequence[float]) -> int:
        """How many cells it takes."""
        return len(edges) + 2

    def observe(self, value: float) -> None:
        """Count one value."""
        self._row[self._at + bisect_left(self._edges, value)] += 1
        self._row[self._sum] += value

    def observe_all(self, values: NDArray[np.float32]) -> None:
        """Count many."""
        places = np.searchsorted(self._edges, values)
        for place in np.flatnonzero(counts := np.bincount(places)).tolist():
            self._row[self._at + place] += int(counts[place])
        self._row[self._sum] += float(values.sum(dtype=np.float64))
