"""MMoE: experts for all, mixed by a gate of each task's own."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.layers import Pair
from models.mmoe import MMoE
from tests.models.small import TASKS, build, own_pair, repeated, shared_pair

EXPERTS = 3


def network(seed: int = 0) -> MMoE:
    found = build(MMoE, seed=seed, experts=EXPERTS, expert=(8, 4), tower=(3,))
    assert isinstance(found, MMoE)
    return found


def mixtures(mmoe: MMoE, x: Pair) -> Tensor:
    """What the towers are given: [T, N, H]."""
    seen: list[Tensor] = []
    handle = mmoe.towers.register_forward_pre_hook(lambda _, inputs: seen.append(torch.stack(list(inputs[0]))))
    mmoe(x)
    handle.remove()
    return seen[0]


def expert_outputs(mmoe: MMoE, x: Pair) -> Tensor:
    """[E, N, H], from the weights alone."""
    first = F.linear(joined(x), torch.cat([mmoe.first.user, mmoe.first.item], dim=1), mmoe.first.bias)
    hidden = torch.split(first[:, TASKS * EXPERTS :].relu(), 8, dim=1)
    weight, bias = mmoe.experts.weights[0], mmoe.experts.biases[0]
    return torch.stack([(h @ weight[i] + bias[i]).relu() for i, h in enumerate(hidden)])


def gate_weights(mmoe: MMoE, x: Pair) -> Tensor:
    """[T, N, E], from the weights alone (eq. 7)."""
    rows = slice(TASKS * EXPERTS)
    weight = torch.cat([mmoe.first.user, mmoe.first.item], dim=1)[rows]
    gates = joined(x) @ weight.t() + mmoe.first.bias[rows]
    return torch.stack([gate.softmax(dim=1) for gate in torch.split(gates, EXPERTS, dim=1)])


def joined(x: Pair) -> Tensor:
    return torch.cat(x[:2] if x.row_user is None else repeated(x)[:2], dim=1)


@torch.no_grad()
def silence(mmoe: MMoE, expert: int) -> None:
    """Make an expert answer 0."""
    mmoe.experts.weights[-1][expert] = 0.0
    mmoe.experts.biases[-1][expert] = 0.0


@torch.no_grad()
def tie_gates(mmoe: MMoE) -> None:
    """Give every task the gate of the first."""
    for parameter in mmoe.first.parameters():
        for task in range(1, TASKS):
            parameter[task * EXPERTS : (task + 1) * EXPERTS] = parameter[:EXPERTS]


def test_a_mixture_is_the_gated_sum_of_the_experts() -> None:
    mmoe, x = network(), shared_pair(3, 7)
    expected = torch.einsum("tne,enh->tnh", gate_weights(mmoe, x), expert_outputs(mmoe, x))
    assert torch.allclose(mixtures(mmoe, x), expected, atol=1e-6)


def test_zeroing_an_expert_takes_away_its_output_times_its_gate_weight() -> None:
    x = own_pair(7)
    for expert in range(EXPERTS):
        mmoe = network()
        weight, output, before = gate_weights(mmoe, x)[:, :, expert], expert_outputs(mmoe, x)[expert], mixtures(mmoe, x)
        silence(mmoe, expert)
        lost = before - mixtures(mmoe, x)
        assert lost.abs().max() > 1e-3
        assert torch.allclose(lost, weight[:, :, None] * output, atol=1e-6)


def measured_weights(x: Pair) -> Tensor:
    """[T, N, E] as the network has them, from what silencing each expert takes away."""
    found = []
    for expert in range(EXPERTS):
        mmoe = network()
        output, before = expert_outputs(mmoe, x)[expert], mixtures(mmoe, x)
        silence(mmoe, expert)
        found.append((before - mixtures(mmoe, x)).sum(dim=2) / output.sum(dim=1))
    return torch.stack(found, dim=2).detach()


def test_gate_weights_sum_to_one_and_depend_on_input_and_task() -> None:
    x = own_pair(64, seed=5)
    alive = (expert_outputs(network(), x).sum(dim=2) > 0.05).all(dim=0)
    assert alive.sum() >= 8
    weights = measured_weights(x)[:, alive]
    assert (weights > 0).all()
    assert torch.allclose(weights.sum(dim=2), torch.ones(()), atol=1e-4)
    assert (weights.std(dim=1) > 0.01).all(), "by input"
    assert (weights[0] - weights[1]).abs().mean() > 0.01, "by task"


def test_tied_gates_equal_one_gate_for_all() -> None:
    """OMoE (Ma et al. 2018, section 3.1): y_k = t_k(sum_i g(x)_i f_i(x))."""
    mmoe, x = network(), own_pair(7)
    own = mixtures(mmoe, x)
    assert not torch.allclose(own[0], own[1], atol=1e-3)
    tie_gates(mmoe)
    mixed = mixtures(mmoe, x)
    assert torch.equal(mixed[0], mixed[1])
    one = torch.einsum("ne,enh->nh", gate_weights(mmoe, x)[0], expert_outputs(mmoe, x))
    assert torch.allclose(mmoe(x), mmoe.towers([one] * TASKS), atol=1e-6)


def test_every_task_moves_every_expert_and_its_own_gate_only() -> None:
    for task in range(TASKS):
        mmoe = network()
        torch.autograd.backward(mmoe(own_pair(256))[:, task].sum())
        for parameter in mmoe.experts.parameters():
            assert parameter.grad is not None
            assert all(part.any() for part in parameter.grad)
        assert mmoe.first.user.grad is not None
        gates, *hidden = torch.split(mmoe.first.user.grad, mmoe.first.widths_out)
        assert all(part.any() for part in hidden)
        assert [bool(gate.any()) for gate in torch.split(gates, EXPERTS)] == [k == task for k in range(TASKS)]


def test_one_expert_is_mixed_with_weight_one() -> None:
    mmoe, x = build(MMoE, experts=1, expert=(8, 4)), own_pair(7)
    assert isinstance(mmoe, MMoE)
    mixed = mixtures(mmoe, x)
    assert torch.equal(mixed[0], mixed[1])
