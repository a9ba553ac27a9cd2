"""Row-wise Adagrad equals a dense reference, touches what the batch touches, and repeats bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.adagrad import RowwiseAdagrad, occurrences

ROWS, DIM, RATE, EPS = 30, 4, 0.1, 1e-8


def batches(steps: int, size: int, seed: int = 0) -> list[tuple[NDArray[np.int32], NDArray[np.float32]]]:
    """Ids with many repeats, and the gradient of each looked-up copy."""
    random = np.random.default_rng(seed)
    return [
        ((random.zipf(1.5, size) % (ROWS - 5)).astype(np.int32), random.normal(0, 1, (size, DIM)).astype(np.float32))
        for _ in range(steps)
    ]


def run(steps: int = 20, size: int = 50) -> torch.Tensor:
    """The table after some steps."""
    table = torch.from_numpy(np.random.default_rng(9).normal(0, 1, (ROWS, DIM)).astype(np.float32))
    optimiser = RowwiseAdagrad(table, learning_rate=RATE, eps=EPS)
    for ids, grad in batches(steps, size):
        optimiser.step(torch.from_numpy(ids), torch.from_numpy(grad))
    return table


def test_steps_equal_a_dense_reference() -> None:
    table = np.random.default_rng(9).normal(0, 1, (ROWS, DIM)).astype(np.float32).astype(np.float64)
    state = np.zeros(ROWS)
    for ids, grad in batches(20, 50):
        total = np.zeros((ROWS, DIM))
        np.add.at(total, ids, grad.astype(np.float64))
        state += (total**2).mean(axis=1)
        table -= np.where(state[:, None] > 0, RATE * total / (np.sqrt(state)[:, None] + EPS), 0.0)
    assert np.abs(run().numpy() - table).max() < 2e-6


def test_rows_that_no_batch_touches_stay_as_they_are() -> None:
    before = torch.from_numpy(np.random.default_rng(9).normal(0, 1, (ROWS, DIM)).astype(np.float32))
    touched = np.unique(np.concatenate([ids for ids, _ in batches(20, 50)]))
    untouched = np.setdiff1d(np.arange(ROWS), touched)
    assert len(untouched) >= 5
    assert torch.equal(run()[untouched], before[untouched])
    assert not (run()[touched] == before[touched]).all(dim=1).any()


def test_two_runs_agree_bit_for_bit() -> None:
    assert torch.equal(run(steps=30, size=3000), run(steps=30, size=3000))


def test_row_without_gradient_does_not_move() -> None:
    table = torch.ones(3, DIM)
    RowwiseAdagrad(table, learning_rate=RATE).step(torch.tensor([1, 1], dtype=torch.int32), torch.zeros(2, DIM))
    assert torch.equal(table, torch.ones(3, DIM))


def test_first_step_has_the_length_of_the_rate() -> None:
    table = torch.zeros(3, DIM)
    RowwiseAdagrad(table, learning_rate=RATE).step(torch.tensor([2], dtype=torch.int32), torch.full((1, DIM), 7.0))
    assert table[2].tolist() == pytest.approx([-RATE] * DIM)


@given(st.lists(st.integers(0, 2**31 - 1) | st.integers(0, 5), min_size=1, max_size=50))
def test_equal_ids_are_grouped_in_the_order_of_their_positions(ids: list[int]) -> None:
    rows, positions, starts = occurrences(torch.tensor(ids, dtype=torch.int32))
    assert rows.tolist() == sorted(set(ids))
    ends = [*starts.tolist()[1:], len(ids)]
    groups = [positions.tolist()[start:end] for start, end in zip(starts.tolist(), ends, strict=True)]
    assert groups == [[i for i, x in enumerate(ids) if x == row] for row in sorted(set(ids))]
