"""What a regulariser is: asked for its penalty in every step, told after it, and silent by itself."""

from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from contract.tasks import CLICK_AND_CONVERSION
from models.ranker import Ranker
from tests.training import small
from training import loop
from training.regularisers.regulariser import Regulariser, RegulariserOptions
from training.run import TrainingOptions
from training.split import TRAIN, VALIDATION

EPOCHS, BATCH_ROWS = 2, 128


class PullOptions(RegulariserOptions):
    """The least that a regulariser may have."""

    kind: Literal["pull"] = "pull"
    strength: float = 1.0


class Pull(Regulariser):
    """Squares of all weights; notes what it is asked and told."""

    options_type = PullOptions
    options: PullOptions
    needs = nn.Module
    because = "it pulls weights"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.noted: list[str] = []

    def penalty(self) -> Tensor:
        self.noted.append("penalty")
        squares = [parameter.square().sum() for parameter in self.architecture.parameters()]
        return self.options.strength * torch.stack(squares).sum()


class Told(Pull):
    """Notes also when a step is over."""

    def after_step(self) -> None:
        self.noted.append("after_step")


def trainer(log: small.Prepared, strength: float) -> loop.Trainer:
    torch.manual_seed(0)
    ranker = Ranker(log.fitted.inputs, log.run.model, 2)
    options = TrainingOptions(epochs=EPOCHS, batch_rows=BATCH_ROWS, regulariser=PullOptions(strength=strength))
    rows, validation = log.tensors[TRAIN], log.tensors[VALIDATION]
    return loop.Trainer(ranker, rows, validation, CLICK_AND_CONVERSION, options, seed=0, on_progress=small.nothing)


def size(network: nn.Module) -> float:
    return sum(float(parameter.detach().square().sum()) for parameter in network.parameters())


def test_it_keeps_what_it_is_built_for_with_the_tasks_in_their_order() -> None:
    options, architecture, tasks = PullOptions(strength=3.0), nn.Linear(2, 1), ["conversion", "click", "cart"]
    built = Pull(options, architecture, tasks)
    tasks.reverse()
    assert built.options is options
    assert built.architecture is architecture
    assert built.tasks == ("conversion", "click", "cart")


def test_one_with_nothing_to_say_leaves_the_card_and_the_weights_alone() -> None:
    network = nn.Linear(3, 2)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    built = Pull(PullOptions(), network, ["click"])
    built.after_step()
    assert built.tell() == ()
    assert built.noted == []
    assert all(torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize("entry", [Pull, Told])
def test_every_step_asks_for_the_penalty_once_and_tells_when_it_is_over(
    entry: type[Pull], prepared: small.Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "REGULARISERS", (entry,))
    found = trainer(prepared, strength=1.0)
    assert isinstance(found.regulariser, entry)
    for epoch in range(EPOCHS):
        found.epoch(epoch)
    steps = EPOCHS * -(-len(prepared.tensors[TRAIN]) // BATCH_ROWS)
    assert steps > EPOCHS
    assert found.regulariser.noted == ["penalty", *["after_step"][: entry is Told]] * steps


def test_the_penalty_is_added_to_the_loss_that_is_minimised(
    prepared: small.Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "REGULARISERS", (Pull,))
    sizes = []
    for strength in (0.0, 100.0):
        found = trainer(prepared, strength)
        before = size(found.ranker.architecture)
        found.epoch(0)
        sizes.append(size(found.ranker.architecture) - before)
    assert sizes[1] < min(sizes[0], 0.0)


@pytest.mark.parametrize("wrong", [{}, {"kind": "pull", "strenght": 1.0}])
def test_options_without_a_kind_or_with_an_unknown_key_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RegulariserOptions.model_validate(wrong)


def test_options_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(PullOptions(), "strength", 2.0)  # noqa: B010 (the checker of types knows that it is frozen)
