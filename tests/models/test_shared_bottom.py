"""Hard parameter sharing: one trunk for all tasks, a tower for each."""

import torch
import torch.nn.functional as F

from models.layers import PairLinear
from models.shared_bottom import SharedBottom
from tests.models.small import TASKS, build, own_pair, repeated, shared_pair


def network() -> SharedBottom:
    found = build(SharedBottom, trunk=(8, 4), tower=(3,))
    assert isinstance(found, SharedBottom)
    return found


def gradients(task: int) -> dict[str, torch.Tensor]:
    """Of one task's logits, by parameter."""
    bottom = network()
    torch.autograd.backward(bottom(own_pair(256))[:, task].sum())
    return {name: value.grad for name, value in bottom.named_parameters() if value.grad is not None}


def test_a_task_moves_its_own_tower_only() -> None:
    for task in range(TASKS):
        towers = {name: value for name, value in gradients(task).items() if name.startswith("towers.")}
        assert len(towers) == 4
        for name, value in towers.items():
            assert [bool(part.any()) for part in value] == [k == task for k in range(TASKS)], name


def test_every_task_moves_the_one_trunk() -> None:
    for task in range(TASKS):
        trunk = [value for name, value in gradients(task).items() if not name.startswith("towers.")]
        assert len(trunk) == 5
        assert all(bool(value.any()) for value in trunk)


def test_there_is_one_trunk_and_a_tower_per_task() -> None:
    bottom = network()
    assert [layer.widths_out for layer in bottom.modules() if isinstance(layer, PairLinear)] == [[8]]
    assert [weight.shape for weight in bottom.trunk.weights] == [(1, 8, 4)]
    assert [weight.shape for weight in bottom.towers.bank.weights] == [(TASKS, 4, 3)]


def test_it_is_a_trunk_and_towers_written_out() -> None:
    bottom, x = network(), shared_pair(3, 7)
    h = F.linear(
        torch.cat(repeated(x)[:2], dim=1), torch.cat([bottom.first.user, bottom.first.item], 1), bottom.first.bias
    )
    h = (h.relu() @ bottom.trunk.weights[0][0] + bottom.trunk.biases[0][0]).relu()
    towers = bottom.towers
    for task in range(TASKS):
        hidden = (h @ towers.bank.weights[0][task] + towers.bank.biases[0][task]).relu()
        logit = (hidden @ towers.weight[task] + towers.bias[task]).squeeze(1)
        assert torch.allclose(bottom(x)[:, task], logit, atol=1e-6)
