"""What a weighting is: it begins with the weighted sum, the penalty apart, and what it learns has no decay."""

from collections.abc import Sequence
from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from models.ranker import Ranker
from tests.training import small
from training.choices import name_of
from training.loop import Optimiser
from training.run import TrainingOptions
from training.weightings.registry import WEIGHTINGS
from training.weightings.weighting import Weighting, WeightingOptions

TASKS = ["click", "cart", "purchase"]


class PlainOptions(WeightingOptions):
    """The least that a weighting may have."""

    kind: Literal["plain"] = "plain"


class Plain(Weighting):
    """The weighted sum."""

    options_type = PlainOptions

    def backward(self, losses: Tensor, penalty: Tensor | None, leaves: Sequence[Tensor]) -> Tensor:
        total = (self.base * losses).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total.detach()


class Learned(Plain):
    """Has a parameter, and no step size of its own."""

    def __init__(self, options: PlainOptions, base: Tensor, tasks: Sequence[str]) -> None:
        super().__init__(options, base, tasks)
        self.free = nn.Parameter(torch.zeros(len(tasks)))


def test_it_keeps_its_options_and_the_tasks_in_their_order() -> None:
    options, tasks = PlainOptions(), ["purchase", "click", "cart"]
    weighting = Plain(options, torch.tensor([1.0, 2.0, 0.0]), tasks)
    tasks.reverse()
    assert weighting.options is options
    assert weighting.tasks == ("purchase", "click", "cart")


def test_task_weights_are_kept_and_moved_with_it_but_not_learned() -> None:
    weighting = Plain(PlainOptions(), torch.tensor([1.0, 2.0, 0.0]), TASKS)
    assert list(weighting.parameters()) == []
    assert weighting.state_dict()["base"].tolist() == [1.0, 2.0, 0.0]
    assert weighting.to(torch.float64).base.dtype == torch.float64


def test_by_itself_an_epoch_changes_nothing_and_the_card_is_told_nothing() -> None:
    weighting = Plain(PlainOptions(), torch.tensor([1.0, 2.0, 0.0]), TASKS)
    for epoch in range(2):
        weighting.start_epoch(epoch)
    assert weighting.base.tolist() == [1.0, 2.0, 0.0]
    assert weighting.tell() == ()


@pytest.mark.parametrize("rate", [1e-4, 0.3])
def test_what_it_learns_steps_as_dense_parameters_do_but_without_decay(rate: float, prepared: small.Prepared) -> None:
    weighting = Learned(PlainOptions(), torch.ones(3), TASKS)
    ranker = Ranker(prepared.fitted.inputs, prepared.run.model, 2)
    optimiser = Optimiser(ranker, TrainingOptions(learning_rate=rate, weight_decay=0.1), weighting)
    (group,) = [x for x in optimiser.adam.param_groups if any(weight is weighting.free for weight in x["params"])]
    assert (group["lr"], group["weight_decay"]) == (rate, 0.0)


def step(entry: type[Any], base: list[float], penalised: bool) -> tuple[Tensor, list[float], list[float]]:
    """The loss that a weighting answers, and the gradients in a leaf of the tasks and in one of the penalty."""
    weighting = entry(entry.options_type(), torch.tensor(base), TASKS)
    weighting.start_epoch(0)
    shared, apart = torch.tensor([1.0, 2.0, 3.0], requires_grad=True), torch.ones(2, requires_grad=True)
    value = weighting.backward(shared.square(), 5 * apart.sum() if penalised else None, [shared])
    assert shared.grad is not None
    return value, shared.grad.tolist(), [] if apart.grad is None else apart.grad.tolist()


@pytest.mark.parametrize("penalised", [False, True], ids=["plain", "penalised"])
@pytest.mark.parametrize("base", [[1.0, 1.0, 1.0], [0.5, 0.0, 2.0], [0.0, 0.0, 0.0]], ids=str)
@pytest.mark.parametrize("entry", WEIGHTINGS, ids=name_of)
def test_every_weighting_begins_with_the_sum_by_task_weights_and_the_penalty_apart(
    entry: type[Any], base: list[float], penalised: bool
) -> None:
    value, gradient, of_penalty = step(entry, base, penalised)
    assert value.item() == base[0] + 4 * base[1] + 9 * base[2]
    assert not value.requires_grad
    assert gradient == [2 * base[0], 4 * base[1], 6 * base[2]]
    assert of_penalty == ([5.0, 5.0] if penalised else [])


@pytest.mark.parametrize("wrong", [{}, {"kind": "plain", "growth": 1.0}])
def test_options_without_a_kind_or_with_an_unknown_key_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        WeightingOptions.model_validate(wrong)
