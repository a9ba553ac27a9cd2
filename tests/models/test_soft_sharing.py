"""A network per task, with embeddings of its own or of all."""

import pytest
import torch

from models.layers import Pair, PairLinear
from models.soft_sharing import SoftSharing
from tests.models.small import build, own_pair


def test_a_task_moves_its_own_network_and_embeddings_only() -> None:
    network, x = build(SoftSharing, trunk=(8, 4), tower=(3,)), own_pair(64)
    x.user.requires_grad_()
    network(x)[:, 0].sum().backward()
    assert x.user.grad is not None
    assert [bool(part.any()) for part in x.user.grad.chunk(2, dim=1)] == [True, False]
    for name, value in network.named_parameters():
        if name.startswith("first"):
            assert bool(value.grad is not None and value.grad.any()) == name.startswith("first.0"), name
        else:
            assert value.grad is not None and [bool(part.any()) for part in value.grad] == [True, False], name


def test_shared_embeddings_are_read_by_every_task() -> None:
    network, x = build(SoftSharing, embeddings="shared", trunk=(8, 4)), own_pair(64)
    x.item.requires_grad_()
    for task in range(2):
        (gradient,) = torch.autograd.grad(network(x)[:, task].sum(), x.item)
        assert (gradient.abs().sum(dim=0) > 0).all()


@pytest.mark.parametrize("embeddings", ["separate", "shared"])
def test_network_weights_are_those_that_multiply(embeddings: str) -> None:
    network, x = build(SoftSharing, embeddings=embeddings, trunk=(8, 4), tower=(3,)), own_pair(5)
    first, second = network.network_weights()  # type: ignore[operator]
    assert [w.shape[2] for w in network.tower_weights()] == [3, 1]  # type: ignore[operator]
    parts = [x.user.chunk(2, 1), x.item.chunk(2, 1)] if embeddings == "separate" else [[x.user] * 2, [x.item] * 2]
    for k in range(2):
        pair = Pair(parts[0][k], parts[1][k], None)
        layer = next(part for name, part in network.named_modules() if name == f"first.{k}")
        assert isinstance(layer, PairLinear)
        expected = torch.cat([pair.user, pair.item], dim=1) @ first[k] + layer.bias
        assert torch.allclose(layer(pair)[0], expected, atol=1e-6)
    assert second.shape == (2, 8, 4)
