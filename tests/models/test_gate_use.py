"""The card's tables of gates: means, entropy, and an alarm for experts that nobody uses."""

import math

import pytest
import torch
from torch import Tensor

from models.architecture import Architecture, Particular
from models.gate_use import gate_use
from models.mmoe import MMoE
from models.ple import PLE
from tests.models.small import TASKS, build, own_pair

NAMES = ("click", "conversion")


def told(weights: Tensor) -> Particular:
    return gate_use("gates", weights, NAMES, [f"expert {i + 1}" for i in range(weights.shape[2])])


def test_means_are_by_task_and_expert_and_entropy_is_a_share_of_the_largest() -> None:
    weights = torch.tensor([[[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [0.25, 0.75]]])
    found = told(weights)
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(2)
    assert found.columns == ("", "expert 1", "expert 2", "entropy")
    assert found.rows[0] == ("click", *(pytest.approx(x) for x in (0.5, 0.5, 1.0)))
    assert found.rows[1] == ("conversion", *(pytest.approx(x) for x in (0.625, 0.375, quarter / 2)))
    assert found.shaded


def test_alarm_names_an_expert_below_one_percent_for_every_task_and_no_other() -> None:
    weights = torch.tensor([[[0.500, 0.495, 0.005], [0.991, 0.001, 0.008]]])
    assert "ALARM: below 1 % for every task, so of no use: expert 3." in told(weights).text
    assert "ALARM" not in told(torch.tensor([[[0.500, 0.495, 0.005], [0.988, 0.001, 0.011]]])).text


def test_experts_a_task_may_not_choose_do_not_lower_its_entropy() -> None:
    found = told(torch.tensor([[[0.5, 0.0, 0.5], [0.0, 0.0, 1.0]]]))
    assert [row[-1] for row in found.rows] == pytest.approx([1.0, 1.0])


@torch.no_grad()
def particulars(network: Architecture) -> tuple[Particular, ...]:
    return network.tell(own_pair(200), NAMES)


def test_mmoe_tells_its_gates_and_a_dead_expert_raises_the_alarm() -> None:
    network = build(MMoE, experts=3, expert=(8, 4), tower=(3,))
    assert isinstance(network, MMoE)
    (found,) = particulars(network)
    assert "ALARM" not in found.text
    for _, *uses, entropy in found.rows:
        assert sum(x for x in uses if isinstance(x, float)) == pytest.approx(1.0)
        assert isinstance(entropy, float) and 0.5 < entropy < 1
    with torch.no_grad():
        network.first.bias[1 : TASKS * 3 : 3] = -50.0
    (found,) = particulars(network)
    assert found.text.endswith("expert 2.")
    assert [row[2] for row in found.rows] == pytest.approx([0.0] * TASKS)


def test_ple_tells_each_level_with_its_owners_and_no_shared_gate_in_the_last() -> None:
    network = build(PLE, levels=2, private=1, shared=2, expert=(8, 4), tower=(3,))
    first, last = particulars(network)
    assert first.columns == last.columns == ("", "click 1", "conversion 1", "shared 1", "shared 2", "entropy")
    assert [row[0] for row in first.rows] == ["click", "conversion", "shared"]
    assert [row[0] for row in last.rows] == ["click", "conversion"]
    assert last.rows[0][2] == last.rows[1][1] == 0.0, "the other task's own expert"
    assert all(x for x in first.rows[2][1:]), "the shared gate mixes all"


def test_ple_alarm_is_about_the_expert_that_its_owner_leaves_aside() -> None:
    network = build(PLE, levels=1, private=1, shared=2, expert=(8, 4), tower=(3,))
    assert isinstance(network, PLE)
    with torch.no_grad():
        network.first.bias[0] = -50.0  # the first task's gate of its own expert
    (found,) = particulars(network)
    assert found.text.endswith("of no use: click 1.")
