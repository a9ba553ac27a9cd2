"""Training learns, repeats bit for bit, keeps its best network, and is corrected for the rows it drops."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from contract.bundle import Calibration
from contract.errors import RunInvalid
from contract.tasks import CLICK_AND_CONVERSION
from models.ranker import Ranker
from models.sluice import SluiceOptions
from tests.training import small
from training import loop
from training.calibration import calibrate, downsampling_shift, identity, probabilities
from training.loop import Evaluation, History, Keeper, Loss, predict_logits, validate
from training.metrics import auc, pcoc
from training.run import TrainingOptions
from training.split import TEST, TRAIN, VALIDATION
from training.tensors import Tensors

SMALL = {"batch_rows": 256, "embedding_learning_rate": 0.2, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def learnable(tmp_path_factory: pytest.TempPathFactory) -> small.Prepared:
    """Enough rows to learn which items are clicked and which prices convert."""
    directory = tmp_path_factory.mktemp("learnable")
    run = small.document(small.write(directory / "log.parquet", small.columns(12_000)))
    run["features"] = [small.feature(run, name) for name in ("member", "item_id", "price")]
    return small.prepare(run, directory)


def ranker_of(log: small.Prepared, seed: int = 0) -> Ranker:
    torch.manual_seed(seed)
    return Ranker(log.fitted.inputs, log.run.model, 2)


def trained(log: small.Prepared, seed: int = 0, **options: Any) -> tuple[Ranker, History]:
    """A network trained with these options."""
    ranker = ranker_of(log, seed)
    chosen = TrainingOptions.model_validate(SMALL | options)
    rows, validation = log.tensors[TRAIN], log.tensors[VALIDATION]
    history = loop.train(ranker, rows, validation, CLICK_AND_CONVERSION, chosen, seed=seed, on_progress=small.nothing)
    return ranker, history


def scores(log: small.Prepared, ranker: Ranker, calibration: Sequence[Calibration]) -> dict[str, NDArray[np.float32]]:
    return probabilities(CLICK_AND_CONVERSION, predict_logits(ranker, log.tensors[TEST]), calibration)


def weights(ranker: Ranker) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in ranker.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_clicks_and_conversions_are_learned(learnable: small.Prepared) -> None:
    ranker, history = trained(learnable, epochs=3)
    found, labels = scores(learnable, ranker, identity(CLICK_AND_CONVERSION)), learnable.tensors[TEST].labels
    clicked = labels[:, 0] > 0
    assert auc(labels[:, 0], found["pctr"]) > 0.62
    assert auc(labels[clicked, 1], found["pcvr"][clicked]) > 0.66
    assert history.evaluations[-1].train_loss < history.evaluations[0].train_loss


def test_one_seed_gives_the_same_weights_and_another_seed_others(learnable: small.Prepared) -> None:
    one, again, other = (weights(trained(learnable, seed=seed)[0]) for seed in (0, 0, 1))
    assert same(one, again)
    assert not same(one, other)


def test_evaluations_are_as_many_as_asked_for(learnable: small.Prepared) -> None:
    _, history = trained(learnable, epochs=2, evaluations_per_epoch=3)
    rows = len(learnable.tensors[TRAIN])
    seen = [evaluation.rows_seen for evaluation in history.evaluations]
    assert len(seen) == 6
    assert seen[2] == rows
    assert seen[5] == 2 * rows
    assert np.all(np.diff(seen) > 0)
    assert all(np.isfinite([x.train_loss, x.validation_loss]).all() for x in history.evaluations)


def test_progress_runs_to_the_rows_of_all_epochs(learnable: small.Prepared) -> None:
    told: list[int] = []
    options = TrainingOptions.model_validate(SMALL | {"epochs": 2, "negative_rate": 0.5})
    rows, validation = learnable.tensors[TRAIN], learnable.tensors[VALIDATION]
    loop.train(ranker_of(learnable), rows, validation, CLICK_AND_CONVERSION, options, seed=0, on_progress=told.append)
    assert told == sorted(told)
    assert 0 < told[0] < told[-1] <= 2 * len(rows)


def test_network_of_the_least_validation_loss_is_kept(learnable: small.Prepared) -> None:
    ranker, history = trained(learnable, epochs=6, learning_rate=0.3, patience=6)
    losses = [evaluation.validation_loss for evaluation in history.evaluations]
    assert history.best == int(np.argmin(losses)) < len(losses) - 1
    kept = validate(ranker, learnable.tensors[VALIDATION], Loss(CLICK_AND_CONVERSION, TrainingOptions()))
    assert kept == pytest.approx(min(losses), abs=1e-6)
    assert max(losses) - min(losses) > 1e-3


def test_mean_weights_are_judged_and_kept_while_training_goes_on_without_them(learnable: small.Prepared) -> None:
    options: dict[str, Any] = {"epochs": 3, "evaluations_per_epoch": 3, "patience": 9, "learning_rate": 0.1}
    _, plain = trained(learnable, **options)
    ranker, history = trained(learnable, **options, average=4)
    losses = [evaluation.validation_loss for evaluation in history.evaluations]
    kept = validate(ranker, learnable.tensors[VALIDATION], Loss(CLICK_AND_CONVERSION, TrainingOptions()))
    assert kept == pytest.approx(min(losses), abs=1e-6)
    assert [x.train_loss for x in history.evaluations] == [x.train_loss for x in plain.evaluations]
    assert losses[0] == plain.evaluations[0].validation_loss
    assert losses[1:] != [x.validation_loss for x in plain.evaluations[1:]]


def test_training_stops_when_patience_runs_out(learnable: small.Prepared) -> None:
    _, history = trained(learnable, epochs=30, evaluations_per_epoch=2, learning_rate=0.3, patience=2)
    assert len(history.evaluations) == history.best + 3 < 60


def test_keeper_counts_evaluations_since_the_best_one(learnable: small.Prepared) -> None:
    ranker = ranker_of(learnable)
    keeper, kept = Keeper(ranker, patience=2), {}
    stops = []
    for number, loss in enumerate([0.5, 0.4, 0.6, 0.3, 0.35, 0.31]):
        with torch.no_grad():
            ranker.embeddings.tables["4"].fill_(number)
        if number == 3:
            kept = weights(ranker)
        stops.append(keeper.add(Evaluation(number, 0.0, loss)))
    assert stops == [False, False, False, False, False, True]
    assert keeper.restore().best == 3
    assert same(weights(ranker), kept)


def test_training_that_diverges_is_reported(learnable: small.Prepared) -> None:
    with pytest.raises(RunInvalid, match="not a finite number") as caught:
        trained(learnable, epochs=3, learning_rate=1e30)
    assert caught.value.place == "[training]"
    assert "learning_rate" in caught.value.remedy


@pytest.mark.parametrize("objective", ["independent", "entire_space"])
def test_validation_loss_is_the_objective_over_the_split(
    objective: str, learnable: small.Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "EVALUATION_ROWS", 700)
    options = TrainingOptions.model_validate({"objective": objective, "task_weights": {"conversion": 3.0}})
    ranker, rows = ranker_of(learnable), learnable.tensors[VALIDATION]
    found = validate(ranker, rows, Loss(CLICK_AND_CONVERSION, options))
    p = 1 / (1 + np.exp(-predict_logits(ranker, rows).astype(np.float64)))
    click, conversion = rows.labels.T.astype(np.float64)
    if objective == "entire_space":
        p[:, 1] *= p[:, 0]
    losses = [-(y * np.log(q) + (1 - y) * np.log1p(-q)) for y, q in ((click, p[:, 0]), (conversion, p[:, 1]))]
    held = click > 0 if objective == "independent" else np.ones(len(rows), bool)
    assert found == pytest.approx(losses[0].mean() + 3 * losses[1][held].mean(), rel=1e-5)


def test_escm2_trains_and_is_judged_by_its_own_loss(learnable: small.Prepared) -> None:
    ranker, history = trained(learnable, epochs=3, objective="escm2_ips", escm2={"counterfactual_weight": 0.5})
    found, labels = scores(learnable, ranker, identity(CLICK_AND_CONVERSION)), learnable.tensors[TEST].labels
    clicked = labels[:, 0] > 0
    assert auc(labels[clicked, 1], found["pcvr"][clicked]) > 0.66
    options = TrainingOptions.model_validate({"objective": "escm2_ips"})
    default = validate(ranker, learnable.tensors[VALIDATION], Loss(CLICK_AND_CONVERSION, options))
    assert history.evaluations[history.best].validation_loss > default + 0.1


def trained_on(log: small.Prepared, rows: Tensors, **options: Any) -> dict[str, Tensor]:
    """The weights after training on these rows."""
    ranker, chosen = ranker_of(log), TrainingOptions.model_validate(SMALL | options)
    validation = log.tensors[VALIDATION]
    loop.train(ranker, rows, validation, CLICK_AND_CONVERSION, chosen, seed=0, on_progress=small.nothing)
    return weights(ranker)


@pytest.mark.parametrize("objective", ["independent", "entire_space"])
def test_labels_of_a_task_of_weight_0_do_not_matter(objective: str, learnable: small.Prepared) -> None:
    rows = learnable.tensors[TRAIN]
    others = dataclasses.replace(rows, labels=np.stack([rows.labels[:, 0], np.zeros_like(rows.labels[:, 1])], axis=1))
    for weight, equal in ((0.0, True), (1.0, False)):
        options = {"objective": objective, "task_weights": {"conversion": weight}}
        assert same(trained_on(learnable, rows, **options), trained_on(learnable, others, **options)) == equal


def test_conversion_learns_from_rows_without_a_click_in_the_entire_space_only(learnable: small.Prepared) -> None:
    rows, before = learnable.tensors[TRAIN], weights(ranker_of(learnable))
    unclicked = rows.take(np.flatnonzero(rows.labels[:, 0] == 0))
    for objective, unmoved in (("independent", True), ("entire_space", False)):
        after = trained_on(learnable, unclicked, objective=objective, task_weights={"click": 0.0})
        assert same(before, after) == unmoved


def test_weight_of_positives_raises_the_probabilities(learnable: small.Prepared) -> None:
    even, heavy = (
        scores(learnable, trained(learnable, positive_weights={"click": weight})[0], identity(CLICK_AND_CONVERSION))
        for weight in (1.0, 4.0)
    )
    assert heavy["pctr"].mean() > 1.5 * even["pctr"].mean()


def test_rows_of_the_tables_that_no_row_looks_up_are_not_touched(learnable: small.Prepared) -> None:
    before, after = ranker_of(learnable), trained(learnable, weight_decay=0.1)[0]
    for dim, table in before.embeddings.tables.items():
        used = np.unique(np.concatenate([rows.ids[int(dim)].ravel() for rows in learnable.tensors[:1]]))
        unused = np.setdiff1d(np.arange(len(table)), used)
        assert len(unused)
        assert torch.equal(table[unused], after.embeddings.tables[dim][unused])
        assert not torch.equal(table[used], after.embeddings.tables[dim][used])


def test_dropped_negatives_are_corrected_for(learnable: small.Prepared) -> None:
    rate, labels = 0.25, learnable.tensors[TEST].labels
    clicked = labels[:, 0] > 0
    ranker, _ = trained(learnable, epochs=3, negative_rate=rate)
    raw = scores(learnable, ranker, identity(CLICK_AND_CONVERSION))
    assert pcoc(labels[:, 0], raw["pctr"]) > 1.5
    shift = downsampling_shift(rate)
    click, conversion = identity(CLICK_AND_CONVERSION)
    shifted = scores(learnable, ranker, (click.model_copy(update={"intercept": shift}), conversion))
    assert pcoc(labels[:, 0], shifted["pctr"]) == pytest.approx(1, abs=0.1)
    validation = learnable.tensors[VALIDATION]
    fitted = calibrate(
        CLICK_AND_CONVERSION,
        predict_logits(ranker, validation),
        validation.labels,
        objective="entire_space",
        shift=shift,
    )
    calibrated = scores(learnable, ranker, fitted)
    assert pcoc(labels[:, 0], calibrated["pctr"]) == pytest.approx(1, abs=0.06)
    assert pcoc(labels[:, 1], calibrated["pctcvr"]) == pytest.approx(1, abs=0.08)
    assert pcoc(labels[clicked, 1], calibrated["pcvr"][clicked]) == pytest.approx(1, abs=0.08)


def test_logits_are_those_of_the_network_row_by_row(learnable: small.Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    ranker, rows = ranker_of(learnable), learnable.tensors[TEST]
    whole = predict_logits(ranker, rows)
    monkeypatch.setattr(loop, "EVALUATION_ROWS", 301)
    assert whole.shape == (len(rows), 2)
    assert np.abs(predict_logits(ranker, rows) - whole).max() < 1e-6


def test_numbers_too_small_for_training_are_numbers_again_afterwards(learnable: small.Prepared) -> None:
    trained(learnable)
    assert float(torch.tensor(2e-38) / 16) > 0


def test_frozen_parameters_are_no_leaves_of_a_weighting(learnable: small.Prepared) -> None:
    torch.manual_seed(0)
    ranker = Ranker(learnable.fitted.inputs, SluiceOptions(trunk=(8, 8), tower=(4,), skip=False), 2)
    options = TrainingOptions.model_validate(SMALL | {"weighting": {"kind": "pcgrad"}})
    rows = learnable.tensors[TRAIN], learnable.tensors[VALIDATION]
    history = loop.train(ranker, *rows, CLICK_AND_CONVERSION, options, seed=0, on_progress=small.nothing)
    assert np.isfinite(history.evaluations[-1].validation_loss)
