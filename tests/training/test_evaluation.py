"""Which rows an output is measured on, and what is told about them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.bundle import Metric
from contract.features import INT64_MISSING
from contract.tasks import CLICK_AND_CONVERSION, Task
from training import metrics
from training.evaluation import (
    TITLES,
    Floats,
    curves,
    decimals,
    evaluate,
    histogram,
    measured_rows,
    reliability,
    score_reference,
    slices,
)


def log(seed: int, count: int) -> tuple[NDArray[np.bool_], dict[str, NDArray[np.float32]], dict[str, Floats]]:
    """Labels [B, 2], scores and true probabilities by output, of a model that is a little off."""
    rng = np.random.default_rng(seed)
    click, conversion = rng.beta(2, 8, count), rng.beta(2, 5, count)
    clicked = rng.random(count) < click
    labels = np.stack([clicked, clicked & (rng.random(count) < conversion)], axis=1)
    scores = {"pctr": click**1.1, "pcvr": conversion**0.9, "pctcvr": click**1.1 * conversion**0.9}
    truth = {"pctr": click, "pcvr": conversion, "pctcvr": click * conversion}
    return labels, {name: score.astype(np.float32) for name, score in scores.items()}, truth


def found(measured: tuple[Metric, ...], name: str, output: str, rows: str) -> Metric:
    return next(m for m in measured if (m.name, m.output, m.rows) == (name, output, rows))


def test_each_output_is_measured_where_its_label_is_observed() -> None:
    labels, scores, _ = log(0, 2000)
    measured = evaluate(CLICK_AND_CONVERSION, scores, labels, resamples=5)
    assert list(dict.fromkeys((m.output, m.rows) for m in measured)) == [
        ("pctr", "all"),
        ("pcvr", "given"),
        ("pctcvr", "all"),
    ]
    clicked = labels[:, 0]
    assert found(measured, "auc", "pctr", "all").value == pytest.approx(metrics.auc(clicked, scores["pctr"]))
    assert found(measured, "auc", "pcvr", "given").value == pytest.approx(
        metrics.auc(labels[clicked, 1], scores["pcvr"][clicked])
    )
    assert found(measured, "pcoc", "pctcvr", "all").value == pytest.approx(metrics.pcoc(labels[:, 1], scores["pctcvr"]))


def test_known_truth_is_measured_on_all_rows() -> None:
    labels, scores, truth = log(1, 2000)
    measured = evaluate(CLICK_AND_CONVERSION, scores, labels, truth={"pcvr": truth["pcvr"]}, resamples=5)
    assert {m.output for m in measured if m.rows == "truth"} == {"pcvr"}
    assert found(measured, "auc", "pcvr", "truth").value == pytest.approx(metrics.auc(truth["pcvr"], scores["pcvr"]))
    assert found(measured, "log_loss", "pcvr", "truth").value == pytest.approx(
        metrics.log_loss(truth["pcvr"], scores["pcvr"])
    )


def test_weights_and_groups_reach_the_metrics_of_given_rows() -> None:
    labels, scores, truth = log(2, 3000)
    rng = np.random.default_rng(3)
    weight, group = rng.uniform(0.5, 2, 3000), rng.choice(np.array(["u1", "u2", "u3", "u4", "u5", "u6"]), 3000)
    measured = evaluate(CLICK_AND_CONVERSION, scores, labels, weight=weight, group=group, truth=truth, resamples=5)
    clicked = labels[:, 0]
    expected = metrics.gauc(labels[clicked, 1], scores["pcvr"][clicked], group[clicked], weight[clicked])
    assert found(measured, "gauc", "pcvr", "given").value == pytest.approx(expected)
    assert not [m for m in measured if (m.name, m.rows) == ("gauc", "truth")]
    assert {m.name for m in measured if m.rows == "all"} == {name for name, _ in TITLES}


def test_longer_chain_has_its_own_names_and_rows() -> None:
    tasks = (Task(name="a", label="a"), Task(name="b", label="b", given="a"), Task(name="c", label="c", given="b"))
    rng = np.random.default_rng(4)
    labels = np.cumprod(rng.random((4000, 3)) < 0.5, axis=1)
    names = ["p_a", "p_b_given_a", "p_b", "p_c_given_b", "p_c"]
    parts = measured_rows(tasks, {name: rng.random(4000) for name in names}, labels)
    assert [(part.output.name, part.rows, len(part.label)) for part in parts] == [
        ("p_a", "all", 4000),
        ("p_b_given_a", "given", labels[:, 0].sum()),
        ("p_b", "all", 4000),
        ("p_c_given_b", "given", labels[:, 1].sum()),
        ("p_c", "all", 4000),
    ]
    assert parts[3].label.mean() == labels[:, 2].sum() / labels[:, 1].sum()


def test_undefined_metrics_are_left_out_and_the_others_stay() -> None:
    labels, scores, _ = log(5, 300)
    labels[:, 1] = False
    measured = evaluate(CLICK_AND_CONVERSION, scores, labels, resamples=10)
    assert {m.name for m in measured if m.output == "pctcvr"} == {"log_loss", "ece"}
    labels[:] = False
    assert not [m for m in evaluate(CLICK_AND_CONVERSION, scores, labels, resamples=10) if m.output == "pcvr"]


def test_two_evaluations_of_one_seed_are_equal() -> None:
    labels, scores, truth = log(6, 1500)
    group = np.arange(1500) % 70
    once, again, other = (
        evaluate(CLICK_AND_CONVERSION, scores, labels, truth=truth, group=group, resamples=20, seed=seed)
        for seed in (1, 1, 2)
    )
    assert once == again
    assert once != other


def test_reliability_bins_hold_equal_rows_and_intervals_hold_the_rate() -> None:
    rng = np.random.default_rng(7)
    truth = rng.beta(1, 20, 30_000)
    bins = reliability(rng.random(30_000) < truth, truth, bins=15)
    assert [one.rows for one in bins] == [2000] * 15
    assert [one.predicted for one in bins] == sorted(one.predicted for one in bins)
    assert sum(one.low <= one.predicted <= one.high for one in bins) >= 13
    assert all(one.low <= one.observed <= one.high for one in bins)


def test_wilson_interval_by_hand_and_for_weights() -> None:
    (one,) = reliability(np.r_[np.ones(1), np.zeros(9)], np.full(10, 0.2))
    assert (one.predicted, one.observed) == pytest.approx((0.2, 0.1))
    assert (one.low, one.high) == pytest.approx((0.0179, 0.4042), abs=1e-4)
    (double,) = reliability(np.r_[np.ones(1), np.zeros(9)], np.full(10, 0.2), np.full(10, 7.0))
    assert (double.low, double.high) == pytest.approx((one.low, one.high)), "a constant weight adds no evidence"
    (empty,) = reliability(np.zeros(50), np.full(50, 0.01))
    assert empty.low == 0 < empty.high < 0.1


def test_histogram_shares_sum_to_one_per_class() -> None:
    labels, scores, _ = log(8, 5000)
    told = histogram(labels[:, 0], scores["pctr"], bins=30)
    assert len(told.edges) == 31
    assert sum(told.negatives) == pytest.approx(1)
    assert sum(told.positives) == pytest.approx(1)
    middle = (np.array(told.edges[1:]) + told.edges[:-1]) / 2
    assert middle @ told.positives > middle @ told.negatives
    assert histogram([], []).edges == ()
    constant = histogram([0, 1], [0.5, 0.5])
    assert sum(constant.positives) == 1


def test_slices_of_text_are_the_most_frequent_values_the_rest_and_the_missing() -> None:
    values = np.array(["b"] * 30 + ["a"] * 50 + ["c"] * 5 + ["d"] * 5 + [""] * 10)
    label = np.tile([1.0, 0, 0, 0, 0], 20)
    parts = slices(values, label, np.full(100, 0.3), top=2)
    assert [(part.name, part.rows) for part in parts] == [
        ("a", 50),
        ("b", 30),
        ("(2 other values)", 10),
        ("(missing)", 10),
    ]
    assert [part.pcoc for part in parts] == pytest.approx([1.5] * 4)
    objects = np.array([None if value == "" else value for value in values], dtype=object)
    assert slices(objects, label, np.full(100, 0.3), top=2) == parts


def test_slices_of_numbers_are_deciles_with_ties_kept_together() -> None:
    values = np.r_[np.zeros(400), np.arange(1.0, 601)]
    values[:50] = np.nan
    parts = slices(values, np.zeros(1000), np.full(1000, 0.1))
    assert parts[0].name == "0"
    assert parts[0].rows == 350
    assert parts[1].name.startswith("1 to ")
    assert parts[-1].name == "(missing)"
    assert sum(part.rows for part in parts) == 1000
    assert {part.pcoc for part in parts} == {None}


def test_slices_of_integers_are_values_and_their_sentinel_is_missing() -> None:
    values = np.array([3, 3, 5, INT64_MISSING])
    assert [part.name for part in slices(values, np.zeros(4), np.full(4, 0.1))] == ["3", "5", "(missing)"]
    assert [part.name for part in slices(np.array([True, False, True]), np.zeros(3), np.full(3, 0.1))] == [
        "True",
        "False",
    ]


def test_score_reference_holds_mean_and_deciles() -> None:
    (told,) = score_reference({"pctr": np.linspace(0, 1, 101, dtype=np.float32)})
    assert told.name == "pctr"
    assert told.mean == pytest.approx(0.5)
    assert told.quantiles == pytest.approx(np.linspace(0, 1, 11), abs=1e-6)


def test_curves_follow_the_measured_rows_and_skip_empty_ones() -> None:
    labels, scores, truth = log(9, 2000)
    told = curves(measured_rows(CLICK_AND_CONVERSION, scores, labels, truth=truth))
    assert [(curve.output, curve.rows) for curve in told][:3] == [("pctr", "all"), ("pctr", "truth"), ("pcvr", "given")]
    assert sum(one.rows for one in told[2].bins) == labels[:, 0].sum()
    assert len(curves(measured_rows(CLICK_AND_CONVERSION, scores, np.zeros((2000, 2))))) == 2


@pytest.mark.parametrize(("half", "expected"), [(0.0043, 4), (0.043, 3), (0.43, 2), (0.00000001, 6), (0.0, 4)])
def test_figures_have_two_digits_of_their_interval(half: float, expected: int) -> None:
    assert decimals(Metric(name="auc", output="p", rows="all", value=0.7, low=0.7 - half, high=0.7 + half)) == expected
