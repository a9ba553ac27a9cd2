"""The running mean of the weights: what it is the mean of, and that training never notices it."""

import pytest
import torch
from torch import nn

from training.averaging import Average


def module(value: float) -> nn.Linear:
    linear = nn.Linear(2, 1)
    fill(linear, value)
    return linear


def fill(linear: nn.Linear, value: float) -> None:
    with torch.no_grad():
        for weight in linear.parameters():
            weight.fill_(value)


def values(linear: nn.Linear) -> list[float]:
    """Every weight of the module."""
    return torch.cat([weight.detach().flatten() for weight in linear.parameters()]).tolist()


def taken(window: int, *weights: float) -> list[float]:
    """The mean that the module holds each time it is taken, while its weights go through some values."""
    linear = module(0.0)
    average, means = Average(linear, window), list[float]()
    for weight in weights:
        fill(linear, weight)
        with average.taken():
            means += set(values(linear))
        assert values(linear) == [weight] * 3, "the weights are not put back"
    return means


def test_mean_is_plain_until_the_window_is_full_and_forgets_afterwards() -> None:
    assert taken(3, 1.0, 3.0, 5.0, 6.0) == pytest.approx([1.0, 2.0, 3.0, 4.0])


def test_window_of_one_is_the_weights_themselves() -> None:
    assert taken(1, 1.0, 3.0, 5.0) == [1.0, 3.0, 5.0]


def test_weights_are_put_back_after_an_error() -> None:
    linear = module(1.0)
    average = Average(linear, 4)
    with average.taken():
        fill(linear, 9.0)  # of no consequence
    fill(linear, 3.0)
    with pytest.raises(KeyboardInterrupt), average.taken():
        assert values(linear) == [2.0] * 3
        raise KeyboardInterrupt
    assert values(linear) == [3.0] * 3


def test_tables_keep_their_memory() -> None:
    """The optimiser of the tables holds their memory: values must be copied in, not put in its place."""
    linear = module(1.0)
    address = linear.weight.data_ptr()
    with Average(linear, 4).taken():
        assert linear.weight.data_ptr() == address
    assert linear.weight.data_ptr() == address
