"""The e-mail benchmark compares like with like: the same folds, rows and labels for both, on a log made here."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from benchmarks import email
from training.pipeline import read_log
from training.run import Run, load_run
from training.split import TEST

ROWS = 1500
OVERRIDES = ("split.folds=3", "split.fold=1", "training.epochs=1", "evaluation.resamples=10")


def write(path: Path) -> None:
    """A log with the columns of the real one, missing values included; long mails are opened less."""
    random = np.random.default_rng(5)
    words, absent = random.integers(40, 1300, ROWS), random.random(ROWS) < 0.1
    opened = random.random(ROWS) < np.where(words < 500, 0.6, 0.2)
    columns = {
        "Email_ID": [f"EMA{i}" for i in range(ROWS)],
        "Email_Type": random.integers(1, 3, ROWS),
        "Subject_Hotness_Score": random.integers(0, 50, ROWS) / 10,
        "Email_Source_Type": random.integers(1, 3, ROWS),
        "Customer_Location": random.choice(["", "A", "B", "C"], ROWS),
        "Email_Campaign_Type": random.integers(1, 4, ROWS),
        "Total_Past_Communications": pa.array(random.integers(0, 60, ROWS), mask=absent),
        "Time_Email_sent_Category": random.integers(1, 4, ROWS),
        "Word_Count": words,
        "Total_Links": pa.array(random.integers(1, 40, ROWS), mask=absent),
        "Total_Images": random.integers(0, 10, ROWS),
        "Email_Status": np.where(opened, 1 + (random.random(ROWS) < 0.4), 0),
    }
    path.parent.mkdir(parents=True)
    pyarrow.csv.write_csv(pa.table(columns), path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = tmp_path_factory.mktemp("real")
    path = directory / "email_campaign" / "data_email_campaign.csv"
    write(path)
    return load_run(email.RUN, [*OVERRIDES, f"data.path={path}"])


@pytest.fixture(scope="module")
def fold(run: Run, tmp_path_factory: pytest.TempPathFactory) -> email.Fold:
    return email.measure(run, tmp_path_factory.mktemp("fold"))


def test_both_are_measured_on_the_test_rows_of_the_fold(run: Run, fold: email.Fold) -> None:
    log = read_log(run)
    status = log.sources[0].dataset.to_table(["Email_Status"])["Email_Status"].to_numpy()[log.split == TEST]
    assert np.array_equal(fold["p_opened"].labels, status > 0)
    assert np.array_equal(fold["p_acknowledged"].labels, status == 2)
    assert np.array_equal(fold["p_acknowledged_given_opened"].labels, status[status > 0] == 2)
    for scored in fold.values():
        assert {name: len(scores) for name, scores in scored.scores.items()} == dict.fromkeys(
            email.SYSTEMS, len(scored.labels)
        )


def test_trees_learn_what_the_log_tells(fold: email.Fold) -> None:
    assert fold["p_opened"].auc(email.DECLARED) > 0.6
    assert fold["p_opened"].auc(email.ORDERED) > 0.6


def test_bundle_scores_are_those_of_the_funnel(fold: email.Fold) -> None:
    opened, given, joint = (fold[name].scores["Fullfunnel"] for name in fold)
    held = fold["p_opened"].labels > 0
    assert joint[held] == pytest.approx(opened[held] * given, rel=1e-6)


def scored(labels: list[float], ours: list[float], declared: list[float], ordered: list[float]) -> email.Fold:
    scores = dict(zip(email.SYSTEMS, map(np.array, (ours, declared, ordered)), strict=True))
    return {"p": email.Scored(np.array(labels), scores)}


def test_difference_is_taken_from_the_better_boosting_and_pcoc_is_pooled() -> None:
    folds = [
        scored([0, 1, 0, 1], [0.1, 0.9, 0.1, 0.9], [0.2, 0.1, 0.2, 0.1], [0.1, 0.3, 0.4, 0.2]),
        scored([0, 1, 0, 1], [0.5, 0.9, 0.1, 0.5], [0.2, 0.1, 0.2, 0.1], [0.1, 0.3, 0.4, 0.2]),
    ]
    assert email.best_boosting(folds, "p") == email.ORDERED
    assert email.pooled_pcoc(folds, "p", "Fullfunnel") == pytest.approx(4.0 / 4.0)
    line = email.mean_table(folds, {"p": "P(x)"}).splitlines()[-1]
    # ours 1 and .875, the better trees .5 in both folds; predictions 2 + 2 and 1 + 1 for 2 + 2 positives
    assert line == "| P(x) | 0.9375 | 0.0000 | 0.5000 | +0.4375 ± 0.0625 | 1.000 | 0.500 |"
