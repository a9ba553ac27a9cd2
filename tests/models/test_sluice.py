"""Sluice networks: cross-stitch between parts of layers, and towers that read all layers."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from models.cross_stitch import CrossStitch, CrossStitchOptions
from models.layers import Pair
from models.sluice import Sluice, SluiceOptions
from tests.models.learning import logits, trained, untrained
from tests.models.small import TASKS, build, own_pair, repeated, shared_pair

SMALL: dict[str, Any] = {"trunk": (6, 6, 6), "tower": (8,)}
ONE: dict[str, Any] = {"subspaces": 1, "skip": False}
LAYERS, WIDTH = 3, 6
ORTHOGONALITY = {"kind": "orthogonality", "strength": 0.1}


def network(**options: Any) -> Sluice:
    found = build(Sluice, **SMALL | options)
    assert isinstance(found, Sluice)
    return found


@torch.no_grad()
def shuffle(sluice: Sluice) -> Sluice:
    """With alphas and beta at random, no two of them alike."""
    random = torch.Generator().manual_seed(5)
    for parameter, _ in sluice.rates():
        parameter.copy_(torch.randn(parameter.shape, generator=random))
    return sluice


def reference(sluice: Sluice, x: Pair, subspaces: int) -> Tensor:
    """The paper's alphas and beta as dense matrices, one row after another: logits [N, T]."""
    joined, first = torch.cat(repeated(x)[:2], dim=1), sluice.first
    hidden = F.linear(joined, torch.cat([first.user, first.item], dim=1), first.bias).relu()
    outputs: list[Tensor] = []
    for layer, alpha in enumerate(sluice.alphas.parameters()):
        if layer > 0:
            weight, bias = sluice.layers[layer - 1].parameters()
            tasks = outputs[-1].chunk(TASKS, dim=1)
            hidden = torch.cat(
                [(tasks[i // subspaces] @ w + b).relu() for i, (w, b) in enumerate(zip(weight, bias, strict=True))],
                dim=1,
            )
        outputs.append(hidden @ torch.kron(alpha.squeeze(2), torch.eye(WIDTH // subspaces)).t())
    mixed = outputs[-1].chunk(TASKS, dim=1)
    if sluice.beta is not None:
        layers = torch.stack([output.unflatten(1, (TASKS, WIDTH)) for output in outputs])  # type: ignore[no-untyped-call]
        mixed = torch.einsum("kl,lnkh->nkh", sluice.beta.squeeze(2), layers).unbind(dim=1)
    found: Tensor = sluice.towers(mixed)
    return found


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("subspaces", [1, 2])
def test_it_is_the_paper_written_out(subspaces: int, skip: bool) -> None:
    sluice, x = shuffle(network(subspaces=subspaces, skip=skip)), shared_pair(3, 7)
    assert torch.allclose(sluice(x), reference(sluice, x, subspaces), atol=1e-5)


@pytest.mark.parametrize("skip", [True, False])
@torch.no_grad()
def test_one_subspace_and_the_last_layer_equal_cross_stitch(skip: bool) -> None:
    sluice, x = shuffle(network(subspaces=1, skip=skip)), shared_pair(3, 7)
    if sluice.beta is not None:
        sluice.beta.copy_(torch.eye(LAYERS)[-1].view(LAYERS, 1).expand(TASKS, LAYERS, 1))
    stitched = build(CrossStitch, seed=1, **SMALL)
    assert not torch.allclose(sluice(x), stitched(x), atol=1e-3)
    state = {name.replace("alphas", "stitches"): value for name, value in sluice.state_dict().items()}
    state.pop("beta", None)
    stitched.load_state_dict(state)
    assert torch.allclose(sluice(x), stitched(x), rtol=0, atol=1e-6)


def test_one_subspace_the_last_layer_and_no_penalty_train_like_cross_stitch() -> None:
    sluice, _ = trained(SluiceOptions(**SMALL, **ONE), regulariser=ORTHOGONALITY | {"strength": 0.0})
    stitched, _ = trained(CrossStitchOptions(**SMALL))
    assert np.abs(logits(sluice) - logits(stitched)).max() <= 1e-6
    assert logits(sluice).std() > 0.01


def test_alphas_and_beta_move_from_their_start() -> None:
    options = SluiceOptions(**SMALL)
    start, (ranker, _) = untrained(options).state_dict(), trained(options, regulariser=ORTHOGONALITY)
    end = ranker.state_dict()
    names = [name for name in start if "alphas" in name or "beta" in name]
    assert len(names) == LAYERS + 1
    for name in names:
        assert (end[name] - start[name]).abs().mean() > 0.01, name


@pytest.mark.parametrize("ablation", [{"subspaces": 1}, {"skip": False}, {"keep": 1.0}])
def test_each_part_of_the_architecture_changes_the_output(ablation: dict[str, Any]) -> None:
    x = own_pair(64)
    assert not torch.allclose(network()(x), network(**ablation)(x), atol=1e-3)


def test_the_penalty_changes_what_is_learned() -> None:
    with_it, without = (
        trained(SluiceOptions(**SMALL), regulariser=ORTHOGONALITY | {"strength": strength})[0]
        for strength in (0.1, 0.0)
    )
    assert np.abs(logits(with_it) - logits(without)).max() > 1e-3


def test_a_task_whose_alphas_to_another_are_zero_does_not_move_its_network() -> None:
    sluice = network()
    with torch.no_grad():
        for alpha in sluice.alphas.parameters():
            alpha[:2, 2:] = 0.0
    torch.autograd.backward(sluice(own_pair(256))[:, 0].sum())
    for name, parameter in sluice.named_parameters():
        assert parameter.grad is not None
        if "alphas" not in name:
            assert [bool(part.any()) for part in parameter.grad.chunk(TASKS)] == [True, False], name


def test_widths_that_cannot_be_mixed_or_divided_are_refused_with_the_reason() -> None:
    with pytest.raises(ValidationError, match="make the widths of `trunk` equal"):
        SluiceOptions(trunk=(8, 4))
    assert SluiceOptions(trunk=(8, 4), skip=False).trunk == (8, 4)
    with pytest.raises(ValidationError, match="cut into 2 subspaces"):
        SluiceOptions(trunk=(7, 7))


def test_subspace_weights_are_those_that_multiply() -> None:
    sluice, x = network(), own_pair(5)
    first, *others = sluice.subspace_weights()
    assert [tuple(weight.shape) for weight in others] == [(TASKS, 2, WIDTH, WIDTH // 2)] * 2
    joined, bias = torch.cat([x.user, x.item], dim=1), sluice.first.bias.view(TASKS, 2, -1)
    for i, part in enumerate(sluice.first(x)):
        assert torch.allclose(joined @ first[i // 2, i % 2] + bias[i // 2, i % 2], part, atol=1e-6)
    for weight, bank in zip(others, sluice.layers, strict=True):
        assert torch.equal(weight.flatten(0, 1), next(bank.parameters()))


def test_card_tells_alphas_and_beta() -> None:
    sluice = shuffle(network())
    *alphas, told = sluice.tell(own_pair(3), ["click", "conversion"])
    assert len(alphas) == LAYERS
    assert alphas[0].columns == ("", "click 1", "click 2", "conversion 1", "conversion 2")
    for table, alpha in zip(alphas, sluice.alphas.parameters(), strict=True):
        assert torch.allclose(torch.tensor([row[1:] for row in table.rows]), alpha.squeeze(2))
    assert sluice.beta is not None
    assert torch.allclose(torch.tensor([row[1:] for row in told.rows]), sluice.beta.squeeze(2))
    assert told.columns == ("", "layer 1", "layer 2", "layer 3")
    assert len(network(skip=False).tell(own_pair(3), ["click", "conversion"])) == LAYERS


def test_without_skip_nothing_of_a_mixture_is_left_to_learn() -> None:
    sluice = network(skip=False)
    assert all(parameter.requires_grad for parameter in sluice.parameters()), "a weighting asks for all gradients"
    assert len(sluice.rates()) == LAYERS
    assert not any("beta" in name for name in sluice.state_dict())


def test_towers_start_with_the_last_layer_and_equal_parts_of_the_others() -> None:
    beta = network(keep=0.8).beta
    assert beta is not None
    assert torch.allclose(beta.squeeze(2), torch.tensor([[0.1, 0.1, 0.8]] * TASKS))
