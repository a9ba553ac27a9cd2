"""DUPN: what the LSTM may see, what the attention may weigh, and that each user is read once."""

import warnings
from collections.abc import Iterator
from multiprocessing import get_context
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.dupn import DUPN
from models.layers import Pair, Steps, Widths
from tests.models.small import LENGTH, PROPERTIES, STEPS, TASKS, WIDTHS, build, own_pair, repeated, shared_pair, steps

HIDDEN = 6


def network(seed: int = 0, **options: Any) -> DUPN:
    small: dict[str, Any] = {"hidden": HIDDEN, "attention": 5, "tower": (16, 8)}
    found = build(DUPN, seed=seed, **small | options)
    assert isinstance(found, DUPN)
    return found


def attention(dupn: DUPN, x: Pair) -> Tensor:
    """The weights [N, L]."""
    return dupn.attend(x, dupn.first(x)[0])[0]


def input_weight(dupn: DUPN) -> nn.Parameter:
    """What multiplies [e; p]: blocks i, f, candidate, o [4 H, D_e + D_p]."""
    return dupn.cell.lstm.get_parameter("weight_ih_l0")


def with_steps(x: Pair, **parts: Tensor) -> Pair:
    assert x.steps is not None
    return x._replace(steps=x.steps._replace(**parts))


def full(x: Pair) -> Pair:
    """The same where no sequence has padding."""
    assert x.steps is not None
    return with_steps(x, present=torch.ones_like(x.steps.present))


# ------------------------------------------------------------------ the paper, written out


def cell(dupn: DUPN, e: Tensor, p: Tensor, blind: bool = True) -> Tensor:
    """The state after each step of one user [L, D_e], [L, D_p] -> [L, H]; without `blind` the candidate reads p."""
    given = torch.split(input_weight(dupn), [STEPS, PROPERTIES], dim=1)
    value, prop, recurrent = (part.chunk(4) for part in (*given, dupn.cell.lstm.get_parameter("weight_hh_l0")))
    bias = sum(dupn.cell.lstm.get_parameter(name) for name in ("bias_ih_l0", "bias_hh_l0"))
    assert isinstance(bias, Tensor)
    h, c, states = torch.zeros(HIDDEN), torch.zeros(HIDDEN), []
    for t in range(len(e)):
        i, f, g, o = (value[k] @ e[t] + recurrent[k] @ h + bias.chunk(4)[k] for k in range(4))
        i, f, o = i + prop[0] @ p[t], f + prop[1] @ p[t], o + prop[3] @ p[t]
        g = g if blind else g + prop[2] @ p[t]
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        states.append(h)
    return torch.stack(states)


def reference(dupn: DUPN, x: Pair) -> Tensor:
    """Candidate by candidate, on the steps that are there alone: logits [N, T]."""
    x = repeated(x) if x.row_user is not None else x
    assert x.steps is not None
    answers = []
    for n in range(len(x.item)):
        own = torch.cat([x.user[n], x.item[n]])
        first = torch.cat([dupn.first.user, dupn.first.item], dim=1) @ own + dupn.first.bias
        query, *hidden = torch.split(first, dupn.first.widths_out)
        there = int(x.steps.present[n].sum())
        summary = torch.zeros(HIDDEN)
        if there:
            h, p = cell(dupn, x.steps.values[n, :there], x.steps.properties[n, :there]), x.steps.properties[n, :there]
            scores = [
                dupn.attention.weight[0] @ (dupn.keys.weight @ torch.cat([h[t], p[t]]) + query).relu()
                for t in range(there)
            ]
            summary = torch.stack(scores).softmax(dim=0) @ h
        hidden = [(part + summary @ dupn.summary[k]).relu().unsqueeze(0) for k, part in enumerate(hidden)]
        answers.append(dupn.towers(hidden)[0])
    return torch.stack(answers)


def test_it_is_the_paper_written_out() -> None:
    dupn, x = network(), shared_pair(5, 20)
    assert x.steps is not None and {0, LENGTH} <= set(x.steps.present.sum(dim=1).tolist()) | {0}
    assert torch.allclose(dupn(x), reference(dupn, x), atol=1e-6)


# ------------------------------------------------------------------ torch and the graph, alike


class Plain(nn.Module):
    """Tensors in, logits and attention out, as an exporter wants them."""

    def __init__(self, dupn: DUPN) -> None:
        super().__init__()
        self.dupn = dupn

    def forward(self, user: Tensor, item: Tensor, row_user: Tensor, *steps: Tensor) -> tuple[Tensor, Tensor]:
        x = Pair(user, item, row_user, Steps(*steps))
        return self.dupn(x), attention(self.dupn, x)


def exported() -> bytes:
    """The graph of the network, as an exporter makes it."""
    users, candidates, length = (torch.export.Dim(name) for name in ("users", "candidates", "length"))
    shapes = ({0: users}, {0: candidates}, {0: candidates}, ({0: users, 1: length},) * 3)
    x = shared_pair(3, 7)
    assert x.steps is not None and x.row_user is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program = torch.onnx.export(
            Plain(network().eval()),
            (x.user, x.item, x.row_user, *x.steps),
            input_names=["user", "item", "row_user", "values", "properties", "present"],
            dynamic_shapes=shapes,
            opset_version=20,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


class Both:
    """The network and its exported graph, with as many users, candidates and steps as are asked of them.

    It is exported in a process of its own: after other tests, the exporter has been seen to fix the number of steps.
    """

    def __init__(self) -> None:
        self.dupn = network().eval()
        with get_context("spawn").Pool(1) as pool:
            self.model = onnx.load_from_string(pool.apply(exported))
        del self.model.graph.value_info[:]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            self.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, x: Pair) -> tuple[Tensor, Tensor]:
        """Logits [N, T] and attention [N, L], the same from both."""
        assert x.steps is not None and x.row_user is not None
        given = (x.user, x.item, x.row_user, *x.steps)
        with torch.no_grad():
            expected = Plain(self.dupn)(*given)
        names = [entry.name for entry in self.session.get_inputs()]
        found = self.session.run(None, {name: part.numpy() for name, part in zip(names, given, strict=True)})
        for one, other in zip(expected, found, strict=True):
            assert one.shape == other.shape
            assert np.isfinite(other).all()
            assert np.abs(one.numpy() - other).max() <= 1e-5
        return torch.from_numpy(found[0]), torch.from_numpy(found[1])


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    yield Both()


@pytest.mark.parametrize(("users", "candidates", "length"), [(1, 1, 1), (1, 50, 9), (4, 2, 2), (30, 30, 40)])
def test_graph_gives_what_the_network_does_at_any_size(users: int, candidates: int, length: int, both: Both) -> None:
    x = shared_pair(users, candidates)._replace(steps=steps(users, length=length))
    logits, weights = both(x)
    assert (logits.shape, weights.shape) == ((candidates, TASKS), (candidates, length))


def test_padding_changes_nothing_however_much_there_is_and_whatever_it_holds(both: Both) -> None:
    x = shared_pair(5, 20)
    assert x.steps is not None
    padding = Steps(torch.full((5, 8, STEPS), 9.0), torch.full((5, 8, PROPERTIES), -9.0), torch.zeros(5, 8).bool())
    longer = Steps(*(torch.cat(parts, dim=1) for parts in zip(x.steps, padding, strict=True)))
    logits, weights = both(x)
    more, spread = both(x._replace(steps=longer))
    assert torch.allclose(more, logits, atol=1e-6)
    assert torch.allclose(spread[:, :LENGTH], weights, atol=1e-6)
    assert not spread[:, LENGTH:].any()


def test_order_of_the_steps_matters(both: Both) -> None:
    x = full(shared_pair(5, 20))
    assert x.steps is not None
    turned = Steps(*(part.flip(1) for part in x.steps))
    assert (both(x)[0] - both(x._replace(steps=turned))[0]).abs().max() > 1e-3
    assert attention(both.dupn, x._replace(steps=turned)).flip(1).sub(attention(both.dupn, x)).abs().max() > 1e-3


def test_another_target_changes_the_attention(both: Both) -> None:
    x = full(shared_pair(1, 20))
    _, weights = both(x)
    assert (weights[1:] - weights[0]).abs().amax(dim=1).min() > 1e-4, "of one user, each candidate has its own"


def test_another_user_vector_or_property_changes_the_attention(both: Both) -> None:
    x = full(shared_pair(5, 20))
    assert x.steps is not None
    for other in (x._replace(user=x.user + 1), with_steps(x, properties=x.steps.properties.roll(1, dims=1))):
        assert (both(other)[1] - both(x)[1]).abs().max() > 1e-3


def test_attention_sums_to_one_over_the_steps_that_are_there(both: Both) -> None:
    x = shared_pair(40, 200)
    assert x.steps is not None and x.row_user is not None
    present, (_, weights) = x.steps.present[x.row_user], both(x)
    lengths = present.sum(dim=1)
    assert {0, 1, LENGTH} <= set(lengths.tolist())
    assert torch.allclose(weights.sum(dim=1), (lengths > 0).float(), atol=1e-5)
    assert (weights[present] > 0).all()
    assert not weights[~present].any()


def test_user_without_steps_has_a_summary_of_zero_and_a_score(both: Both) -> None:
    x = shared_pair(5, 20)
    assert x.steps is not None
    logits, weights = both(with_steps(x, present=torch.zeros_like(x.steps.present)))
    assert not weights.any()
    with torch.no_grad():
        expected = both.dupn.towers([h.relu() for h in both.dupn.first(x)[1:]])
    assert torch.allclose(logits, expected, atol=1e-5)


def test_empty_sequences_leave_finite_gradients() -> None:
    dupn, x = network(), own_pair(7)
    assert x.steps is not None
    torch.autograd.backward(dupn(with_steps(x, present=torch.zeros_like(x.steps.present))).square().sum())
    for name, parameter in dupn.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_graph_has_one_lstm_that_no_candidate_comes_before(both: Both) -> None:
    graph: onnx.GraphProto = both.model.graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("LSTM") == 1
    assert not {"Loop", "Scan", "If"} & set(kinds)
    made_by = {output: node for node in graph.node for output in node.output}
    waiting, before = [next(node for node in graph.node if node.op_type == "LSTM")], set()
    while waiting:
        for name in waiting.pop().input:
            before.add(name)
            waiting.extend([made_by[name]] if name in made_by else [])
    assert {"values", "properties"} <= before
    assert not {"row_user", "item"} & before


# ------------------------------------------------------------------ the gates


def test_candidate_state_does_not_see_the_properties_but_the_gates_do() -> None:
    dupn, found = network(), steps(1)
    e, p = found.values[0], found.properties[0]
    states = dupn.cell(found)[0]
    assert torch.allclose(states, cell(dupn, e, p), atol=1e-6)
    with torch.no_grad():
        input_weight(dupn)[2 * HIDDEN : 3 * HIDDEN, STEPS:] = 0.5
    assert not torch.allclose(dupn.cell(found)[0], states, atol=1e-3), "the block that is 0 is the candidate's"
    assert torch.allclose(dupn.cell(found)[0], cell(dupn, e, p, blind=False), atol=1e-6)
    weight = input_weight(network()).chunk(4)
    assert all(weight[gate][:, STEPS:].abs().min() > 0 for gate in (0, 1, 3))


def trained(dupn: DUPN, rows: int = 32, number: int = 8) -> DUPN:
    optimiser = torch.optim.AdamW(dupn.parameters(), 0.01, weight_decay=0.1)
    for step in range(number):
        optimiser.zero_grad()
        x = own_pair(rows, seed=step)
        torch.autograd.backward(F.binary_cross_entropy_with_logits(dupn(x), (x.item[:, :TASKS] > 0).float()))
        optimiser.step()
    return dupn


def test_candidate_state_stays_blind_through_training_with_weight_decay() -> None:
    before, dupn = input_weight(network()), trained(network())
    weight = input_weight(dupn)
    assert not weight[2 * HIDDEN : 3 * HIDDEN, STEPS:].any()
    moved = (weight != before)[:, STEPS:].view(4, HIDDEN, PROPERTIES)
    assert moved[[0, 1, 3]].all()
    assert (weight != before)[:, :STEPS].all()


def test_candidate_state_stays_blind_whichever_way_gradients_are_asked_for() -> None:
    dupn = network()
    (gradient,) = torch.autograd.grad(dupn(own_pair(64)).sum(), [input_weight(dupn)])
    assert not gradient[2 * HIDDEN : 3 * HIDDEN, STEPS:].any()
    assert gradient[: 2 * HIDDEN, STEPS:].all()


def test_without_properties_it_is_an_ordinary_lstm() -> None:
    torch.manual_seed(0)
    dupn = DUPN(network().options_type(hidden=HIDDEN), Widths(6, 6, STEPS, 0), TASKS)
    torch.manual_seed(1)
    found = steps(3)._replace(properties=torch.empty(3, LENGTH, 0))
    lstm = nn.LSTM(STEPS, HIDDEN, batch_first=True)
    lstm.load_state_dict(dupn.cell.lstm.state_dict())
    assert torch.equal(dupn.cell(found), lstm(found.values)[0])
    assert dupn(own_pair(3)._replace(steps=found)).shape == (3, TASKS)


# ------------------------------------------------------------------ gradients, users, the card


@pytest.mark.parametrize("task", range(TASKS))
def test_gradient_of_every_task_reaches_the_lstm_and_the_steps(task: int) -> None:
    dupn, x = network(), own_pair(64)
    assert x.steps is not None
    x.steps.values.requires_grad_(), x.steps.properties.requires_grad_()
    torch.autograd.backward(dupn(x)[:, task].sum())
    for name, parameter in dupn.cell.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(dim=-1).all(), name
    for part in (x.steps.values, x.steps.properties):
        assert part.grad is not None
        assert part.grad[x.steps.present].any()
        assert not part.grad[~x.steps.present].any(), "padding learns nothing"


def test_each_task_has_a_tower_of_its_own() -> None:
    dupn, x = network(), own_pair(64)
    (gradient,) = torch.autograd.grad(dupn(x)[:, 0].sum(), dupn.summary)
    assert gradient[0].any() and not gradient[1:].any()


@pytest.mark.parametrize("candidates", [1, 50])
def test_steps_are_read_once_per_user(candidates: int) -> None:
    dupn, sizes = network(), []
    for layer in (dupn.cell.lstm, dupn.keys):
        layer.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[:2]))
    dupn(shared_pair(3, candidates))
    assert sizes == [(3, LENGTH)] * 2


def test_training_twice_gives_the_same_network_to_the_bit() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        one, other = trained(network(), number=5), trained(network(), number=5)
    finally:
        torch.use_deterministic_algorithms(before)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@torch.no_grad()
def test_card_tells_the_attention_by_recency() -> None:
    dupn, x = network(), own_pair(500)
    assert x.steps is not None
    (told,) = dupn.tell(x, ["click", "conversion"])
    weights, lengths = attention(dupn, x).numpy(), x.steps.present.sum(dim=1).numpy()
    assert [row[0] for row in told.rows] == ["1", "2", "3", "4", "5"]
    for k, (_, mean, alike, share) in enumerate(told.rows, start=1):
        chosen = [(weights[n, length - k], 1 / length) for n, length in enumerate(lengths) if length >= k]
        assert [mean, alike] == pytest.approx(np.mean(chosen, axis=0), abs=1e-6)
        assert share == pytest.approx(len(chosen) / 500)
    assert all(len(row) == len(told.columns) for row in told.rows)


@torch.no_grad()
def test_card_tells_the_same_of_candidates_that_share_users_and_nothing_of_empty_sequences() -> None:
    dupn, x = network(), shared_pair(20, 50)
    (shared,), (own,) = dupn.tell(x, ["a", "b"]), dupn.tell(repeated(x), ["a", "b"])
    for one, other in zip(shared.rows, own.rows, strict=True):
        assert one[1:] == pytest.approx(other[1:], abs=1e-6)
    assert x.steps is not None
    assert dupn.tell(with_steps(x, present=torch.zeros_like(x.steps.present)), ["a"])[0].rows == ()


def test_pair_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="no steps"):
        network()(own_pair(3)._replace(steps=None))


def test_widths_of_the_users_vector_and_of_the_steps_are_apart() -> None:
    dupn = network()
    assert (dupn.first.user.shape[1], dupn.first.item.shape[1]) == WIDTHS[:2]
    assert dupn.cell.lstm.input_size == STEPS + PROPERTIES
