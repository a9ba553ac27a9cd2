"""Metrics against scikit-learn, against hand-computed cases, and under resampling."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from contract.errors import LabelInvalid, ScoreInvalid
from training.metrics import Floats, auc, bootstrap, ece, equal_mass_bins, gauc, log_loss, normalised_entropy, pcoc

ALL = {"auc", "log_loss", "normalised_entropy", "ece", "pcoc"}


def rows(seed: int, count: int, *, decimals: int | None = None) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(seed)
    score = rng.beta(1, 9, count)
    label = (rng.random(count) < score).astype(float)
    return label, score if decimals is None else score.round(decimals), rng.uniform(0.2, 3, count)


@pytest.mark.parametrize("decimals", [None, 2, 1])
def test_auc_equals_sklearn_with_weights_and_ties(decimals: int | None) -> None:
    label, score, weight = rows(0, 3000, decimals=decimals)
    assert auc(label, score, weight) == pytest.approx(sklearn.roc_auc_score(label, score, sample_weight=weight), 1e-12)


def test_soft_label_counts_as_a_positive_and_a_negative() -> None:
    _, score, weight = rows(1, 500, decimals=2)
    truth = np.random.default_rng(2).random(500)
    both = np.r_[np.ones(500), np.zeros(500)]
    expected = sklearn.roc_auc_score(
        both, np.r_[score, score], sample_weight=np.r_[weight * truth, weight * (1 - truth)]
    )
    assert auc(truth, score, weight) == pytest.approx(expected, 1e-12)


def test_auc_by_hand() -> None:
    assert auc([0, 1, 1, 0], [0.1, 0.4, 0.35, 0.35]) == (1 + 1 + 1 + 0.5) / 4
    assert auc([1, 0], [3.5, -20.0]) == 1
    assert auc([1, 0, 1, 0], [0.5] * 4) == 0.5


def test_log_loss_and_entropy_by_hand() -> None:
    loss = -(math.log(0.8) + math.log(0.9)) / 2
    assert log_loss([1, 0], [0.8, 0.1]) == pytest.approx(loss)
    assert normalised_entropy([1, 0], [0.8, 0.1]) == pytest.approx(loss / math.log(2))
    label, score, weight = rows(3, 800)
    assert log_loss(label, score, weight) == pytest.approx(sklearn.log_loss(label, score, sample_weight=weight))


def test_always_answering_the_base_rate_has_normalised_entropy_one() -> None:
    label, _, weight = rows(4, 700)
    assert normalised_entropy(label, np.full(700, np.average(label, weights=weight)), weight) == pytest.approx(1)


def test_certain_and_wrong_costs_much_but_not_infinity() -> None:
    assert 16 < log_loss([1, 0], [0.0, 1.0]) < 17


def test_ece_by_hand() -> None:
    # two bins: predicted .15 against 0, predicted .85 against .5
    assert ece([0, 0, 1, 0], [0.1, 0.2, 0.8, 0.9], bins=2) == pytest.approx((2 * 0.15 + 2 * 0.35) / 4)


def test_ece_is_zero_for_the_truth_and_the_bias_for_a_biased_model() -> None:
    truth = np.random.default_rng(5).uniform(0, 0.4, 1000)
    assert ece(truth, truth) == 0
    assert ece(truth, truth + 0.05) == pytest.approx(0.05)


def test_pcoc_is_mean_prediction_over_mean_label() -> None:
    assert pcoc([1, 0, 0, 1], [0.5, 0.25, 0.25, 0.5]) == 0.75
    assert pcoc([1, 0], [0.5, 0.5], [1, 3]) == 2


def test_weight_is_how_often_a_row_is_repeated() -> None:
    label, score, _ = rows(6, 300, decimals=2)
    times = np.random.default_rng(7).integers(0, 4, 300)
    group = np.arange(300) % 7
    repeated = [np.repeat(column, times) for column in (label, score, group)]
    for metric in (auc, log_loss, normalised_entropy, pcoc, ece):
        assert metric(label, score, times) == pytest.approx(metric(*repeated[:2])), metric
    assert gauc(label, score, group, times) == pytest.approx(gauc(*repeated))


def test_negatives_downsampled_and_weighted_measure_like_all_rows() -> None:
    label, score, _ = rows(8, 60_000)
    kept = (label > 0) | (np.random.default_rng(9).random(label.size) < 0.2)
    weight = np.where(label > 0, 1.0, 5.0)[kept]
    assert auc(label[kept], score[kept], weight) == pytest.approx(auc(label, score), abs=0.01)
    assert pcoc(label[kept], score[kept], weight) == pytest.approx(pcoc(label, score), rel=0.02)
    assert pcoc(label[kept], score[kept]) < 0.7


def test_gauc_is_the_mean_of_each_groups_auc_by_rows() -> None:
    label, score, weight = rows(10, 400, decimals=1)
    group = np.random.default_rng(11).choice(np.array(["a", "b", "c", "d"]), 400)
    label[group == "d"] = 0  # one class: left out
    parts = [group == name for name in "abc"]
    expected = np.average(
        [sklearn.roc_auc_score(label[part], score[part], sample_weight=weight[part]) for part in parts],
        weights=[weight[part].sum() for part in parts],
    )
    assert gauc(label, score, group, weight) == pytest.approx(expected)
    assert gauc(label, score, np.zeros(400, int), weight) == pytest.approx(auc(label, score, weight))


def test_gauc_does_not_see_a_difference_between_groups() -> None:
    group = np.arange(1000) % 2
    label = (np.random.default_rng(12).random(1000) < np.where(group, 0.9, 0.1)).astype(float)
    assert auc(label, group) > 0.8
    assert gauc(label, group, group) == 0.5


@pytest.mark.parametrize("label", [[0, 0, 0], [1, 1, 1], []])
def test_one_class_or_no_row_is_not_a_number_and_no_error(label: list[int]) -> None:
    score = [0.2, 0.3, 0.4][: len(label)]
    assert math.isnan(auc(label, score))
    assert math.isnan(gauc(label, score, np.zeros(len(label), int)))
    assert math.isnan(normalised_entropy(label, score))
    assert math.isnan(pcoc(label, score)) == (sum(label) == 0)
    assert math.isnan(log_loss(label, score)) == math.isnan(ece(label, score)) == (not label)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(LabelInvalid):
        auc([0, 2], [0.1, 0.2])
    with pytest.raises(LabelInvalid):
        auc([0, math.nan], [0.1, 0.2])
    with pytest.raises(ScoreInvalid):
        auc([0, 1], [0.1, math.inf])
    with pytest.raises(ScoreInvalid):
        log_loss([0, 1], [0.1, 1.2])
    with pytest.raises(ScoreInvalid):
        ece([0, 1], [0.1, math.nan])
    with pytest.raises(ValueError, match="weight"):
        pcoc([0, 1], [0.1, 0.2], [1, -1])
    with pytest.raises(ValueError, match="one number a row"):
        auc([0, 1], [0.1])
    with pytest.raises(ValueError, match="group"):
        gauc([0, 1], [0.1, 0.2], np.zeros(3, int))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0]), st.sampled_from([0.0, 0.1, 0.2, 0.7, 1.0])),
        min_size=2,
        max_size=30,
    )
)
def test_auc_turns_around_with_the_scores_and_ignores_a_monotone_map(pairs: list[tuple[float, float]]) -> None:
    label, score = (np.array(column) for column in zip(*pairs, strict=True))
    value = auc(label, score)
    if math.isnan(value):
        assert label.sum() == 0 or (1 - label).sum() == 0
        return
    assert 0 <= value <= 1
    assert auc(label, -score) == pytest.approx(1 - value)
    assert auc(1 - label, score) == pytest.approx(1 - value)
    assert auc(label, np.exp(3 * score)) == pytest.approx(value)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.floats(0.01, 5)), max_size=60),
    st.integers(1, 20),
)
def test_bins_part_no_ties_and_are_neither_many_nor_tiny(pairs: list[tuple[float, float]], bins: int) -> None:
    pairs.sort()
    score, weight = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs])
    starts = equal_mass_bins(score, weight, bins)
    assert len(starts) <= bins
    assert (len(starts) > 0) == (len(pairs) > 0)
    assert all(score[start] != score[start - 1] for start in starts[1:])
    assert all(part.sum() > 0.49 * weight.sum() / bins for part in np.split(weight, starts[1:]) if len(pairs))


def test_bins_of_distinct_scores_hold_equal_mass() -> None:
    starts = equal_mass_bins(np.arange(1000.0), np.ones(1000), 20)
    assert starts.tolist() == list(range(0, 1000, 50))


def test_bootstrap_values_are_the_metrics_themselves() -> None:
    label, score, weight = rows(13, 2000, decimals=2)
    group = np.arange(2000) % 50
    found = bootstrap(label, score, weight=weight, group=group, resamples=5)
    for name, metric in {"auc": auc, "log_loss": log_loss, "ece": ece, "pcoc": pcoc}.items():
        assert found[name].value == pytest.approx(metric(label, score, weight)), name
    assert found["normalised_entropy"].value == pytest.approx(normalised_entropy(label, score, weight))
    assert found["gauc"].value == pytest.approx(gauc(label, score, group, weight))
    assert set(found) == {*ALL, "gauc"}


def test_bootstrap_interval_agrees_with_a_naive_one() -> None:
    label, score, weight = rows(14, 600, decimals=2)
    rng = np.random.default_rng(15)
    naive = []
    for _ in range(150):
        drawn = rng.integers(0, 600, 600)
        naive.append(sklearn.roc_auc_score(label[drawn], score[drawn], sample_weight=weight[drawn]))
    found = bootstrap(label, score, weight=weight, resamples=400)["auc"]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(naive, (0.025, 0.975))), abs=0.015)


def test_bootstrap_is_seeded_and_does_not_depend_on_the_order_of_rows() -> None:
    label, score, weight = rows(16, 500)
    group = np.arange(500) % 40
    shuffled = np.random.default_rng(17).permutation(500)
    for by in (None, group):
        first = bootstrap(label, score, weight=weight, group=by, seed=3)
        other = bootstrap(
            label[shuffled],
            score[shuffled],
            weight=weight[shuffled],
            group=None if by is None else by[shuffled],
            seed=3,
        )
        for name, interval in first.items():
            assert (other[name].low, other[name].high) == pytest.approx((interval.low, interval.high)), name
        assert bootstrap(label, score, weight=weight, group=by, seed=3) == first
        assert bootstrap(label, score, weight=weight, group=by, seed=4) != first


def test_rows_that_resemble_each_other_within_a_group_widen_the_interval() -> None:
    rng = np.random.default_rng(18)
    group = np.repeat(np.arange(60), 50)
    score = 1 / (1 + np.exp(2 - rng.normal(0, 1, 60)[group]))
    label = (rng.random(3000) < score).astype(float)
    by_row, by_group = bootstrap(label, score)["log_loss"], bootstrap(label, score, group=group)["log_loss"]
    assert by_group.high - by_group.low > 1.4 * (by_row.high - by_row.low)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = dict.fromkeys(("auc", "log_loss", "pcoc", "normalised_entropy"), 0)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        truth = rng.beta(1, 9, 1500)
        score = truth**0.9
        found = bootstrap((rng.random(1500) < truth).astype(float), score, seed=seed)
        for metric in (auc, log_loss, pcoc, normalised_entropy):
            interval = found[metric.__name__]
            held[metric.__name__] += interval.low <= metric(truth, score) <= interval.high
    assert all(count >= 33 for count in held.values()), held
    assert sum(held.values()) < 160, "intervals that always hold are too wide"


def test_ten_positives_are_enough_and_resamples_without_one_are_left_out() -> None:
    label = np.r_[np.ones(2), np.zeros(300)]
    found = bootstrap(label, np.linspace(0.9, 0.1, 302), resamples=200)
    assert 120 < found["auc"].resamples < 200
    assert found["log_loss"].resamples == 200
    assert all(math.isfinite(interval.low) and interval.low <= interval.high for interval in found.values())
    ten = bootstrap(np.r_[np.ones(10), np.zeros(300)], np.linspace(0.9, 0.1, 310))["auc"]
    assert ten.low == ten.value == 1


def test_interval_of_an_undefined_metric_is_undefined() -> None:
    found = bootstrap(np.zeros(20), np.full(20, 0.1), resamples=10)
    assert math.isnan(found["auc"].low)
    assert found["auc"].resamples == 0
    assert found["log_loss"].value == pytest.approx(-math.log(0.9))
    assert all(math.isnan(interval.value) for interval in bootstrap([], []).values())


def test_interval_of_ece_holds_its_value() -> None:
    label, score, _ = rows(19, 4000)
    found = bootstrap(label, score)["ece"]
    assert 0 <= found.low < found.value < found.high


def test_interval_of_gauc_holds_its_value_also_when_groups_differ_in_size() -> None:
    label, score, _ = rows(20, 3000, decimals=1)
    group = np.repeat(np.arange(40), np.r_[np.full(20, 10), np.full(20, 140)])
    found = bootstrap(label, score, group=group)["gauc"]
    assert found.low < found.value < found.high
    assert found.high - found.low < 0.2
    weighted = bootstrap(label, score, weight=np.full(3000, 5.0), group=group)["gauc"]
    assert (weighted.low, weighted.high) == pytest.approx((found.low, found.high))
