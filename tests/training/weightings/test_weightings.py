"""The weightings: fixed ones multiply, and may grow."""

import pytest
import torch

from training.weightings.fixed import Fixed, FixedOptions


def test_fixed_weights_multiply_losses_and_a_penalty_belongs_to_no_task() -> None:
    x = torch.ones(2, requires_grad=True)
    value = Fixed(FixedOptions(), torch.tensor([1.0, 3.0]), ["a", "b"]).backward(x * 2, x.sum(), [x])
    assert value.item() == 8.0
    assert x.grad is not None and x.grad.tolist() == [3.0, 7.0]


def test_weights_grow_with_the_epochs_and_the_card_tells_them() -> None:
    weighting = Fixed(FixedOptions(growth={"b": 0.5}), torch.tensor([1.0, 4.0]), ["a", "b"])
    for epoch in range(3):
        weighting.start_epoch(epoch)
    x = torch.ones(2, requires_grad=True)
    assert weighting.backward(x, None, [x]).item() == pytest.approx(2.0)
    (told,) = weighting.tell()
    assert [row[1:] for row in told.rows] == [(1.0, 4.0), (1.0, 2.0), (1.0, 1.0)]
    assert Fixed(FixedOptions(), torch.ones(2), ["a", "b"]).tell() == ()
