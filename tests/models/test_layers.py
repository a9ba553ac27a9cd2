"""The shared layers against the plain torch or numpy that they stand for."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import Bank, PairLinear, Towers, Widths, mix, products
from tests.models.small import WIDTHS, repeated, shared_pair


def plain(layer: PairLinear) -> nn.Linear:
    """`nn.Linear` on the concatenation, with the same weights."""
    linear = nn.Linear(layer.user.shape[1] + layer.item.shape[1], len(layer.bias))
    with torch.no_grad():
        linear.weight.copy_(torch.cat([layer.user, layer.item], dim=1))
        linear.bias.copy_(layer.bias)
    return linear


@pytest.mark.parametrize("widths", [WIDTHS, Widths(0, 5), Widths(6, 0)])
@pytest.mark.parametrize(("users", "candidates"), [(1, 1), (1, 7), (3, 7), (7, 2)])
def test_pair_linear_equals_linear_on_the_concatenation(widths: Widths, users: int, candidates: int) -> None:
    layer, x = PairLinear(widths, 4, 1, 3), shared_pair(users, candidates, widths=widths)
    expected = plain(layer)(torch.cat([*repeated(x)[:2]], dim=1)).split([4, 1, 3], dim=1)
    for given in (x, repeated(x)):
        for part, reference in zip(layer(given), expected, strict=True):
            assert torch.allclose(part, reference, rtol=0, atol=1e-6)


def test_an_offset_is_added_to_the_bias_of_a_pair_linear() -> None:
    layer, x, offset = PairLinear(WIDTHS, 4, 1), shared_pair(3, 7), torch.tensor([1.0, 2.0, 3.0, 4.0, -torch.inf])
    for part, without, added in zip(layer(x, offset), layer(x), torch.split(offset, [4, 1]), strict=True):
        assert torch.allclose(part, without + added, atol=1e-6)


def test_pair_linear_starts_like_linear() -> None:
    layer, bound = PairLinear(Widths(60, 40), 2000), 100**-0.5
    for parameter in layer.parameters():
        assert parameter.abs().max() <= bound
        assert parameter.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_gradient_of_a_shared_user_is_the_sum_over_its_candidates() -> None:
    layer, x = PairLinear(WIDTHS, 4), shared_pair(3, 7)
    assert x.row_user is not None
    x.user.requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x)[0].square().sum(), x.user)
    own = repeated(x)._replace(user=x.user.detach()[x.row_user].requires_grad_())
    (each,) = torch.autograd.grad(layer(own)[0].square().sum(), own.user)
    assert torch.allclose(gradient, torch.zeros(3, 6).index_add(0, x.row_user, each), atol=1e-6)


def test_exported_parts_equal_those_of_the_one_product() -> None:
    layer, x = PairLinear(WIDTHS, 4, 1, 3), shared_pair(3, 7)

    class Unpacked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, user: Tensor, item: Tensor, row_user: Tensor) -> tuple[Tensor, ...]:
            parts: tuple[Tensor, ...] = self.layer(x._replace(user=user, item=item, row_user=row_user))
            return parts

    exported = torch.export.export(Unpacked(), tuple(x[:3]))
    assert sum("addmm" in str(node.target) for node in exported.graph.nodes) == 3, "a product for every part"
    for part, expected in zip(exported.module()(*x[:3]), layer(x), strict=True):
        assert torch.allclose(part, expected, rtol=0, atol=1e-6)


def inputs(members: int, rows: int, width: int, seed: int = 3) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, width, generator=random) for _ in range(members)]


def stack_of(weights: Sequence[Tensor], biases: Sequence[Tensor], x: Tensor) -> Tensor:
    """A perceptron of `nn.Linear` and ReLU."""
    for weight, bias in zip(weights, biases, strict=True):
        x = F.linear(x, weight.t(), bias).relu()
    return x


def test_every_member_of_a_bank_is_a_perceptron_of_its_own() -> None:
    bank, xs = Bank(3, (5, 4, 2)), inputs(3, 7, 5)
    for i, (found, x) in enumerate(zip(bank(xs), xs, strict=True)):
        expected = stack_of([weight[i] for weight in bank.weights], [bias[i] for bias in bank.biases], x)
        assert torch.allclose(found, expected, atol=1e-6)
        assert (found >= 0).all()


def test_a_bank_of_one_width_is_the_identity() -> None:
    xs = inputs(2, 7, 5)
    assert all(torch.equal(found, x) for found, x in zip(Bank(2, (5,))(xs), xs, strict=True))


def test_a_bank_refuses_more_or_fewer_inputs_than_members() -> None:
    for count in (2, 4):
        with pytest.raises(ValueError, match="zip"):
            Bank(3, (5, 4))(inputs(count, 7, 5))


def test_dropout_keeps_the_mean_and_takes_its_share() -> None:
    bank, xs = Bank(1, (5, 4000), dropout=0.25), inputs(1, 20, 5)
    (dropped,), (kept,) = bank(xs), bank.eval()(xs)
    share = (dropped[kept > 0] == 0).double().mean().item()
    assert share == pytest.approx(0.25, abs=0.01)
    assert dropped.mean().item() == pytest.approx(kept.mean().item(), rel=0.02)


def test_each_tower_reads_its_own_vector_and_answers_its_own_logit() -> None:
    towers, xs = Towers(3, (5, 4)), inputs(3, 7, 5)
    logits = towers(xs)
    assert logits.shape == (7, 3)
    for i, x in enumerate(xs):
        hidden = stack_of([towers.bank.weights[0][i]], [towers.bank.biases[0][i]], x)
        expected = hidden @ towers.weight[i] + towers.bias[i]
        assert torch.allclose(logits[:, i : i + 1], expected, atol=1e-6)


def test_products_are_linear_layers() -> None:
    xs, (weight, bias) = inputs(3, 7, 5), (torch.randn(3, 5, 2), torch.randn(3, 2))
    for i, found in enumerate(products(xs, weight, bias)):
        assert torch.allclose(found, F.linear(xs[i], weight[i].t(), bias[i]), atol=1e-6)


def test_mix_weights_experts_by_the_softmax_of_each_groups_gates() -> None:
    gates, experts = torch.randn(7, 2, 3), inputs(3, 7, 5)
    for group, found in enumerate(mix(gates, experts)):
        for row in range(7):
            weight = np.exp(gates[row, group].double().numpy())
            weight /= weight.sum()
            expected = sum(w * expert[row].double().numpy() for w, expert in zip(weight, experts, strict=True))
            assert np.allclose(found[row].numpy(), expected, atol=1e-6)


def test_an_expert_masked_with_minus_infinity_has_weight_and_gradient_zero() -> None:
    gates, experts = torch.zeros(7, 1, 3), [x.requires_grad_() for x in inputs(3, 7, 5)]
    gates[:, :, 1] = -torch.inf
    (mixed,) = mix(gates, experts)
    assert torch.allclose(mixed, (experts[0] + experts[2]) / 2, atol=1e-6)
    gradients = torch.autograd.grad(mixed.square().sum(), experts)
    assert [bool(gradient.any()) for gradient in gradients] == [True, False, True]


def test_gates_of_any_size_stay_finite() -> None:
    gates = torch.tensor([[[1e30, -1e30, 0.0]], [[3e38, 3e38, -3e38]]])
    (mixed,) = mix(gates, [torch.ones(2, 4) * i for i in (1, 2, 3)])
    assert torch.allclose(mixed, torch.tensor([[1.0], [1.5]]).expand(2, 4))
