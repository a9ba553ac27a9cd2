"""The funnel in log space, against float64 and against decimals."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contract.tasks import CLICK_AND_CONVERSION, Task, ancestry
from models.funnel import log1mexp, log_joint, sum_of

LOGIT = st.floats(-80, 80, width=32, allow_subnormal=False)
HUGE = st.floats(-(2.0**127), 2.0**127, width=32, allow_subnormal=False)
FUNNEL = ancestry(CLICK_AND_CONVERSION)
TREE = ancestry(
    (
        Task(name="open", label="o"),
        Task(name="click", label="c", given="open"),
        Task(name="unsubscribe", label="u", given="open"),
        Task(name="purchase", label="p", given="click"),
    )
)
CLAMP = -1e-7


def log_sigmoid(logit: float) -> float:
    return -math.log1p(math.exp(-logit)) if logit > 0 else logit - math.log1p(math.exp(logit))


@given(LOGIT, LOGIT)
def test_joint_is_the_product_of_the_conditionals(click: float, conversion: float) -> None:
    logits = torch.tensor([[click, conversion]])
    joint = log_joint(logits, FUNNEL)[0]
    assert joint[0].item() == pytest.approx(log_sigmoid(click), rel=1e-6, abs=1e-35)
    assert joint[1].item() == pytest.approx(log_sigmoid(click) + log_sigmoid(conversion), rel=1e-6, abs=1e-35)
    product = torch.sigmoid(logits.double()).prod().item()
    if product > 1e-30:
        assert math.exp(joint[1].item()) == pytest.approx(product, rel=2e-5)


def test_probability_that_float32_cannot_hold_has_a_logarithm_it_can() -> None:
    joint = log_joint(torch.tensor([[-80.0, -80.0]]), FUNNEL)
    assert joint[0].tolist() == pytest.approx([-80.0, -160.0])
    assert torch.exp(joint)[0, 1] == 0.0


def test_every_task_sums_along_its_own_chain() -> None:
    logits = torch.randn(7, 4)
    log_p = torch.nn.functional.logsigmoid(logits)
    joint = log_joint(logits, TREE)
    for task, chain in enumerate([(0,), (0, 1), (0, 2), (0, 1, 3)]):
        assert torch.allclose(joint[:, task], log_p[:, chain].sum(dim=1), atol=1e-6)
        assert torch.equal(joint[:, task], sum_of(log_p, chain))


def test_conditional_task_moves_its_ancestors_and_nobody_elses() -> None:
    logits = torch.randn(7, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(log_joint(logits, TREE)[:, 3].sum(), logits)
    assert gradient.any(dim=0).tolist() == [True, True, False, True]


def exact(x: float) -> float:
    """log(1 - exp(x)), of which 30 digits are right."""
    with localcontext() as context:
        context.prec = 75
        return float((1 - Decimal(x).exp()).ln())


@given(st.floats(-100, CLAMP, width=64).map(np.float32))
def test_log1mexp_is_right_to_float32_everywhere(x: np.float32) -> None:
    kept = min(float(x), float(np.float32(CLAMP)))
    found = log1mexp(torch.tensor([x]))[0].item()
    assert found == pytest.approx(exact(kept), rel=1e-6, abs=2e-38)


@given(st.floats(-100, -1e-6))
def test_log1mexp_is_right_to_float64_everywhere(x: float) -> None:
    assert log1mexp(torch.tensor([x], dtype=torch.float64))[0].item() == pytest.approx(exact(x), rel=1e-13)


@pytest.mark.parametrize("x", [0.0, -1e-38, -1e-9, -5e-8])
def test_probability_that_rounds_to_one_has_a_finite_loss(x: float) -> None:
    assert log1mexp(torch.tensor([x]))[0].item() == pytest.approx(math.log(1e-7), rel=1e-6)


EXTREMES = [
    0.0,
    -1e-38,
    -1e-9,
    -1e-7,
    -2e-7,
    -1e-3,
    -0.6931471,
    -0.6931472,
    -0.6931473,
    -1.0,
    -88.0,
    -104.0,
    -1e5,
    -3e38,
]


@pytest.mark.parametrize("x", EXTREMES)
def test_gradient_is_finite_and_right_at_extremes(x: float) -> None:
    given_x = torch.tensor([x], requires_grad=True)
    (gradient,) = torch.autograd.grad(log1mexp(given_x).sum(), given_x)
    exactly = -1.0 / math.expm1(-float(np.float32(x))) if CLAMP > x > -700 else 0.0  # -exp(x) / (1 - exp(x))
    if x != CLAMP:
        assert gradient.item() == pytest.approx(exactly, rel=1e-5, abs=1e-37)
    assert math.isfinite(gradient.item())


@given(HUGE, HUGE)
def test_loss_and_gradient_are_finite_for_any_logits(click: float, conversion: float) -> None:
    logits = torch.tensor([[click, conversion]], requires_grad=True)
    log_p = log_joint(logits, FUNNEL).clamp(min=-3e38)
    value = (log_p + log1mexp(log_p)).clamp(min=-3e38).sum(dim=1)
    (gradient,) = torch.autograd.grad(log1mexp(log_p).sum(), logits)
    assert not value.isnan().any()
    assert gradient.isfinite().all()
