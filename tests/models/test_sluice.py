"""Sluice networks: what they have beyond cross-stitch, and what is left without it."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from models.cross_stitch import CrossStitch
from models.sluice import Sluice, SluiceOptions
from tests.models.small import build, own_pair

SIZES: dict[str, Any] = {"trunk": (8, 8), "tower": (4,)}


def network(**options: Any) -> Sluice:
    found = build(Sluice, **(SIZES | options))
    assert isinstance(found, Sluice)
    return found


def test_one_subspace_and_the_last_layer_alone_is_cross_stitch() -> None:
    x, sluice, cross = own_pair(32), network(subspaces=1, skip=False), build(CrossStitch, seed=1, **SIZES)
    state = {name.replace("alphas", "stitches"): value for name, value in sluice.state_dict().items()}
    beta = state.pop("beta")
    cross.load_state_dict(state)
    assert torch.allclose(sluice(x), cross(x), rtol=0, atol=1e-6)
    assert beta.tolist() == [[0.0, 1.0], [0.0, 1.0]]


def test_each_ablation_changes_the_output() -> None:
    x, whole = own_pair(32), network()
    changed = []
    for name, value in (("alphas.0.weight", torch.eye(4).unsqueeze(2)), ("beta", torch.tensor([[0.0, 1.0]] * 2))):
        other = network()
        other.get_parameter(name).data = value
        changed.append(other(x))
    changed.append(network(subspaces=1)(x))
    assert all(not torch.allclose(whole(x), one, atol=1e-5) for one in changed)


def test_a_subspace_reads_all_of_its_tasks_layer_below() -> None:
    assert [tuple(w.shape) for w in network().subspace_weights()] == [(2, 2, 12, 4), (2, 2, 8, 4)]


def test_mixtures_move_in_training_at_a_rate_of_their_own() -> None:
    whole, x = network(), own_pair(64)
    torch.autograd.backward(torch.nn.functional.softplus(whole(x)).sum())
    assert {rate for _, rate in whole.rates()} == {10.0}
    assert len(whole.rates()) == 3
    assert all(parameter.grad is not None and parameter.grad.any() for parameter, _ in whole.rates())


@pytest.mark.parametrize(
    ("options", "reason"), [({"trunk": (8, 6)}, "of one width"), ({"trunk": (7, 7)}, "cut into 2 subspaces")]
)
def test_widths_that_do_not_fit_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        SluiceOptions.model_validate(options)


def test_card_shows_alphas_and_betas() -> None:
    told = network().tell(own_pair(4), ["click", "buy"])
    assert [one.title for one in told] == ["Alpha after layer 1", "Alpha after layer 2", "Beta"]
    assert told[0].columns == ("", "click 1", "click 2", "buy 1", "buy 2")
    assert [row[0] for row in told[2].rows] == ["click", "buy"]
