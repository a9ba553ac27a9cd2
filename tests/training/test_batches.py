"""An epoch shows every row once, in another order each time, a window of blocks after the other."""

import numpy as np
import pytest
import torch

from training import batches
from training.batches import as_torch, in_order, shuffled
from training.tensors import Tensors


def tensors(rows: int) -> Tensors:
    """Rows that carry their own number everywhere; every fourth is positive."""
    number = np.arange(rows)
    return Tensors(
        ids={2: np.stack([number, number], axis=1).astype(np.int32), 4: number[:, None].astype(np.int32)},
        numbers=number[:, None].astype(np.float32),
        labels=np.stack([number % 4 == 0, number % 8 == 0], axis=1).astype(np.uint8),
        row=number,
    )


def epoch(rows: int, batch_rows: int, seed: int = 0, negative_rate: float = 1.0) -> list[list[int]]:
    """The row numbers of each batch; the parts of a row must have stayed together."""
    found = []
    for encoded, labels in shuffled(tensors(rows), batch_rows, negative_rate, np.random.default_rng(seed)):
        number = encoded.numbers[:, 0]
        assert torch.equal(encoded.ids[4][:, 0], number.int())
        assert torch.equal(encoded.ids[2][:, 1], number.int())
        assert torch.equal(labels, torch.stack([number % 4 == 0, number % 8 == 0], dim=1).float())
        found.append(number.int().tolist())
    return found


def flat(found: list[list[int]]) -> list[int]:
    return [row for batch in found for row in batch]


@pytest.mark.parametrize("rows", [1, 7, 50, 1000])
def test_every_row_is_seen_once(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BLOCK_ROWS", 16)
    monkeypatch.setattr(batches, "WINDOW_BLOCKS", 3)
    assert sorted(flat(epoch(rows, 10))) == list(range(rows))


def test_rows_are_shuffled_and_the_order_is_the_seeds() -> None:
    one, same, other = epoch(1000, 100), epoch(1000, 100), epoch(1000, 100, seed=1)
    assert one == same != other
    order = flat(one)
    assert np.corrcoef(order, np.arange(1000))[0, 1] < 0.1


def test_second_epoch_has_another_order() -> None:
    random = np.random.default_rng(0)
    one, other = ([labels for _, labels in shuffled(tensors(500), 50, 1.0, random)] for _ in range(2))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("rows", "batch_rows", "sizes"), [(100, 30, {33, 34}), (100, 64, {50}), (3, 10, {3})])
def test_batches_are_about_equally_large(rows: int, batch_rows: int, sizes: set[int]) -> None:
    assert {len(batch) for batch in epoch(rows, batch_rows)} == sizes


def test_batch_comes_from_the_blocks_of_one_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BLOCK_ROWS", 16)
    monkeypatch.setattr(batches, "WINDOW_BLOCKS", 2)
    found = epoch(320, 8)
    windows = [{row // 16 for row in flat(found[i : i + 4])} for i in range(0, len(found), 4)]
    assert all(len(blocks) == 2 for blocks in windows)
    assert max(len({row // 16 for row in batch}) for batch in found) == 2
    assert any(max(blocks) - min(blocks) > 1 for blocks in windows)


def test_share_of_the_negatives_is_kept_and_every_positive() -> None:
    order = flat(epoch(20_000, 100, negative_rate=0.3))
    positive = {row for row in order if row % 4 == 0}
    assert len(order) == len(set(order))
    assert positive == set(range(0, 20_000, 4))
    assert len(order) - len(positive) == pytest.approx(0.3 * 15_000, rel=0.05)


def test_other_negatives_are_kept_in_another_epoch() -> None:
    one, other = (set(flat(epoch(2000, 100, seed=seed, negative_rate=0.5))) for seed in (0, 1))
    assert 0.2 < len((one & other) - set(range(0, 2000, 4))) / 1500 < 0.3


def test_rows_in_order_are_all_rows_in_order() -> None:
    parts = list(in_order(tensors(25), 10))
    assert [len(labels) for _, labels in parts] == [10, 10, 5]
    assert torch.cat([encoded.numbers[:, 0] for encoded, _ in parts]).tolist() == list(range(25))


def test_torch_shares_the_memory_and_labels_become_numbers() -> None:
    rows = tensors(5)
    encoded, labels = as_torch(rows)
    assert labels.dtype == torch.float32
    rows.numbers[0, 0] = 7.0
    assert encoded.numbers[0, 0] == 7.0
