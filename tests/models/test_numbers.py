"""Numeric encodings against a slow reference in numpy, number by number."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.inputs import Number
from models.numbers import AFFINE_LIMIT, Numbers

Floats = NDArray[np.float32]

STANDARD = Number("a", "user", "standardise", fill=40.0, indicator=False, center=35.0, spread=9.0)
LOG = Number("b", "user", "log1p", fill=3.0, indicator=True, center=2.0, spread=1.5)
STEPS = Number("c", "user", "quantile", fill=1.0, indicator=True, edges=(-2.0, 0.0, 1.0, 10.0))
RAMPS = Number("d", "user", "piecewise", fill=2.5, indicator=False, edges=(0.0, 1.0, 4.0, 4.5))
TWO_EDGES = Number("e", "user", "piecewise", fill=0.0, indicator=True, edges=(0.0, 1.0))
EVERY = (STEPS, RAMPS, LOG, STANDARD, TWO_EDGES)  # in an order unlike that of the blocks

PRESENT = st.floats(width=32, allow_subnormal=False, min_value=-(2.0**100), max_value=2.0**100)
VALUE = st.just(math.nan) | PRESENT


def encode(numbers: Sequence[Number], rows: Floats) -> Floats:
    found: Floats = Numbers(tuple(numbers))(torch.from_numpy(rows)).numpy()
    return found


def affine(number: Number, x: float) -> float:
    if number.encoding == "log1p":
        x = math.copysign(math.log1p(abs(x)), x)
    return min(max((x - number.center) / number.spread, -AFFINE_LIMIT), AFFINE_LIMIT)


def steps(number: Number, x: float) -> list[float]:
    return [float(x >= edge) for edge in number.edges[1:]]


def ramps(number: Number, x: float) -> list[float]:
    """Gorishniy et al. 2022, eq. 1, with the first and last bin kept within [0, 1] like the others."""
    bins = zip(number.edges[:-1], number.edges[1:], strict=True)
    return [0.0 if x < low else 1.0 if x >= high else (x - low) / (high - low) for low, high in bins]


def reference(numbers: Sequence[Number], row: Sequence[float]) -> list[float]:
    """One row: affine values, then steps, then ramps, then indicators."""
    filled = [number.fill if math.isnan(x) else float(x) for number, x in zip(numbers, row, strict=True)]
    pairs = list(zip(numbers, filled, strict=True))
    return [
        *(affine(number, x) for number, x in pairs if number.encoding in ("standardise", "log1p")),
        *(value for number, x in pairs if number.encoding == "quantile" for value in steps(number, x)),
        *(value for number, x in pairs if number.encoding == "piecewise" for value in ramps(number, x)),
        *(float(math.isnan(x)) for number, x in zip(numbers, row, strict=True) if number.indicator),
    ]


def check(numbers: Sequence[Number], rows: Floats) -> None:
    expected = np.array([reference(numbers, row.tolist()) for row in rows])
    found = encode(numbers, rows)
    assert found.dtype == np.float32
    assert found.shape == (len(rows), Numbers(tuple(numbers)).width) == expected.shape
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("number", EVERY, ids=lambda number: number.encoding)
@given(values=st.lists(VALUE, min_size=1, max_size=20))
def test_each_encoding_is_the_reference(number: Number, values: list[float]) -> None:
    check([number], np.array(values, np.float32)[:, None])


@given(st.lists(st.tuples(VALUE, VALUE, VALUE, VALUE, VALUE), min_size=1, max_size=5))
def test_all_encodings_together_are_the_reference(rows: list[tuple[float, ...]]) -> None:
    check(EVERY, np.array(rows, np.float32))


def test_missing_number_is_its_fill_and_an_indicator() -> None:
    rows = np.full((1, 2), np.nan, np.float32)
    assert encode([STANDARD, LOG], rows)[0].tolist() == pytest.approx(
        [(40 - 35) / 9, (math.log1p(3) - 2) / 1.5, 1.0], rel=1e-6
    )
    given_fill = encode([STANDARD, LOG], np.array([[40.0, 3.0]], np.float32))
    assert given_fill[0, 2] == 0.0, "a present value equal to the fill is not missing"


def test_only_features_with_an_indicator_have_one() -> None:
    for number in EVERY:
        with_nan, present = encode([number], np.array([[np.nan], [number.fill]], np.float32))
        assert (with_nan != present).any() == number.indicator


def test_a_value_on_an_edge_has_reached_it() -> None:
    assert encode([STEPS], np.array([[-0.001], [0.0], [10.0]], np.float32))[:, :3].tolist() == [
        [0.0, 0.0, 0.0],
        [1.0, 0.0, 0.0],
        [1.0, 1.0, 1.0],
    ]


def test_price_of_a_billion_encodes_like_the_highest_edge() -> None:
    for number in (STEPS, RAMPS):
        huge = encode([number], np.array([[1e9], [3e38], [-1e9], [-3e38]], np.float32))
        highest, lowest = encode([number], np.array([[number.edges[-1]], [number.edges[0] - 1]], np.float32))
        assert (huge[:2] == highest).all()
        assert (huge[2:] == lowest).all()
    assert encode([STANDARD], np.array([[3e38], [-3e38]], np.float32)).tolist() == [[AFFINE_LIMIT], [-AFFINE_LIMIT]]
    assert np.isfinite(encode([LOG], np.array([[3e38], [-3e38]], np.float32))).all()


def test_ramps_sum_to_the_position_among_the_edges_and_never_fall() -> None:
    values = np.linspace(-1, 6, 200, dtype=np.float32)[:, None]
    encoded = encode([RAMPS], values)
    assert (np.diff(encoded, axis=0) >= 0).all()
    position = np.interp(values[:, 0], RAMPS.edges, range(len(RAMPS.edges)))
    assert np.allclose(encoded.sum(axis=1), position, atol=1e-5)


def test_log_of_a_negative_number_mirrors_that_of_the_positive() -> None:
    mirrored = Number("m", "user", "log1p", fill=0.0, indicator=False)
    positive, negative = encode([mirrored], np.array([[7.0], [-7.0]], np.float32))
    assert positive[0] == -negative[0] == pytest.approx(math.log(8))


def test_rows_do_not_see_each_other() -> None:
    rows = np.random.default_rng(0).normal(0, 5, (7, len(EVERY))).astype(np.float32)
    rows[3] = np.nan
    together = encode(EVERY, rows)
    assert all(np.array_equal(together[i : i + 1], encode(EVERY, rows[i : i + 1])) for i in range(7))


def test_fitted_numbers_are_constants_and_no_state() -> None:
    numbers = Numbers(EVERY)
    assert list(numbers.parameters()) == []
    assert numbers.state_dict() == {}
    assert Numbers(()).width == 0
