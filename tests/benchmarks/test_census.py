"""benchmarks/census.py: what is measured once stays measured, and the test half chooses nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import census
from benchmarks.census import BY_NAME, RUN, SYSTEMS, TASKS, Rows, System, job_of, measure, measure_all, read, run_of
from benchmarks.records import Figures, Job, Records
from training.run import Run, load_run, parse_run

SMALL = System("small", {"architecture": "shared_bottom", "trunk": (8,), "tower": (4,)})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two tasks that depend on a number and a category; few rows and many passes, so that the loss rises again."""
    folder, random = tmp_path_factory.mktemp("census"), np.random.default_rng(3)
    for split, rows in (("train", 200), ("validation", 400), ("test", 400)):
        age, job = random.normal(size=rows), random.integers(0, 9, rows)
        columns: dict[str, object] = {"age": age.astype(np.float32), "job": job}
        for sign, task in zip((1, -1), TASKS, strict=True):
            columns[task] = (sign * age + 0.3 * (job - 4) + random.logistic(size=rows) > 0).astype(np.int8)
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")
    return parse_run(
        {
            "name": "census",
            "data": {
                "path": str(folder / "train.parquet"),
                "validation_path": str(folder / "validation.parquet"),
                "test_path": str(folder / "test.parquet"),
            },
            "model": {"architecture": "shared_bottom"},
            "training": {"objective": "independent", "epochs": 40, "batch_rows": 50, "learning_rate": 0.02},
            "tasks": [{"name": task, "label": task} for task in TASKS],
            "features": [
                {"kind": "numeric", "name": "age", "side": "item"},
                {"kind": "categorical", "name": "job", "side": "item"},
            ],
        }
    )


@pytest.fixture(scope="module")
def rows(base: Run) -> Rows:
    return read(base)


def figures(income: float, never_married: float) -> Figures:
    return {"auc income test": income, "auc never_married test": never_married, "parameters": 9.0, "training, s": 1.0}


def test_the_evaluation_is_chosen_on_the_validation_half_and_never_on_the_test_half(base: Run, rows: Rows) -> None:
    turned = replace(rows, test=replace(rows.test, labels=1 - rows.test.labels))
    for alone in (False, True):
        run = run_of(base, SMALL, 1)
        ours, theirs = measure(run, rows, alone=alone), measure(run, turned, alone=alone)
        for task in TASKS:
            assert ours[f"evaluation {task}"] == theirs[f"evaluation {task}"] < run.training.epochs
            assert ours[f"auc {task} validation"] == theirs[f"auc {task} validation"]
            assert ours[f"auc {task} test"] == pytest.approx(1 - theirs[f"auc {task} test"])
            assert ours[f"auc {task} test"] > 0.6


def test_other_validation_rows_can_choose_another_evaluation(base: Run, rows: Rows) -> None:
    turned = replace(rows, validation=replace(rows.validation, labels=1 - rows.validation.labels))
    run = run_of(base, SMALL, 1)
    assert measure(run, turned)["evaluation income"] < measure(run, rows)["evaluation income"]


def test_single_task_is_a_network_for_each_task_that_sees_no_other_label(base: Run, rows: Rows) -> None:
    labels = rows.train.labels.copy()
    labels[:, 1] = 1 - labels[:, 1]
    other = replace(rows, train=replace(rows.train, labels=labels))
    run = run_of(base, SMALL, 1)
    alone, changed = measure(run, rows, alone=True), measure(run, other, alone=True)
    assert alone["auc income test"] == changed["auc income test"]
    assert alone["auc never_married test"] > 0.6 > 0.4 > changed["auc never_married test"]
    assert alone["parameters"] > measure(run, rows)["parameters"]


def test_what_is_done_is_skipped_when_the_benchmark_resumes(
    base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    records = Records(tmp_path / "census.jsonl")
    records.add(job_of(base, SMALL, 1), figures(0.25, 0.75))
    measure_all(base, [SMALL], [1, 2], 1, records)
    assert len(records.path.read_text().splitlines()) == 2
    again = Records(records.path)
    assert again[job_of(base, SMALL, 1)] == figures(0.25, 0.75)
    assert again[job_of(base, SMALL, 2)]["auc income test"] > 0.6

    def never(run: Run) -> Rows:
        raise AssertionError("nothing is missing")

    monkeypatch.setattr(census, "read", never)
    measure_all(base, [SMALL], [1, 2], 1, again)


def test_another_network_or_optimiser_is_measured_anew(base: Run) -> None:
    def key(run: Run, system: System) -> str:
        job: Job = job_of(run, system, 1)
        return job.key

    slower = base.model_copy(update={"training": base.training.model_copy(update={"learning_rate": 0.01})})
    wider = replace(SMALL, model={**SMALL.model, "trunk": (9,)})
    keys = [key(base, SMALL), key(slower, SMALL), key(base, wider), key(base, replace(SMALL, alone=True))]
    assert len(set(keys)) == 4
    assert key(base, SMALL) == keys[0]


def test_the_table_has_mean_best_and_published_figures_of_both_tasks() -> None:
    systems = [BY_NAME["MMoE"], BY_NAME["PLE"]]
    measured = {
        "MMoE": [figures(0.94, 0.991), figures(0.96, 0.993)],
        "PLE": [figures(0.951, 0.995), figures(0.951, 0.995)],
    }
    lines = [[x.strip() for x in line.strip("|").split("|")] for line in census.table(systems, measured).splitlines()]
    assert {len(line) for line in lines} == {13}
    assert lines[0][1:6] == [
        "income, mean",
        "income, best",
        "income, MMoE paper's mean",
        "income, MMoE paper's best",
        "income, PLE paper's",
    ]
    assert lines[2][:6] == ["MMoE", "0.9500 ± 0.0141", "0.9600", "0.9359", "0.9410", "0.9393"]
    assert lines[2][6:11] == ["0.9920 ± 0.0014", "0.9930", "0.9927", "0.9926", "0.9928"]
    assert lines[3][:6] == ["PLE", "0.9510 ± 0.0000", "0.9510", "", "", "0.9522"]
    verdict = census.verdict(systems, measured).splitlines()
    assert verdict[0] == "3 of 6 published figures are passed."
    assert "PLE, income: 0.9510 against the PLE paper's 0.9522" in verdict


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_every_system_is_a_run_with_the_features_and_the_budget_of_the_run_file(system: System) -> None:
    run, base = run_of(load_run(RUN), system, 7), load_run(RUN)
    assert (run.seed, run.training.threads) == (7, 1)
    assert (run.features, run.tasks, run.data) == (base.features, base.tasks, base.data)
    for name in ("epochs", "batch_rows", "evaluations_per_epoch", "patience", "average"):
        assert getattr(run.training, name) == getattr(base.training, name)


def test_the_run_file_is_the_mmoe_of_the_table() -> None:
    assert load_run(RUN).model == run_of(load_run(RUN), BY_NAME["MMoE"], 1).model
