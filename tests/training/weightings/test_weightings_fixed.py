"""Fixed weights: the run's, times a factor to the power of the epoch, whatever happened before."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from contract.tasks import CLICK_AND_CONVERSION
from models.ranker import Ranker
from tests.training import small
from training import loop
from training.run import TrainingOptions
from training.split import TRAIN, VALIDATION
from training.weightings.fixed import Fixed, FixedOptions

TASKS = ["click", "cart", "purchase"]


def fixed(*base: float, **growth: float) -> Fixed:
    return Fixed(FixedOptions(growth=growth), torch.tensor(base), TASKS)


def gradient(weighting: Fixed, values: list[float], penalised: bool = False) -> tuple[float, list[float]]:
    """The loss answered, and the gradient in a leaf that is the tasks' losses."""
    x: Tensor = torch.tensor(values, requires_grad=True)
    value = weighting.backward(x * 1.0, 100 * x.sum() if penalised else None, [x])
    assert x.grad is not None and not value.requires_grad
    return value.item(), x.grad.tolist()


@pytest.mark.parametrize("growth", [{}, {"cart": 3.0}], ids=["still", "growing"])
def test_before_and_in_the_first_epoch_the_weights_are_those_of_the_run(growth: dict[str, float]) -> None:
    weighting = fixed(1.0, 2.0, 0.5, **growth)
    assert gradient(weighting, [1.0, 1.0, 1.0]) == (3.5, [1.0, 2.0, 0.5])
    weighting.start_epoch(0)
    assert gradient(weighting, [1.0, 1.0, 1.0]) == (3.5, [1.0, 2.0, 0.5])


def test_growth_goes_to_the_task_of_its_name_and_leaves_the_others() -> None:
    weighting = fixed(1.0, 1.0, 1.0, purchase=2.0, click=0.5)
    weighting.start_epoch(2)
    assert gradient(weighting, [1.0, 1.0, 1.0])[1] == [0.25, 1.0, 4.0]


@pytest.mark.parametrize("before", [[], [0], [0, 1, 2, 3], [3, 3, 3], [7]], ids=str)
def test_weights_are_those_of_the_epoch_whatever_epochs_came_before(before: list[int]) -> None:
    weighting = fixed(1.0, 4.0, 0.0, cart=0.5, purchase=9.0)
    for epoch in [*before, 3]:
        weighting.start_epoch(epoch)
    assert weighting.weights.tolist() == [1.0, 0.5, 0.0]
    assert weighting.base.tolist() == [1.0, 4.0, 0.0]


def test_two_weightings_of_the_same_task_weights_grow_apart_and_leave_them_as_they_are() -> None:
    base = torch.tensor([1.0, 2.0, 3.0])
    grown, still = Fixed(FixedOptions(growth={"cart": 2.0}), base, TASKS), Fixed(FixedOptions(), base, TASKS)
    grown.start_epoch(1)
    grown.weights += 1
    still.weights += 10
    assert grown.weights.tolist() == [2.0, 5.0, 4.0]
    assert base.tolist() == [1.0, 2.0, 3.0]


def test_losses_of_zero_still_pass_their_gradients_and_weights_of_zero_pass_none() -> None:
    assert gradient(fixed(1.0, 0.0, 2.0), [0.0, 7.0, 0.0]) == (0.0, [1.0, 0.0, 2.0])


def test_a_penalty_is_neither_weighted_nor_answered() -> None:
    weighting = fixed(0.0, 0.0, 3.0, purchase=2.0)
    weighting.start_epoch(1)
    assert gradient(weighting, [1.0, 1.0, 1.0], penalised=True) == (6.0, [100.0, 100.0, 106.0])


def test_a_penalty_is_minimised_even_where_no_task_weighs_anything() -> None:
    assert gradient(fixed(0.0, 0.0, 0.0), [1.0, 1.0, 1.0], penalised=True) == (0.0, [100.0, 100.0, 100.0])


def test_the_card_tells_each_epoch_once_by_the_names_of_the_tasks() -> None:
    weighting = fixed(1.0, 2.0, 4.0, purchase=0.5)
    for epoch in (0, 0, 0, 1, 1, 2):  # an epoch that visits the rows task by task begins several times
        weighting.start_epoch(epoch)
    (told,) = weighting.tell()
    assert told.columns == ("", *TASKS)
    assert told.rows == (("epoch 1", 1.0, 2.0, 4.0), ("epoch 2", 1.0, 2.0, 2.0), ("epoch 3", 1.0, 2.0, 1.0))


@pytest.mark.parametrize("growth", [{}, {"cart": 1.0}])
def test_weights_that_stand_still_are_not_told(growth: dict[str, float]) -> None:
    weighting = fixed(1.0, 2.0, 4.0, **growth)
    weighting.start_epoch(0)
    assert weighting.tell() == ()


@pytest.mark.parametrize("factor", [0.0, -1.0, math.inf, math.nan])
def test_a_factor_that_is_no_positive_number_is_refused(factor: float) -> None:
    with pytest.raises(ValidationError):
        FixedOptions(growth={"click": factor})


def test_a_run_tells_weights_epoch_by_epoch_from_those_it_begins_with(prepared: small.Prepared) -> None:
    weighting, start = FixedOptions(growth={"conversion": 1.5}), {"conversion": 2.0}
    chosen = TrainingOptions(epochs=3, batch_rows=512, patience=9, task_weights=start, weighting=weighting)
    ranker = Ranker(prepared.fitted.inputs, prepared.run.model, 2)
    rows, validation = prepared.tensors[TRAIN], prepared.tensors[VALIDATION]
    history = loop.train(ranker, rows, validation, CLICK_AND_CONVERSION, chosen, seed=0, on_progress=small.nothing)
    (told,) = history.particulars
    assert told.rows == (("epoch 1", 1.0, 2.0), ("epoch 2", 1.0, 3.0), ("epoch 3", 1.0, 4.5))
