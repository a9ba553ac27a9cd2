"""The whole network: training's `score` and serving's `rank` are one function of the features."""

import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.architecture import Architecture
from models.layers import PairLinear
from models.ranker import Ranker
from tests.models.small import EVERY, INPUTS, NAMES, TASKS, columns, encoded

every = pytest.mark.parametrize("architecture", [entry for _, entry in EVERY], ids=NAMES)
SIZES = (1, 2, 7)


def ranker(architecture: type[Architecture], seed: int = 0) -> Ranker:
    torch.manual_seed(seed)
    network = Ranker(INPUTS, architecture.options_type.model_validate({}), TASKS)
    with torch.no_grad():
        for table in network.embeddings.tables.values():
            table.normal_()  # as they begin, near 0, the features hardly matter
    return network


@every
@pytest.mark.parametrize(("users", "candidates"), [*itertools.product(SIZES, SIZES)])
def test_rank_equals_score_with_the_user_repeated(
    architecture: type[Architecture], users: int, candidates: int
) -> None:
    network, (found, user, item) = ranker(architecture), columns(users, candidates)
    row_user = torch.randint(users, (candidates,), generator=torch.Generator().manual_seed(5))
    own = {x.name: found[x.name][row_user] if x.side == "user" else found[x.name] for x in INPUTS.lookups}
    batch = encoded(own, user[row_user], item)
    expected = network.score(batch, network.look_up(batch))
    ranked = network.rank(found, user, item, row_user)
    assert ranked.shape == (candidates, TASKS)
    assert torch.allclose(ranked, expected, rtol=0, atol=1e-6)
    assert torch.equal(network(batch), expected)


@every
def test_rank_without_row_user_takes_candidate_i_for_user_i(architecture: type[Architecture]) -> None:
    network, (found, user, item) = ranker(architecture), columns(7, 7)
    each = network.rank(found, user, item, torch.arange(7))
    assert torch.allclose(network.rank(found, user, item, None), each, rtol=0, atol=1e-6)


@every
def test_users_whom_no_candidate_is_for_change_nothing(architecture: type[Architecture]) -> None:
    network, (found, user, item) = ranker(architecture), columns(3, 7)
    row_user = torch.full((7,), 1)
    only = {x.name: found[x.name][1:2] if x.side == "user" else found[x.name] for x in INPUTS.lookups}
    alone = network.rank(only, user[1:2], item, torch.zeros(7, dtype=torch.int64))
    assert torch.allclose(network.rank(found, user, item, row_user), alone, rtol=0, atol=1e-6)


@every
def test_every_feature_and_number_moves_the_scores(architecture: type[Architecture]) -> None:
    network, (found, user, item) = ranker(architecture), columns(7, 7)
    before = network.rank(found, user, item, None)
    for lookup in INPUTS.lookups:
        other = found | {lookup.name: torch.full_like(found[lookup.name], lookup.offset + 5)}
        assert not torch.allclose(network.rank(other, user, item, None), before, atol=1e-5), lookup.name
    for side, numbers in (("user", user), ("item", item)):
        for i in range(numbers.shape[1]):
            other_numbers = numbers.clone()
            other_numbers[:, i] = 30.0
            given = (other_numbers, item) if side == "user" else (user, other_numbers)
            assert not torch.allclose(network.rank(found, *given, None), before, atol=1e-5), f"{side} number {i}"


@every
def test_gradient_reaches_every_table_row_looked_up_and_every_weight(architecture: type[Architecture]) -> None:
    network, (found, user, item) = ranker(architecture), columns(64, 64)
    torch.autograd.backward(network(encoded(found, user, item)).square().sum())
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


@every
def test_work_for_a_second_user_is_that_of_its_first_layer_only(architecture: type[Architecture]) -> None:
    network = ranker(architecture)

    def operations(users: int, candidates: int = 7) -> int:
        with FlopCounterMode(display=False) as counter:
            network.rank(*columns(users, candidates), torch.zeros(candidates, dtype=torch.int64))
        return int(counter.get_total_flops())

    first = sum(layer.user.numel() for layer in network.architecture.modules() if isinstance(layer, PairLinear))
    work = operations(2) - operations(1)
    assert work == operations(2, 1000) - operations(1, 1000), "however many candidates there are"
    of_first = 2 * first
    assert work > of_first > 0 if network.embeddings.steps else work == of_first > 0


@every
def test_ranker_state_survives_a_round_trip(architecture: type[Architecture]) -> None:
    network, other, batch = ranker(architecture), ranker(architecture, seed=1), encoded(*columns(7, 7))
    assert not torch.allclose(network(batch), other(batch), atol=1e-3)
    other.load_state_dict(network.state_dict())
    assert torch.equal(network(batch), other(batch))
