"""The summary against other ways to compute the same: scikit-learn, numpy, and the rows themselves."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from contract.bundle import FeatureReference, Manifest, Reference, ScoreReference
from service.batch import plan as planning
from service.batch.job import Job
from service.batch.run import run_job
from service.batch.summary import auc, facts
from service.batch.tally import BINS, EPSILON, Tally, bins_of, label_of, lower_edges
from service.scoring.drift import psi
from tests.service.batch.tables import toy_table, write
from tests.service.toy_bundle import publish_toy, toy_manifest

ROWS = 3000


def _scored(job: Job, table: pa.Table, source: Path) -> tuple[dict[str, Any], pa.Table]:
    write(table, source, row_group_size=500)
    run_job(replace(job, input=str(source), keep=("click", "conversion")), workers=2)
    summary = json.loads(Path(f"{job.output}.summary.json").read_bytes())
    return summary, pq.read_table(job.output)


@pytest.fixture
def job(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setattr(planning, "BLOCK_ROWS", 700)
    return Job(str(toy), "", str(tmp_path / "out.parquet"))


def test_quality_is_that_of_all_rows_together(job: Job, tmp_path: Path) -> None:
    summary, out = _scored(job, toy_table(ROWS, 1, users=200), tmp_path / "in.parquet")
    quality = {one["output"]: one for one in summary["quality"]}
    columns = {name: out[name].to_numpy().astype(np.float64) for name in out.schema.names}
    clicked = columns["click"] == 1
    for name, label, rows in (
        ("pctr", "click", np.ones(ROWS, bool)),
        ("pcvr", "conversion", clicked),
        ("pctcvr", "conversion", np.ones(ROWS, bool)),
    ):
        y, p, found = columns[label][rows], columns[name][rows], quality[name]
        assert (found["count"], found["positives"]) == (len(y), y.sum())
        assert found["auc"] == pytest.approx(roc_auc_score(y, p), abs=2e-3)
        assert found["log_loss"] == pytest.approx(log_loss(y, np.clip(p, EPSILON, 1 - EPSILON)), rel=1e-4)
        assert found["pcoc"] == pytest.approx(p.sum() / y.sum(), rel=1e-4)
    assert [quality[name]["rows"] for name in ("pctr", "pcvr", "pctcvr")] == ["all", "given", "all"]


def test_a_row_without_a_label_is_not_measured(job: Job, tmp_path: Path) -> None:
    table = toy_table(50, 2)
    labels = [None if row % 2 else value for row, value in enumerate(table["click"].to_pylist())]
    table = table.set_column(table.schema.get_field_index("click"), "click", pa.array(labels, pa.int8()))
    summary, _ = _scored(job, table, tmp_path / "in.parquet")
    assert summary["quality"][0]["count"] == 25


def test_without_labels_nothing_is_said_of_quality(job: Job, tmp_path: Path) -> None:
    table = toy_table(50, 2).drop_columns(["click", "conversion"])
    write(table, tmp_path / "in.parquet")
    result = run_job(replace(job, input=str(tmp_path / "in.parquet")))
    assert result.summary["quality"] == []


def test_rates_and_scores_are_those_of_the_rows(job: Job, tmp_path: Path) -> None:
    table = toy_table(ROWS, 3, users=100, in_order=False)
    summary, out = _scored(job, table, tmp_path / "in.parquet")
    cities = table["city"].to_pylist()
    present = [city for city in cities if city is not None]
    assert summary["features"]["city"]["missing_rate"] == pytest.approx(1 - len(present) / ROWS, rel=1e-5)
    assert summary["features"]["city"]["unknown_rate"] == pytest.approx(
        present.count("Atlantis") / len(present), rel=1e-5
    )
    for name in ("pctr", "pctcvr"):
        scores = out[name].to_numpy()
        found = summary["scores"][name]
        assert found["mean"] == pytest.approx(scores.mean(), rel=1e-4)
        assert sum(found["histogram"]["rows"]) == ROWS
        np.testing.assert_allclose(found["deciles"], np.quantile(scores, np.linspace(0, 1, 11)), rtol=0.02)
        edges = [*found["histogram"]["from"], 2.0]
        assert found["histogram"]["rows"] == np.histogram(scores, edges)[0].tolist()


def test_drift_is_none_on_the_reference_rows_and_much_on_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = toy_table(ROWS, 4, users=400)
    publish_toy(tmp_path / "plain")
    job = Job(str(tmp_path / "plain"), str(write(table, tmp_path / "in.parquet")), str(tmp_path / "first.parquet"))
    run_job(job)
    out = pq.read_table(job.output)
    publish_toy(tmp_path / "bundle", manifest=toy_manifest(reference=_reference(table, out)))
    job = replace(job, bundle=str(tmp_path / "bundle"), output=str(tmp_path / "same.parquet"))
    same = run_job(job).summary
    other = table.set_column(
        table.schema.get_field_index("price"), "price", pa.array(np.linspace(300, 500, ROWS))
    ).set_column(table.schema.get_field_index("city"), "city", pa.array(["Atlantis"] * ROWS))
    write(other, tmp_path / "other.parquet")
    drifted = run_job(replace(job, input=str(tmp_path / "other.parquet"), output=str(tmp_path / "o.parquet"))).summary
    for name in ("price", "city", "age"):
        assert same["features"][name]["psi"] == pytest.approx(0, abs=1e-3)
    assert same["scores"]["pctr"]["psi"] < 0.05  # a bin of scores that many rows have lies on one side of a decile
    assert drifted["features"]["age"]["psi"] == pytest.approx(0, abs=1e-3)
    assert drifted["features"]["price"]["psi"] > 1
    assert drifted["features"]["city"]["psi"] > 1
    assert drifted["scores"]["pctr"]["psi"] > 0.05


def _reference(table: pa.Table, out: pa.Table) -> Reference:
    tenths = np.linspace(0, 1, 11)
    features = []
    for name in ("price", "age"):
        values = table[name].to_numpy().astype(np.float32)
        known = values[~np.isnan(values)]
        quantiles = tuple(map(float, np.quantile(known, tenths, method="inverted_cdf")))
        features.append(FeatureReference(name=name, missing_rate=1 - len(known) / ROWS, quantiles=quantiles))
    cities = [city for city in table["city"].to_pylist() if city is not None]
    unknown = cities.count("Atlantis") / len(cities)
    features.append(FeatureReference(name="city", missing_rate=1 - len(cities) / ROWS, unknown_rate=unknown))
    scores = out["pctr"].to_numpy()
    quantiles = tuple(map(float, np.quantile(scores, tenths)))
    return Reference(
        rows=ROWS,
        features=tuple(features),
        scores=(ScoreReference(name="pctr", mean=float(scores.mean()), quantiles=quantiles),),
    )


def test_an_empty_table_has_a_summary(job: Job, tmp_path: Path) -> None:
    write(toy_table(0), tmp_path / "in.parquet")
    summary = run_job(replace(job, input=str(tmp_path / "in.parquet"))).summary
    assert summary["rows"] == 0
    assert summary["scores"]["pctr"]["mean"] is None


def test_tallies_of_parts_are_the_tally_of_the_whole(manifest: Manifest) -> None:
    empty = Tally(manifest).plain()
    json.dumps(empty)
    assert facts(manifest, Tally.of(manifest, [empty, empty])) == facts(manifest, Tally(manifest))


@pytest.fixture
def manifest() -> Manifest:
    return toy_manifest()


def test_bins_keep_order_and_know_their_edges() -> None:
    scores = np.array([0, 1e-12, 2.0**-30, 1e-6, 0.001, 0.4999, 0.5, 0.999, 1], np.float32)
    bins = bins_of(scores)
    assert (np.diff(bins) >= 0).all()
    assert (bins[0], bins[-1]) == (0, BINS - 1)
    assert (lower_edges()[bins] <= scores).all()
    assert (np.append(lower_edges(), 2)[bins + 1] > scores).all()


def test_auc_counts_half_a_tie() -> None:
    assert auc(np.array([1, 0, 1]), np.array([0, 1, 1])) == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    assert auc(np.array([1, 1]), np.array([0, 0])) is None


def test_psi_by_hand() -> None:
    assert psi(np.array([0.5, 0.5]), np.array([0.25, 0.75])) == pytest.approx(
        0.25 * np.log(2) - 0.25 * np.log(0.5 / 0.75)
    )


@pytest.mark.parametrize(
    ("column", "positive", "expected"),
    [
        (pa.array([True, False, None]), None, [1, 0, np.nan]),
        (pa.array([1, 0, 2], pa.int8()), None, [1, 0, np.nan]),
        (pa.array(["buy", "view", None]).dictionary_encode(), ("buy", "cart"), [1, 0, np.nan]),
        (pa.array([3, 4, None]), (4,), [0, 1, np.nan]),
        (pa.array(["x"]), None, [np.nan]),
        (pa.array([[1]]), None, [np.nan]),
    ],
)
def test_labels_are_what_training_takes_for_them(column: pa.Array, positive: Any, expected: list[float]) -> None:
    task = toy_manifest().tasks[0].model_copy(update={"positive": positive})
    np.testing.assert_array_equal(label_of(column, task), expected)
