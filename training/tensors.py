"""Encoding: staged codes to the arrays that training reads, once, into files mapped to memory.

Knows fitted features. Does not know torch: an epoch is slices of these arrays.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from training.encoders import Fitted
from training.split import SPLITS
from training.staging import Staged, open_array

BLOCK_ROWS = 2**14  # small enough for a block of all columns to stay in the second-level cache


@dataclass(frozen=True)
class Tensors:
    """The rows of a split.

    ids: for each embedding width, rows of its tables, int32 [rows, columns], in the order of `Inputs.ordered`.
    numbers: float32 [rows, F], user first, NaN is missing. labels: uint8 [rows, T]. row: their numbers in the log.
    """

    ids: dict[int, NDArray[np.int32]]
    numbers: NDArray[np.float32]
    labels: NDArray[np.uint8]
    row: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.int64] | slice) -> "Tensors":
        """Some of the rows, in memory."""
        return Tensors(
            {dim: np.array(ids[index]) for dim, ids in self.ids.items()},
            np.array(self.numbers[index]),
            self.labels[index],
            self.row[index],
        )


def encode(
    staged: Staged, fitted: Fitted, split: NDArray[np.uint8], directory: Path, on_progress: Callable[[int], None]
) -> tuple[Tensors, ...]:
    """Write each split's arrays into `directory`, a block of rows at a time: train, validation, test."""
    order = {dim: fitted.inputs.ordered(dim) for dim in sorted(fitted.inputs.table_rows)}
    numbers = fitted.inputs.ordered_numbers()
    floats = [staged.floats[number.name].read() for number in numbers]
    paths = {(code, dim): directory / f"{name}.ids{dim}" for code, name in enumerate(SPLITS) for dim in (*order, 0)}
    files = {key: open(path, "wb") for key, path in paths.items()}  # noqa: SIM115 (closed below)
    try:
        row = 0
        readers = {x.name: staged.codes[x.name].batches() for lookups in order.values() for x in lookups}
        sizes = next((codes.rows for codes in staged.codes.values()), [len(split)])
        for batch, size in enumerate(sizes):
            codes = {name: next(reader) for name, reader in readers.items()}
            for start in range(0, size, BLOCK_ROWS):
                stop = min(start + BLOCK_ROWS, size)
                part = split[row + start : row + stop]
                for dim, lookups in order.items():
                    columns = [fitted.rows_of[x.name][batch][codes[x.name][start:stop]] for x in lookups]
                    _write(np.concatenate(columns, axis=1), part, files, dim)
                if floats:
                    _write(np.stack([x[row + start : row + stop] for x in floats], axis=1), part, files, 0)
            row += size
            on_progress(row)
    finally:
        for file in files.values():
            file.close()
    result = []
    for code in range(len(SPLITS)):
        chosen = np.flatnonzero(split == code)
        ids = {dim: open_array(paths[code, dim], np.int32, fitted.inputs.columns(dim)) for dim in order}
        values = (
            open_array(paths[code, 0], np.float32, len(floats)) if floats else np.empty((len(chosen), 0), np.float32)
        )
        result.append(Tensors(ids, values, staged.labels[chosen], chosen))
    return tuple(result)


def _write(
    block: NDArray[np.generic], split: NDArray[np.uint8], files: Mapping[tuple[int, int], BinaryIO], key: int
) -> None:
    for code in range(len(SPLITS)):
        chosen = split == code
        if chosen.any():
            files[code, key].write(np.ascontiguousarray(block if chosen.all() else block[chosen]).data)
