"""PLE: experts of each task's own beside shared ones, in levels."""

import warnings
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import Bank, Pair, PairLinear
from models.mmoe import MMoE
from models.ple import FAINT, PLE, Gates
from tests.models.small import TASKS, build, own_pair, repeated, shared_pair

PRIVATE, SHARED = 2, 1
EXPERTS = TASKS * PRIVATE + SHARED
A, B = range(TASKS)
OWN = {task: range(task * PRIVATE, (task + 1) * PRIVATE) for task in (A, B)}
COMMON = range(TASKS * PRIVATE, EXPERTS)


def network(levels: int, **options: Any) -> PLE:
    small: dict[str, Any] = {"private": PRIVATE, "shared": SHARED, "expert": (16, 8), "tower": (3,)}
    found = build(PLE, levels=levels, **small | options)
    assert isinstance(found, PLE)
    return found


def bank(ple: PLE, level: int) -> Bank:
    found = ple.experts[level]
    assert isinstance(found, Bank)
    return found


def gates_above(ple: PLE, level: int) -> Gates:
    """The gates that read the outputs of a level."""
    found = ple.gates[level]
    assert isinstance(found, Gates)
    return found


def perceptron(x: Tensor, ple: PLE, level: int, expert: int) -> Tensor:
    """An expert's layers but the first of the first level, which has read the pair already."""
    for weight, bias in zip(bank(ple, level).weights, bank(ple, level).biases, strict=True):
        x = (x @ weight[expert] + bias[expert]).relu()
    return x


def chosen_by(group: int) -> list[int]:
    """The experts a group mixes: a task its own and the shared ones, the shared group all."""
    return [*OWN[group], *COMMON] if group < TASKS else list(range(EXPERTS))


def reference(ple: PLE, x: Pair, levels: int) -> Tensor:
    """The paper's equations 1 to 5 and figure 6, group by group and expert by expert: logits [N, T]."""
    joined = torch.cat(x[:2] if x.row_user is None else repeated(x)[:2], dim=1)
    first = F.linear(joined, torch.cat([ple.first.user, ple.first.item], dim=1), ple.first.bias)
    groups = TASKS + (levels > 1)
    gates = torch.split(first[:, : groups * EXPERTS], EXPERTS, dim=1)
    hidden = torch.split(first[:, groups * EXPERTS :].relu(), 16, dim=1)
    outputs = [perceptron(hidden[i], ple, 0, i) for i in range(EXPERTS)]
    for level in range(levels):
        mixed = []
        for group, gate in enumerate(gates):
            weights = gate[:, chosen_by(group)].softmax(dim=1)
            parts = [weights[:, i : i + 1] * outputs[expert] for i, expert in enumerate(chosen_by(group))]
            mixed.append(torch.stack(parts).sum(dim=0))
        if level < levels - 1:
            above = gates_above(ple, level)
            count = TASKS + (level + 2 < levels)
            gates = tuple(mixed[group] @ above.weight[group] + above.bias[group] for group in range(count))
            inputs = [mixed[expert // PRIVATE if expert not in COMMON else TASKS] for expert in range(EXPERTS)]
            outputs = [perceptron(inputs[i], ple, level + 1, i) for i in range(EXPERTS)]
    logits: Tensor = ple.towers(mixed[:TASKS])
    return logits


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_it_is_the_paper_written_out(levels: int) -> None:
    ple, x = network(levels), shared_pair(3, 7)
    assert torch.allclose(ple(x), reference(ple, x, levels), atol=1e-6)


def moved(ple: PLE, task: int) -> list[list[bool]]:
    """Which experts of each level a task's logits move, by any of their parameters. Not moved is exactly 0."""
    torch.autograd.backward(ple(own_pair(256))[:, task].sum())
    levels = []
    for level in range(len(ple.experts)):
        found = torch.zeros(EXPERTS, dtype=torch.bool)
        for parameter in bank(ple, level).parameters():
            assert parameter.grad is not None
            found |= parameter.grad.flatten(1).any(dim=1)
        if level == 0:
            for parameter in ple.first.parameters():
                assert parameter.grad is not None
                parts = torch.split(parameter.grad, ple.first.widths_out)[1:]
                found |= torch.stack([part.any() for part in parts])
        levels.append(found.tolist())
    return levels


@pytest.mark.parametrize("task", [A, B])
def test_one_level_a_task_never_moves_the_private_experts_of_another(task: int) -> None:
    (only,) = moved(network(1), task)
    assert only == [expert in chosen_by(task) for expert in range(EXPERTS)]


@pytest.mark.parametrize("task", [A, B])
def test_two_levels_a_task_moves_the_others_experts_in_the_first_but_not_in_the_last(task: int) -> None:
    first, last = moved(network(2), task)
    assert last == [expert in chosen_by(task) for expert in range(EXPERTS)]
    assert first == [True] * EXPERTS


def test_without_private_experts_one_level_equals_mmoe() -> None:
    ple, mmoe = network(1, private=0, shared=3), build(MMoE, seed=1, experts=3, expert=(16, 8), tower=(3,))
    x = shared_pair(3, 7)
    assert not torch.allclose(ple(x), mmoe(x), atol=1e-3)
    mmoe.load_state_dict({name.replace("experts.0.", "experts."): value for name, value in ple.state_dict().items()})
    assert torch.equal(ple(x), mmoe(x))


@pytest.mark.parametrize(("levels", "groups"), [(1, [2]), (2, [3, 2]), (3, [3, 3, 2])])
def test_every_level_but_the_last_has_a_shared_gate(levels: int, groups: list[int]) -> None:
    ple = network(levels)
    assert [ple.first.widths_out[0] // EXPERTS, *(gates_above(ple, i).count for i in range(levels - 1))] == groups
    assert sum(isinstance(layer, PairLinear) for layer in ple.modules()) == 1, "only the first level reads the pair"


def test_a_gate_of_the_second_level_reads_its_own_groups_output_only() -> None:
    ple = network(3)
    outputs = [torch.randn(7, 8, requires_grad=True) for _ in range(TASKS + 1)]
    weights = gates_above(ple, 0)(outputs)
    assert weights.shape == (7, TASKS + 1, EXPERTS)
    for group in range(TASKS + 1):
        gradients = torch.autograd.grad(weights[:, group].sum(), outputs, retain_graph=True, materialize_grads=True)
        assert [bool(gradient.any()) for gradient in gradients] == [k == group for k in range(TASKS + 1)]


def test_gates_of_foreign_experts_get_no_gradient_and_all_others_do() -> None:
    ple = network(2)
    torch.autograd.backward(ple(own_pair(256)).square().sum())
    assert ple.first.user.grad is not None
    gates = ple.first.user.grad[: (TASKS + 1) * EXPERTS].any(dim=1).view(TASKS + 1, EXPERTS)
    expected = [[expert in chosen_by(group) for expert in range(EXPERTS)] for group in range(TASKS + 1)]
    assert gates.tolist() == expected
    above = gates_above(ple, 0).weight.grad
    assert above is not None
    assert above.any(dim=1).tolist() == expected[:TASKS]


@torch.no_grad()
def test_zeroing_a_foreign_private_expert_of_the_last_level_changes_nothing() -> None:
    ple, x = network(2), own_pair(7)
    before = ple(x)
    for parameter in ple.experts[-1].parameters():
        parameter[OWN[B]] = 0.0
    assert torch.equal(ple(x)[:, A], before[:, A])
    assert not torch.allclose(ple(x)[:, B], before[:, B], atol=1e-4)


# ------------------------------------------------------------------ the exported graph


class Told(nn.Module):
    """Tensors in, logits and every level's gates out, as an exporter wants them."""

    def __init__(self, ple: PLE) -> None:
        super().__init__()
        self.ple = ple

    def forward(self, user: Tensor, item: Tensor, row_user: Tensor) -> tuple[Tensor, ...]:
        x = Pair(user, item, row_user)
        return self.ple(x), *[gates for gates, _ in self.ple.levels(x)]


@pytest.mark.parametrize("levels", [1, 3])
@torch.no_grad()
def test_exported_a_foreign_gate_is_the_last_ones_less_forty_whatever_it_was_and_nothing_underflows(
    levels: int,
) -> None:
    ple = network(levels).eval()
    closed = [[expert not in chosen_by(group) for expert in range(EXPERTS)] for group in range(TASKS + 1)]
    gates = ple.first.widths_out[0]
    # never trained: they may be anything
    ple.first.user[:gates][torch.tensor(closed)[: gates // EXPERTS].flatten()] = 1e6
    for level in range(levels - 1):
        above = gates_above(ple, level)
        above.bias[torch.tensor(closed)[: above.count]] = 1e6
    x = shared_pair(3, 7)
    assert x.row_user is not None
    given = (x.user, x.item, x.row_user)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program = torch.onnx.export(Told(ple), given, opset_version=20, dynamo=True, verbose=False)
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {entry.name: part.numpy() for entry, part in zip(session.get_inputs(), given, strict=True)}
    logits, *found = session.run(None, feeds)
    assert np.abs(logits - ple(x).numpy()).max() <= 1e-6
    for weights, (exact, _) in zip(found, ple.levels(x), strict=True):
        expected = torch.where(exact.isinf(), exact[:, :, -1:] + FAINT, exact)
        assert np.abs(weights - expected.numpy()).max() <= 1e-5
