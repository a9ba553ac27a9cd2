"""Joint Many-Task Model: each level reads the embeddings, the level below and its label, and nothing above."""

import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor

from models.joint_many_task import JointManyTask, Level, expected_label
from models.layers import Pair, PairLinear, Widths
from tests.models.small import WIDTHS, build, own_pair, repeated, shared_pair

CLICK, CART, BUY = range(3)
TASKS = 3


def network(tasks: int = TASKS, **options: Any) -> JointManyTask:
    small: dict[str, Any] = {"level": (16, 8), "label_dim": 4, "tower": (5,)}
    found = build(JointManyTask, tasks=tasks, **small | options)
    assert isinstance(found, JointManyTask)
    return found


def level_of(jmt: JointManyTask, k: int) -> Level:
    found = jmt.levels[k]
    assert isinstance(found, Level)
    return found


def linear(x: Tensor, layer: PairLinear) -> Tensor:
    return F.linear(x, torch.cat([layer.user, layer.item], dim=1), layer.bias)


def reference(jmt: JointManyTask, x: Pair) -> Tensor:
    """The equations on the concatenated vectors, level by level: logits [N, T]."""
    e = torch.cat([x.user, x.item] if x.row_user is None else [x.user[x.row_user], x.item], dim=1)
    read, logits = e, []
    for k in range(jmt.tasks):
        level = level_of(jmt, k)
        hidden = linear(read, level.first).relu()
        h = (hidden @ level.rest.weights[0][0] + level.rest.biases[0][0]).relu()
        tower = (h @ level.tower.bank.weights[0][0] + level.tower.bank.biases[0][0]).relu()
        logits.append((tower @ level.tower.weight[0] + level.tower.bias[0])[:, 0])
        if k + 1 < jmt.tasks:
            labels = level_of(jmt, k + 1).labels
            assert labels is not None
            p = torch.sigmoid(logits[-1])
            read = torch.cat([e, h, torch.stack([1 - p, p], dim=1) @ labels], dim=1)
    return torch.stack(logits, dim=1)


@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_it_is_the_paper_written_out(tasks: int) -> None:
    jmt = network(tasks)
    for x in (own_pair(7), shared_pair(3, 7)):
        assert torch.allclose(jmt(x), reference(jmt, x), atol=1e-6)


@pytest.mark.parametrize("task", [CLICK, CART, BUY])
def test_a_task_reads_every_level_up_to_its_own_and_none_above(task: int) -> None:
    jmt, x = network(), own_pair(256)
    before = jmt(x)
    torch.autograd.backward(before[:, task].sum())
    for k in range(TASKS):
        read = [p.grad is not None and bool(p.grad.any()) for p in jmt.level_parameters(k)]
        assert all(read) if k <= task else not any(read)
    with torch.no_grad():
        for k in range(task + 1, TASKS):
            for parameter in jmt.level_parameters(k):
                parameter.normal_()
    after = jmt(x)
    assert torch.equal(after[:, : task + 1], before[:, : task + 1])
    assert task == BUY or not torch.allclose(after[:, task + 1 :], before[:, task + 1 :])


def test_every_parameter_belongs_to_one_level() -> None:
    jmt = network()
    owned = [id(parameter) for k in range(TASKS) for parameter in jmt.level_parameters(k)]
    assert len(set(owned)) == len(owned)
    assert set(owned) == {id(parameter) for parameter in jmt.parameters()}


def test_weights_of_a_level_are_its_matrices() -> None:
    jmt = network()
    shapes = [tuple(weight.shape) for weight in jmt.level_weights(BUY)]
    assert sorted(shapes) == sorted([(16, WIDTHS.user), (16, WIDTHS.item + 8 + 4), (1, 16, 8), (1, 8, 5), (1, 5, 1)])


def test_the_shortcut_brings_the_embeddings_to_every_level() -> None:
    jmt, x = network(), own_pair(32)
    for k in range(TASKS):
        layer = level_of(jmt, k).first
        assert layer.user.shape[1] == WIDTHS.user
        before = jmt(x)[:, k]
        with torch.no_grad():
            layer.user.zero_()
        assert not torch.allclose(jmt(x)[:, k], before)


def test_the_label_of_the_level_below_is_the_mean_of_its_embeddings() -> None:
    labels = torch.tensor([[1.0, 0.0], [3.0, 8.0]])
    logit = torch.tensor([[0.0], [-40.0], [40.0]])
    assert torch.allclose(expected_label(logit, labels), torch.tensor([[2.0, 4.0], [1.0, 0.0], [3.0, 8.0]]))


def test_a_level_hears_of_the_one_below_by_its_label_too() -> None:
    jmt, x = network(), own_pair(32)
    before = jmt(x)
    with torch.no_grad():
        level_of(jmt, CLICK).tower.bias.add_(5.0)  # h stays, the label changes
    after = jmt(x)
    assert torch.allclose(after[:, CLICK], before[:, CLICK] + 5, atol=1e-5)
    assert not torch.allclose(after[:, CART], before[:, CART], atol=1e-3)


def test_the_card_tells_what_each_level_reads() -> None:
    jmt, x = network(), shared_pair(3, 50)
    (told,) = jmt.tell(x, ["click", "cart", "buy"])
    shares = torch.tensor([[float(value) for value in row[1:]] for row in told.rows])
    assert torch.allclose(shares.sum(dim=1), torch.ones(TASKS))
    assert shares[CLICK].tolist() == [1.0, 0.0, 0.0]
    assert (shares[CART:] > 0).all()
    again = jmt.tell(repeated(x), ["click", "cart", "buy"])[0]
    assert again.rows[BUY][1:] == pytest.approx(told.rows[BUY][1:], abs=1e-5)
    with torch.no_grad():
        level_of(jmt, CART).first.item[:, -4:] = 0.0
    assert jmt.tell(x, ["click", "cart", "buy"])[0].rows[CART][3] == 0.0


def test_a_side_without_features_has_a_card_as_well() -> None:
    for widths in (Widths(0, 5), Widths(6, 0)):
        jmt = build(JointManyTask, widths, level=(8,), tower=(4,))
        (told,) = jmt.tell(shared_pair(4, 9, widths=widths), ["click", "buy"])
        assert told.rows[0][1:] == (1.0, 0.0, 0.0)


class Plain(torch.nn.Module):
    """Tensors in, logits out, as an exporter wants them."""

    def __init__(self, jmt: JointManyTask) -> None:
        super().__init__()
        self.jmt = jmt

    def forward(self, user: Tensor, item: Tensor, row_user: Tensor) -> Tensor:
        logits: Tensor = self.jmt(Pair(user, item, row_user))
        return logits


def exported(jmt: JointManyTask, x: Pair) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program = torch.onnx.export(
            Plain(jmt.eval()),
            (x.user, x.item, x.row_user),
            input_names=["user", "item", "row_user"],
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def run(model: onnx.ModelProto, x: Pair) -> NDArray[np.float32]:
    assert x.row_user is not None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {"user": x.user.numpy(), "item": x.item.numpy(), "row_user": x.row_user.numpy()}
    found: NDArray[np.float32] = session.run(None, given)[0]
    return found


def test_in_the_graph_too_a_task_does_not_depend_on_the_levels_above() -> None:
    jmt, x = network(), shared_pair(3, 7)
    model = exported(jmt, x)
    before = run(model, x)
    assert np.abs(before - jmt(x).detach().numpy()).max() <= 1e-6
    upper = {value for parameter in jmt.level_parameters(BUY) for value in parameter.detach().flatten().tolist()} - {
        0.0
    }
    changed = 0
    for constant in model.graph.initializer:
        values = numpy_helper.to_array(constant)
        if values.dtype == np.float32 and upper.issuperset(
            values.flatten().tolist()
        ):  # whatever the exporter called it
            constant.CopyFrom(numpy_helper.from_array(values + 1, constant.name))
            changed += values.size
    assert changed >= len(upper)
    after = run(model, x)
    assert np.array_equal(after[:, :BUY], before[:, :BUY])
    assert (np.abs(after[:, BUY] - before[:, BUY]) > 1e-3).all()
