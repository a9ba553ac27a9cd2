"""Calibration recovers what was bent, keeps order and product, and survives a handful of positives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from contract.bundle import Calibration
from contract.errors import ScoreInvalid
from contract.tasks import CLICK_AND_CONVERSION, Task
from training.calibration import Floats, calibrate, downsampling_shift, identity, probabilities, shifted
from training.metrics import auc, pcoc
from training.objectives import ObjectiveName

CHAIN = (
    Task(name="click", label="c"),
    Task(name="cart", label="a", given="click"),
    Task(name="purchase", label="p", given="cart"),
)
OBJECTIVES: list[ObjectiveName] = ["independent", "entire_space"]


def sigmoid(z: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-z)))


def funnel(
    seed: int, count: int, slopes: ArrayLike, intercepts: ArrayLike, *, centre: float = -1.5
) -> tuple[Floats, Floats]:
    """Logits [B, T], and labels drawn from sigmoid(slope z + intercept) along the chain."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(centre, 1, (count, np.size(slopes)))
    happened = rng.random(logits.shape) < sigmoid(logits * np.asarray(slopes) + np.asarray(intercepts))
    return logits, np.cumprod(happened, axis=1).astype(float)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bent_logits_are_straightened_along_the_chain(objective: ObjectiveName) -> None:
    slopes, intercepts = np.array([0.7, 1.4, 1.0]), np.array([-0.5, 1.2, 2.0])
    logits, labels = funnel(0, 100_000, slopes, intercepts)
    fitted = calibrate(CHAIN, logits, labels, objective=objective)
    assert [one.task for one in fitted] == ["click", "cart", "purchase"]
    assert [one.slope for one in fitted] == pytest.approx(list(slopes), rel=0.1)
    assert [one.intercept for one in fitted] == pytest.approx(list(intercepts), abs=0.2)


def test_escm2_is_calibrated_like_the_entire_space() -> None:
    logits, labels = funnel(0, 2000, [0.7, 1.4, 1.0], [-0.5, 1.2, 2.0])
    names: tuple[ObjectiveName, ...] = ("escm2_ips", "entire_space", "independent")
    escm2, entire, independent = (calibrate(CHAIN, logits, labels, objective=name) for name in names)
    assert escm2 == entire != independent


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_mean_prediction_is_the_observed_rate_where_the_task_was_fitted(objective: ObjectiveName) -> None:
    logits, labels = funnel(1, 60_000, [0.8, 1.3], [-1.0, 0.7])
    scores = probabilities(
        CLICK_AND_CONVERSION, logits, calibrate(CLICK_AND_CONVERSION, logits, labels, objective=objective)
    )
    clicked = labels[:, 0] > 0
    assert pcoc(labels[:, 0], scores["pctr"]) == pytest.approx(1, abs=0.002)
    assert pcoc(labels[clicked, 1], scores["pcvr"][clicked]) == pytest.approx(1, abs=0.02)
    assert pcoc(labels[:, 1], scores["pctcvr"]) == pytest.approx(1, abs=0.02)


def test_entire_space_brings_the_joint_near_the_truth_where_the_click_logit_misses_what_drives_conversion() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal((-3.2, -2.5), 1, (100_000, 2))
    click = rng.random(100_000) < sigmoid(logits[:, 0] + 0.5 * (logits[:, 1] + 2.5))
    labels = np.stack([click, click & (rng.random(100_000) < sigmoid(logits[:, 1]))], axis=1)
    away = {}
    for objective in OBJECTIVES:
        fitted = calibrate(CLICK_AND_CONVERSION, logits, labels, objective=objective)
        away[objective] = abs(pcoc(labels[:, 1], probabilities(CLICK_AND_CONVERSION, logits, fitted)["pctcvr"]) - 1)
    assert away["entire_space"] < 0.08 < 0.2 < away["independent"]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_fit_is_the_peak_of_likelihood_times_prior(objective: ObjectiveName) -> None:
    logits, labels = funnel(3, 400, [0.6, 1.7], [0.4, -0.8])
    weight = np.random.default_rng(4).uniform(0.2, 2, 400)
    click, conversion = calibrate(CLICK_AND_CONVERSION, logits, labels, weight=weight, objective=objective)

    def cost(log_slope: float, intercept: float, t: int, w: Floats, parent: Floats) -> float:
        p = parent * sigmoid(np.exp(log_slope) * logits[:, t] + intercept)
        prior = log_slope**2 / (2 * 0.5**2) + intercept**2 / (2 * 2.0**2)
        return float(prior - (w * (labels[:, t] * np.log(p) + (1 - labels[:, t]) * np.log1p(-p))).sum())

    whole = objective == "entire_space"
    pctr = sigmoid(click.slope * logits[:, 0] + click.intercept)
    above = pctr if whole else np.ones(400)
    for fitted, t, w, parent in (
        (click, 0, weight, np.ones(400)),
        (conversion, 1, weight if whole else weight * labels[:, 0], above),
    ):
        a, b, step = np.log(fitted.slope), fitted.intercept, 1e-4
        for da, db in ((step, 0), (0, step), (step, step), (step, -step)):
            forward, backward = cost(a + da, b + db, t, w, parent), cost(a - da, b - db, t, w, parent)
            assert forward + backward > 2 * cost(a, b, t, w, parent)
            assert (forward - backward) / (2 * step) == pytest.approx(0, abs=1e-5)


def test_auc_does_not_change_and_the_joint_is_the_exact_product() -> None:
    logits, labels = funnel(5, 20_000, [0.5, 2.0], [-1.0, 0.5])
    before = probabilities(CLICK_AND_CONVERSION, logits, identity(CLICK_AND_CONVERSION))
    fitted = calibrate(CLICK_AND_CONVERSION, logits, labels)
    after = probabilities(CLICK_AND_CONVERSION, logits, fitted)
    clicked = labels[:, 0] > 0
    assert auc(labels[:, 0], after["pctr"]) == pytest.approx(auc(labels[:, 0], before["pctr"]), abs=1e-6)
    assert auc(labels[clicked, 1], after["pcvr"][clicked]) == pytest.approx(
        auc(labels[clicked, 1], before["pcvr"][clicked]), abs=1e-6
    )
    assert np.array_equal(after["pctcvr"], after["pctr"] * after["pcvr"])
    exact = sigmoid(fitted[0].slope * logits[:, 0] + fitted[0].intercept)
    exact = exact * sigmoid(fitted[1].slope * logits[:, 1] + fitted[1].intercept)
    assert np.abs(after["pctcvr"] - exact).max() < 1e-7


def test_probabilities_are_named_and_typed_as_the_bundle_answers_them() -> None:
    scores = probabilities(CHAIN, np.zeros((3, 3), dtype=np.float32), identity(CHAIN)[::-1])
    assert {name: score.tolist() for name, score in scores.items()} == {
        "p_click": [0.5] * 3,
        "p_cart_given_click": [0.5] * 3,
        "p_cart": [0.25] * 3,
        "p_purchase_given_cart": [0.5] * 3,
        "p_purchase": [0.125] * 3,
    }
    assert {score.dtype for score in scores.values()} == {np.dtype(np.float32)}


def downsampled(seed: int, rate: float) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Rows of which negatives were kept with `rate`, with the logits an ideal model learns from them."""
    rng = np.random.default_rng(seed)
    logits, labels = funnel(seed, 80_000, [1.0, 1.0], [0.0, 0.0], centre=-2.5)
    kept = (labels[:, 0] > 0) | (rng.random(len(labels)) < rate)
    learned = logits - np.array([np.log(rate), 0])
    return learned, labels, kept


@pytest.mark.parametrize("rate", [0.5, 0.05])
def test_downsampled_model_is_calibrated_on_all_rows_by_the_shift_alone(rate: float) -> None:
    learned, labels, kept = downsampled(6, rate)
    start = identity(CLICK_AND_CONVERSION)
    uncorrected = probabilities(CLICK_AND_CONVERSION, learned, start)
    assert pcoc(labels[kept, 0], uncorrected["pctr"][kept]) == pytest.approx(1, abs=0.03), "right where it learned"
    assert pcoc(labels[:, 0], uncorrected["pctr"]) > 1.5, "and wrong in real traffic"
    corrected = probabilities(CLICK_AND_CONVERSION, learned, shifted(start, downsampling_shift(rate)))
    assert pcoc(labels[:, 0], corrected["pctr"]) == pytest.approx(1, abs=0.03)
    assert pcoc(labels[:, 1], corrected["pctcvr"]) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(
    "how", ["weighted rows", "all rows", "all rows, shifted first", "unweighted rows, then shifted"]
)
def test_downsampled_model_is_calibrated_on_all_rows_by_every_road(objective: ObjectiveName, how: str) -> None:
    rate = 0.1
    learned, labels, kept = downsampled(7, rate)
    shift = downsampling_shift(rate)
    if how == "weighted rows":
        weight = np.where(labels[kept, 0] > 0, 1, 1 / rate)
        fitted = calibrate(CLICK_AND_CONVERSION, learned[kept], labels[kept], weight=weight, objective=objective)
    elif how == "unweighted rows, then shifted":
        fitted = shifted(calibrate(CLICK_AND_CONVERSION, learned[kept], labels[kept], objective=objective), shift)
    else:
        first = shift if how == "all rows, shifted first" else 0.0
        fitted = calibrate(CLICK_AND_CONVERSION, learned, labels, shift=first, objective=objective)
    assert fitted[0].slope == pytest.approx(1, abs=0.05)
    assert fitted[0].intercept == pytest.approx(shift, abs=0.1)
    scores = probabilities(CLICK_AND_CONVERSION, learned, fitted)
    assert pcoc(labels[:, 0], scores["pctr"]) == pytest.approx(1, abs=0.03)
    assert pcoc(labels[:, 1], scores["pctcvr"]) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("rate", [0, -0.1, 1.5, float("nan")])
def test_impossible_rate_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        downsampling_shift(rate)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_rows_leave_the_logits_as_they_are(objective: ObjectiveName) -> None:
    empty = np.zeros((0, 2))
    assert calibrate(CLICK_AND_CONVERSION, empty, empty, objective=objective) == identity(CLICK_AND_CONVERSION)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_keeps_the_slope_and_moves_the_intercept_a_little(objective: ObjectiveName, label: int) -> None:
    logits, labels = np.random.default_rng(8).normal(-2, 1, (500, 2)), np.full((500, 2), float(label))
    fitted = calibrate(CLICK_AND_CONVERSION, logits, labels, objective=objective)
    assert [one.slope for one in fitted] == [1, 1]
    assert all(abs(one.intercept) < 15 for one in fitted)
    assert (fitted[0].intercept > 0) == (label == 1)


def test_few_separable_positives_do_not_explode() -> None:
    logits = np.array([[3.0], [2.5], *[[-3.0 - i / 50] for i in range(50)]])
    labels = (logits > 0).astype(float)
    (fitted,) = calibrate((Task(name="open", label="o"),), logits, labels)
    assert 1 < fitted.slope < 3
    assert abs(fitted.intercept) < 2


def test_slope_stays_positive_for_a_model_that_is_worse_than_chance() -> None:
    rng = np.random.default_rng(9)
    logits = rng.normal(0, 1, (5000, 1))
    labels = (rng.random((5000, 1)) < sigmoid(-2 * logits)).astype(float)
    (fitted,) = calibrate((Task(name="open", label="o"),), logits, labels)
    assert 0 < fitted.slope < 0.1


def test_constant_logits_are_moved_to_the_base_rate() -> None:
    labels = (np.arange(4000) % 10 == 0).astype(float)[:, None]
    (fitted,) = calibrate((Task(name="open", label="o"),), np.zeros((4000, 1)), labels)
    assert fitted.intercept == pytest.approx(np.log(1 / 9), abs=0.01)
    assert fitted.slope == pytest.approx(1)


def test_prior_is_worth_a_few_positives_and_no_more() -> None:
    logits, labels = funnel(10, 200_000, [2.0, 1.0], [-3.0, 0.0])
    few = calibrate(CLICK_AND_CONVERSION[:1], logits[:100, :1], labels[:100, :1])[0]
    many = calibrate(CLICK_AND_CONVERSION[:1], logits[:, :1], labels[:, :1])[0]
    assert 1 < few.slope < many.slope == pytest.approx(2, abs=0.1)
    assert many.intercept == pytest.approx(-3, abs=0.1)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.floats(-300, 300), st.floats(-300, 300), st.integers(0, 2)), max_size=12),
    st.sampled_from(OBJECTIVES),
    st.floats(0, 1e6),
)
def test_any_finite_logits_give_a_finite_calibration(
    pairs: list[tuple[float, float, int]], objective: ObjectiveName, weight: float
) -> None:
    logits = np.array([pair[:2] for pair in pairs], dtype=float).reshape(-1, 2)
    step = np.array([pair[2] for pair in pairs])
    labels = np.stack([step > 0, step > 1], axis=1) if pairs else np.zeros((0, 2))
    fitted = calibrate(CLICK_AND_CONVERSION, logits, labels, weight=np.full(len(pairs), weight), objective=objective)
    for one in fitted:
        assert 0 < one.slope < np.inf
        assert np.isfinite(one.intercept)
    for score in probabilities(CLICK_AND_CONVERSION, logits, fitted).values():
        assert ((score >= 0) & (score <= 1)).all()


def test_logits_that_are_not_numbers_and_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ScoreInvalid):
        calibrate(CLICK_AND_CONVERSION, np.full((2, 2), np.nan), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="do not fit 2 tasks"):
        calibrate(CLICK_AND_CONVERSION, np.zeros((2, 1)), np.zeros((2, 1)))


def test_shift_is_the_same_before_and_after_a_calibration_of_slope_one() -> None:
    calibration = (
        Calibration(task="click", slope=1.0, intercept=0.3),
        Calibration(task="conversion", slope=2, intercept=1),
    )
    logits = np.random.default_rng(11).normal(0, 1, (20, 2))
    moved = probabilities(CLICK_AND_CONVERSION, logits + np.array([np.log(0.2), 0]), calibration)
    after = probabilities(CLICK_AND_CONVERSION, logits, shifted(calibration, downsampling_shift(0.2)))
    assert all(moved[name] == pytest.approx(after[name], abs=1e-7) for name in moved)
