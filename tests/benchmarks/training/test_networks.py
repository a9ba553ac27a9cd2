from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.training.fullfunnel import benchmark_run
from benchmarks.training.networks import NETWORKS, TASKS, mix
from benchmarks.training.settings import ARCHITECTURES, EXPERT, LEVELS, PRIVATE
from models.layers import Widths
from models.registry import build_architecture

WIDTH = 24


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_parameter_learns(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name](WIDTH)
    logits = network(torch.randn(64, WIDTH))
    assert logits.shape == (64, TASKS)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_is_as_large_as_the_one_it_is_compared_with(name: str, tmp_path: Path) -> None:
    model = benchmark_run(name, tmp_path).model
    theirs = build_architecture(model, Widths(WIDTH // 2, WIDTH - WIDTH // 2), TASKS)
    masked = 0
    if name == "ple":  # where gates of foreign experts have weights, masked out
        masked = TASKS * (TASKS - 1) * PRIVATE * sum(w + 1 for w in (WIDTH, *[EXPERT[-1]] * (LEVELS - 1)))
    assert count(NETWORKS[name](WIDTH)) == count(theirs) - masked


def test_a_mixture_weighs_the_experts_by_the_softmax_of_its_gate() -> None:
    experts = torch.randn(5, 3, 4)
    logits = torch.randn(5, 2 * 3)
    mixed = mix(logits, experts)
    second = logits[:, 3:].softmax(dim=1)
    torch.testing.assert_close(mixed[:, 1], sum(second[:, i : i + 1] * experts[:, i] for i in range(3)))
