"""Separate towers: tasks share nothing but the embeddings below."""

import torch
import torch.nn.functional as F

from models.separate_towers import SeparateTowers
from tests.models.small import TASKS, build, own_pair, repeated, shared_pair


def network() -> SeparateTowers:
    found = build(SeparateTowers, tower=(8, 4))
    assert isinstance(found, SeparateTowers)
    return found


def test_a_task_moves_nothing_of_another() -> None:
    for task in range(TASKS):
        towers = network()
        torch.autograd.backward(towers(own_pair(256))[:, task].sum())
        for name, parameter in towers.named_parameters():
            assert parameter.grad is not None
            sizes = towers.first.widths_out if name.startswith("first.") else 1
            moved = [bool(part.any()) for part in torch.split(parameter.grad, sizes)]
            assert moved == [k == task for k in range(TASKS)], name


def test_it_is_a_network_per_task_written_out() -> None:
    network_, x = network(), shared_pair(3, 7)
    first, towers = network_.first, network_.towers
    hidden = F.linear(torch.cat(repeated(x)[:2], dim=1), torch.cat([first.user, first.item], dim=1), first.bias)
    for task, h in enumerate(torch.split(hidden.relu(), 8, dim=1)):
        h = (h @ towers.bank.weights[0][task] + towers.bank.biases[0][task]).relu()
        logit = (h @ towers.weight[task] + towers.bias[task]).squeeze(1)
        assert torch.allclose(network_(x)[:, task], logit, atol=1e-6)
