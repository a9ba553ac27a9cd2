"""The impression log that every system trains on, and the same rows as ready tensors.

Knows how the rows come about. Does not know who trains on them.

26 categorical columns of strings with long tails (the r-th most frequent value has a frequency near 1 / r), 6
numeric ones, a click for 4.5 % of the rows and a conversion for 9 % of the clicks. Both depend on an effect of
every value, on products of latent vectors of user and item values, and on the numbers. Rows are in time order.

    log.parquet     what Fullfunnel and torch-rechub read
    ids.npy         int32 [N, 26]: the row of each value in one table of all values
    numbers.npy     float32 [N, 6]
    labels.npy      float32 [N, 2]

`python -m benchmarks.training.log FOLDER ROWS` makes it.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.training.settings import IDS, LABELS, NUMBERS, TIME

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

# How many values each column has in a log of 2,000,000 rows: 785,000 in all.
CARDINALITIES = (
    *(180_000, 100_000, 45_000, 20_000, 9_000, 4_000, 1_500, 700, 250, 100, 40, 20, 10),
    *(300_224, 70_000, 30_000, 14_000, 6_000, 2_500, 1_000, 400, 150, 60, 24, 12, 10),
)
CLICK_RATE, CONVERSION_RATE = 0.045, 0.09
LATENT = 4
PAIRS = ((1, 14), (3, 16), (5, 18), (7, 20))  # a user's and an item's column that interact
ROWS_PER_GROUP = 131_072
VERSION = 1  # of this module's rows: a cached log of another one is made anew


def cardinalities(rows: int) -> list[int]:
    """A small log has shorter tails, so that each value still occurs."""
    return [min(count, max(rows // 6, 10)) for count in CARDINALITIES]


def make_log(folder: Path, rows: int, seed: int = 0) -> Path:
    """Make the log in a folder of its own below `folder`, unless it is there already."""
    target = folder / f"log-{rows}-{seed}-v{VERSION}"
    if target.exists():
        return target
    staging = folder / f".{target.name}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    counts = cardinalities(rows)
    values = np.stack([_draw(generator, rows, count) for count in counts], axis=1)
    numbers = generator.normal(size=(rows, len(NUMBERS))).astype(np.float32)
    labels = _labels(generator, values, numbers, counts)
    offsets = np.cumsum([0, *counts[:-1]]).astype(np.int32)
    np.save(staging / "ids.npy", values + offsets)
    np.save(staging / "numbers.npy", numbers)
    np.save(staging / "labels.npy", labels)
    _write_parquet(staging / "log.parquet", values, numbers, labels, counts)
    staging.rename(target)
    return target


def _draw(generator: np.random.Generator, rows: int, count: int) -> Ints:
    """Values of one column: log-uniform ranks, and every value at least once."""
    rank = np.exp(generator.random(rows) * np.log(count + 1)) - 1
    drawn: Ints = np.minimum(rank, count - 1).astype(np.int32)
    drawn[generator.choice(rows, count, replace=False)] = np.arange(count, dtype=np.int32)
    return drawn


def _labels(generator: np.random.Generator, values: Ints, numbers: Floats, counts: list[int]) -> Floats:
    """Click and conversion [N, 2]; what makes a click likely also makes a conversion a little likelier."""
    interest = _score(generator, values, numbers, counts)
    intent = _score(generator, values, numbers, counts)
    click_given = _sigmoid_with_mean(interest, CLICK_RATE, None)
    click = generator.random(len(values)) < click_given
    conversion_given = _sigmoid_with_mean(intent + 0.3 * interest, CONVERSION_RATE, click_given)
    conversion = click & (generator.random(len(values)) < conversion_given)
    return np.stack([click, conversion], axis=1).astype(np.float32)


def _score(generator: np.random.Generator, values: Ints, numbers: Floats, counts: list[int]) -> Floats:
    score = (np.tanh(numbers) @ generator.normal(scale=0.3, size=len(NUMBERS))).astype(np.float32)
    for column, count in enumerate(counts):
        score += generator.normal(scale=0.25, size=count).astype(np.float32)[values[:, column]]
    for user, item in PAIRS:
        left = generator.normal(scale=0.45, size=(counts[user], LATENT)).astype(np.float32)
        right = generator.normal(scale=0.45, size=(counts[item], LATENT)).astype(np.float32)
        score += np.einsum("nl,nl->n", left[values[:, user]], right[values[:, item]])
    return score


def _sigmoid_with_mean(score: Floats, mean: float, weight: Floats | None) -> Floats:
    """sigmoid(score + b) with the b, found by bisection, that gives this (weighted) mean."""
    low, high = -20.0, 20.0
    for _ in range(40):
        middle = (low + high) / 2
        probability: Floats = 1 / (1 + np.exp(-(score + np.float32(middle))))
        if np.average(probability, weights=weight) < mean:
            low = middle
        else:
            high = middle
    return probability


def _write_parquet(path: Path, values: Ints, numbers: Floats, labels: Floats, counts: list[int]) -> None:
    words = [pa.array(_words(name, count)) for name, count in zip(IDS, counts, strict=True)]
    schema = pa.schema(
        [(TIME, pa.int64())]
        + [(name, pa.string()) for name in IDS]
        + [(name, pa.float32()) for name in NUMBERS]
        + [(name, pa.int8()) for name in LABELS]
    )
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(values), ROWS_PER_GROUP):
            part = slice(start, start + ROWS_PER_GROUP)
            columns: list[Any] = [np.arange(start, start + len(values[part]))]
            columns += [words[i].take(pa.array(values[part, i])) for i in range(len(IDS))]
            columns += [numbers[part, i] for i in range(len(NUMBERS))]
            columns += [labels[part, i].astype(np.int8) for i in range(len(LABELS))]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=ROWS_PER_GROUP)


def _words(name: str, count: int) -> list[str]:
    """Names without order or rank in them: an odd multiplier permutes the 32-bit numbers."""
    return [f"{name}_{(i * 0x9E3779B1 + 0x7F4A7C15) & 0xFFFFFFFF:08x}" for i in range(count)]


if __name__ == "__main__":
    print(make_log(Path(sys.argv[1]), int(sys.argv[2])))
