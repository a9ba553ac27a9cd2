"""Cross-stitch: between separate networks and one, as the stitches say."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.cross_stitch import CrossStitch, CrossStitchOptions
from models.layers import Pair
from models.separate_towers import SeparateTowers
from tests.models.learning import trained, untrained
from tests.models.small import TASKS, build, own_pair, repeated, shared_pair
from training.loop import Optimiser
from training.run import TrainingOptions
from training.weightings.fixed import Fixed, FixedOptions

TRUNK, TOWER = (8, 6, 4), (3,)
SMALL: dict[str, Any] = {"trunk": TRUNK, "tower": TOWER}


def network(**options: Any) -> CrossStitch:
    found = build(CrossStitch, **SMALL | options)
    assert isinstance(found, CrossStitch)
    return found


@torch.no_grad()
def shuffle(stitches: Any) -> None:
    """Stitches of random weights, no two of them alike."""
    random = torch.Generator().manual_seed(5)
    for stitch in stitches.parameters():
        stitch.copy_(torch.randn(stitch.shape, generator=random))


def test_stitches_of_identity_are_separate_networks() -> None:
    stitched, x = network(keep=1.0), shared_pair(3, 7)
    separate = build(SeparateTowers, seed=1, tower=TRUNK + TOWER)
    assert not torch.allclose(stitched(x), separate(x), atol=1e-3)
    state = separate.state_dict()
    for name, value in stitched.state_dict().items():
        if name.startswith("layers"):
            layer, kind = name.removeprefix("layers.").removesuffix(".0").split(".")
            state[f"towers.bank.{kind}.{layer}"] = value
        elif not name.startswith("stitches"):
            state[name.replace("s.0", f"s.{len(TRUNK) - 1}")] = value
    separate.load_state_dict(state)
    assert torch.equal(stitched(x), separate(x))


def reference(stitched: CrossStitch, x: Pair) -> Tensor:
    """Equation 1 after every layer, task by task and unit by unit: logits [N, T]."""
    first = stitched.first
    hidden = F.linear(torch.cat(repeated(x)[:2], dim=1), torch.cat([first.user, first.item], dim=1), first.bias)
    xs = list(torch.split(hidden.relu(), TRUNK[0], dim=1))
    for layer, a in enumerate(stitched.stitches.parameters()):
        if layer > 0:
            weight, bias = stitched.layers[layer - 1].parameters()
            xs = [(x @ weight[k] + bias[k]).relu() for k, x in enumerate(xs)]
        xs = list(torch.einsum("kjh,jnh->knh", a.expand(-1, -1, TRUNK[layer]), torch.stack(xs)))
    logits: Tensor = stitched.towers(xs)
    return logits


@pytest.mark.parametrize("per_channel", [False, True])
def test_it_is_the_paper_written_out(per_channel: bool) -> None:
    stitched, x = network(per_channel=per_channel), shared_pair(3, 7)
    assert [a.shape[2] for a in stitched.stitches.parameters()] == (list(TRUNK) if per_channel else [1, 1, 1])
    shuffle(stitched.stitches)
    assert torch.allclose(stitched(x), reference(stitched, x), atol=1e-5)


def moved(stitched: CrossStitch, task: int) -> Tensor:
    """Of which networks and towers a task's logits move any parameter: truth values [parameters, T]."""
    stitched.zero_grad()
    torch.autograd.backward(stitched(own_pair(256))[:, task].sum())
    found = []
    for name, parameter in stitched.named_parameters():
        if not name.startswith("stitches"):
            assert parameter.grad is not None
            found.append([bool(part.any()) for part in parameter.grad.chunk(TASKS)])
    return torch.tensor(found)


@pytest.mark.parametrize("task", range(TASKS))
def test_a_stitch_of_zero_cuts_the_gradient_from_one_task_to_the_others_network_and_not_back(task: int) -> None:
    stitched, other = network(), 1 - task
    own_tower_only = (
        3 * 2
    )  # two layers' weights of a tower and the logit's, and their biases, are no task's but its own
    assert moved(stitched, task)[:, other].sum() == moved(stitched, task)[:, task].sum() - own_tower_only + 2
    with torch.no_grad():
        for a in stitched.stitches.parameters():
            a[task, other] = 0.0
    assert moved(stitched, task).tolist() == [[k == task for k in range(TASKS)]] * len(moved(stitched, task))
    assert moved(stitched, other)[:, task].any()


def test_stitches_move_from_their_start_by_their_own_rate() -> None:
    start = untrained(CrossStitchOptions(**SMALL)).state_dict()
    distances = []
    for rate in (1.0, 10.0):
        ranker, _ = trained(CrossStitchOptions(**SMALL, stitch_rate=rate))
        names = [name for name in start if "stitches" in name]
        assert len(names) == len(TRUNK)
        apart = [(ranker.state_dict()[name] - start[name]).abs().min().item() for name in names]
        distances.append(min(apart))
    assert 1e-4 < distances[0] < distances[1]
    assert distances[1] > 0.01


def test_stitches_and_nothing_else_have_their_own_rate() -> None:
    ranker = untrained(CrossStitchOptions(**SMALL, stitch_rate=7.0))
    weighting = Fixed(FixedOptions(), torch.ones(TASKS), ["click", "conversion"])
    adam = Optimiser(ranker, TrainingOptions(learning_rate=0.01), weighting).adam
    rates = {id(parameter): group["lr"] for group in adam.param_groups for parameter in group["params"]}
    for name, parameter in ranker.architecture.named_parameters():
        assert rates[id(parameter)] == pytest.approx(0.07 if name.startswith("stitches") else 0.01), name


def test_network_weights_are_those_that_multiply_and_towers_are_no_part_of_them() -> None:
    stitched, x = network(), own_pair(5)
    first, *others = stitched.network_weights()
    joined = torch.cat([x.user, x.item], dim=1)
    for task, (hidden, bias) in enumerate(zip(stitched.first(x), stitched.first.bias.chunk(TASKS), strict=True)):
        assert torch.allclose(joined @ first[task] + bias, hidden, atol=1e-6)
    assert [tuple(weight.shape) for weight in others] == [(TASKS, 8, 6), (TASKS, 6, 4)]
    assert [tuple(weight.shape) for weight in stitched.tower_weights()] == [(TASKS, 4, 3), (TASKS, 3, 1)]


def test_card_tells_a_matrix_a_layer() -> None:
    stitched = network(per_channel=True)
    shuffle(stitched.stitches)
    told = stitched.tell(own_pair(3), ["click", "conversion"])
    assert [table.title for table in told] == [f"Stitch after layer {n}" for n in (1, 2, 3)]
    for table, a in zip(told, stitched.stitches.parameters(), strict=True):
        assert table.shaded and table.columns == ("", "click", "conversion")
        assert [row[0] for row in table.rows] == ["click", "conversion"]
        assert torch.allclose(torch.tensor([row[1:] for row in table.rows]), a.mean(dim=2))
