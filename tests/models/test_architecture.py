"""What holds for every architecture of the registry."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from models.architecture import Architecture
from models.layers import PairLinear, Widths
from tests.models.small import EVERY, NAMES, TASKS, build, of_users, own_pair, repeated, shared_pair

SIZES = (1, 2, 7)
every = pytest.mark.parametrize("architecture", [entry for _, entry in EVERY], ids=NAMES)


@every
@pytest.mark.parametrize("rows", SIZES)
def test_rows_with_their_own_users_get_a_logit_per_task(architecture: type[Architecture], rows: int) -> None:
    assert build(architecture)(own_pair(rows)).shape == (rows, TASKS)


@every
@pytest.mark.parametrize(("users", "candidates"), [*itertools.product(SIZES, SIZES)])
def test_sharing_the_user_scores_like_repeating_it(
    architecture: type[Architecture], users: int, candidates: int
) -> None:
    network, x = build(architecture), shared_pair(users, candidates)
    assert network(x).shape == (candidates, TASKS)
    assert torch.allclose(network(x), network(repeated(x)), rtol=0, atol=1e-6)


@every
def test_a_row_scores_the_same_whatever_stands_beside_it(architecture: type[Architecture]) -> None:
    network, x = build(architecture), own_pair(7)
    each = [slice(i, i + 1) for i in range(7)]
    alone = torch.cat([network(of_users(x, row)._replace(item=x.item[row])) for row in each])
    assert torch.allclose(network(x), alone, rtol=0, atol=1e-6)


def operations(architecture: type[Architecture], widths: Widths, users: int, candidates: int) -> int:
    """Floating point operations of one run."""
    network = build(architecture, widths)
    with FlopCounterMode(display=False) as counter:
        network(shared_pair(users, candidates, widths=widths))
    return int(counter.get_total_flops())


@every
def test_the_user_is_multiplied_once_and_not_once_per_candidate(architecture: type[Architecture]) -> None:
    widths, wide = Widths(6, 4), Widths(60, 4)
    per_candidate = operations(architecture, widths, 1, 8) - operations(architecture, widths, 1, 7)
    assert per_candidate == operations(architecture, wide, 1, 8) - operations(architecture, wide, 1, 7)
    first = [layer for layer in build(architecture, wide).modules() if isinstance(layer, PairLinear)]
    per_user, in_steps = (
        operations(architecture, given, 3, 7) - operations(architecture, given, 2, 7) for given in (wide, Widths(0, 4))
    )
    assert per_user - in_steps == 2 * sum(layer.user.numel() for layer in first) > 0
    assert in_steps == 0 or build(architecture).options.steps


@every
def test_dropout_is_on_in_training_and_off_in_evaluation(architecture: type[Architecture]) -> None:
    network, x = build(architecture, dropout=0.5), own_pair(7)
    assert not torch.equal(network(x), network(x))
    assert torch.equal(network.eval()(x), network(x))
    assert torch.equal(network(x), build(architecture)(x))


@every
def test_gradient_reaches_every_parameter_of_every_member(architecture: type[Architecture]) -> None:
    """A member is an expert, a tower or a gate: a slice of a stacked weight, or a part of a first layer."""
    network = build(architecture)
    torch.autograd.backward(F.softplus(network(own_pair(256))).sum())
    for path, layer in network.named_modules():
        for name, parameter in layer.named_parameters(path, recurse=False):
            assert parameter.grad is not None, name
            sizes = layer.widths_out if isinstance(layer, PairLinear) else 1
            for i, part in enumerate(torch.split(parameter.grad, sizes)):
                assert part.abs().sum() > 0, f"member {i} of {name}"


@every
def test_both_sides_and_every_column_matter(architecture: type[Architecture]) -> None:
    network, x = build(architecture), own_pair(64)
    x.user.requires_grad_(), x.item.requires_grad_()
    copies = network.options.copies(TASKS)  # of the embeddings: a task may have columns of its own
    for task in range(TASKS):
        for gradient in torch.autograd.grad(network(x)[:, task].sum(), (x.user, x.item)):
            matters = (gradient.abs().sum(dim=0) > 0).chunk(copies)
            assert [bool(part.all()) for part in matters] == [copies == 1 or k == task for k in range(copies)]


@every
@pytest.mark.parametrize("widths", [Widths(0, 4), Widths(6, 0)], ids=["no user", "no item"])
def test_a_side_may_be_empty(architecture: type[Architecture], widths: Widths) -> None:
    network = build(architecture, widths)
    x = shared_pair(2, 7, widths=widths)
    assert network(x).shape == (7, TASKS)
    assert torch.allclose(network(x), network(repeated(x)), rtol=0, atol=1e-6)


@every
@pytest.mark.parametrize("tasks", [1, 3])
def test_any_number_of_tasks(architecture: type[Architecture], tasks: int) -> None:
    network = build(architecture, tasks=tasks)
    assert network(own_pair(7)).shape == (7, tasks)


@every
def test_one_seed_gives_one_network_and_another_seed_another(architecture: type[Architecture]) -> None:
    x = own_pair(7)
    assert torch.equal(build(architecture)(x), build(architecture)(x))
    assert not torch.allclose(build(architecture)(x), build(architecture, seed=1)(x), atol=1e-3)


@every
def test_state_survives_a_round_trip(architecture: type[Architecture]) -> None:
    network, other, x = build(architecture), build(architecture, seed=1), own_pair(7)
    other.load_state_dict(network.state_dict())
    assert torch.equal(network(x), other(x))
    learned = {name for name, _ in network.named_parameters()}
    assert set(network.state_dict()) == learned, "what is fixed is no state"


def test_no_two_architectures_give_the_same_output_from_one_seed() -> None:
    outputs = [build(entry)(own_pair(7)) for _, entry in EVERY]
    for one, other in itertools.combinations(outputs, 2):
        assert not torch.allclose(one, other, atol=1e-3)


@every
def test_options_refuse_what_they_do_not_know(architecture: type[Architecture]) -> None:
    with pytest.raises(ValidationError, match="experts_"):
        architecture.options_type.model_validate({"experts_": 4})
    with pytest.raises(ValidationError, match="architecture"):
        architecture.options_type.model_validate({"architecture": "another"})
    for dropout in (-0.1, 1.0):
        with pytest.raises(ValidationError, match="dropout"):
            architecture.options_type.model_validate({"dropout": dropout})
