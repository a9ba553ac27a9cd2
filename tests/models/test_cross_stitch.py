"""Cross-stitch networks, against separate networks."""

from typing import Any

import torch

from models.cross_stitch import CrossStitch
from models.layers import Pair
from tests.models.small import build, own_pair


def network(**options: Any) -> CrossStitch:
    found = build(CrossStitch, trunk=(8, 6), tower=(4,), **options)
    assert isinstance(found, CrossStitch)
    return found


def separate(whole: CrossStitch, x: Pair, task: int) -> torch.Tensor:
    """The task's own network, written out."""
    first, *trunk = (w[task] for w in whole.network_weights())
    h = (torch.cat([x.user, x.item], 1) @ first + whole.first.bias.chunk(2)[task]).relu()
    biases = [value for name, value in whole.layers.named_parameters() if "biases" in name]
    for weight, bias in zip(trunk, biases, strict=True):
        h = (h @ weight + bias[task]).relu()
    hidden, logit = (w[task] for w in whole.tower_weights())
    logits: torch.Tensor = (h @ hidden + whole.towers.bank.biases[0][task]).relu() @ logit + whole.towers.bias[task]
    return logits


def test_identity_stitches_leave_separate_networks() -> None:
    for per_channel in (False, True):
        whole, x = network(per_channel=per_channel), own_pair(32)
        before = whole(x)
        for weight in whole.stitches.parameters():
            weight.data = torch.eye(2).unsqueeze(2).expand_as(weight).clone()
        expected = torch.cat([separate(whole, x, task) for task in range(2)], dim=1)
        assert torch.allclose(whole(x), expected, atol=1e-6)
        assert not torch.allclose(before, expected, atol=1e-4)


def test_a_stitch_of_zero_cuts_the_gradient_of_the_other_task() -> None:
    whole, x = network(), own_pair(64)

    def reaches() -> list[bool]:
        """Whether the loss of task 1 reaches the networks of task 0, layer by layer."""
        whole.zero_grad()
        whole(x)[:, 1].sum().backward()
        first = whole.first.user.grad
        layers = [value.grad for name, value in whole.layers.named_parameters() if ".weights." in name]
        assert first is not None
        return [bool(first.chunk(2)[0].any()), *(bool(g[0].any()) for g in layers if g is not None)]

    assert reaches() == [True, True]
    for weight in whole.stitches.parameters():
        weight.data[1, 0] = 0.0
    assert reaches() == [False, False]


def test_stitches_move_in_training_at_a_rate_of_their_own() -> None:
    whole, x = network(stitch_rate=7.0), own_pair(64)
    rates = whole.rates()
    assert [rate for _, rate in rates] == [7.0, 7.0]
    start = [parameter.detach().clone() for parameter, _ in rates]
    optimiser = torch.optim.Adam([{"params": [p], "lr": 0.001 * rate} for p, rate in rates])
    torch.autograd.backward(torch.nn.functional.softplus(whole(x)).sum())
    optimiser.step()
    assert all(not torch.equal(before, p) for before, (p, _) in zip(start, rates, strict=True))


def test_card_shows_a_matrix_a_layer() -> None:
    told = network(keep=0.8).tell(own_pair(4), ["click", "buy"])
    assert [one.title for one in told] == ["Stitch after layer 1", "Stitch after layer 2"]
    assert told[0].columns == ("", "click", "buy")
    assert abs(float(told[0].rows[0][1]) - 0.8) < 1e-6
