"""Scored rows come with their own groups, slices, weights and truth, and a wrong truth is found before training."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import ColumnMissing, DataInvalid, FullfunnelError, RunInvalid, SourceMissing
from models.ranker import Ranker
from tests.training import small
from training.calibration import identity, probabilities
from training.evaluation import evaluate
from training.held_out import HeldOut, extra_columns, extra_values, open_truth, row_weight, score_rows
from training.loop import predict_logits
from training.run import parse_run
from training.split import TEST

IDS = [f"r{i}" for i in range(small.ROWS)]


@pytest.fixture
def keys(tmp_path: Path) -> small.Document:
    """A run on two features, whose log has an `id`, and whose truth lies beside it in another order."""
    run = small.document(small.write(tmp_path / "log.parquet", small.columns() | {"id": pa.array(IDS)}))
    run["features"] = [small.feature(run, "item_id"), small.feature(run, "price")]
    order = np.random.default_rng(0).permutation(small.ROWS)
    truth = {"id": [IDS[i] for i in order], "p": order / small.ROWS, "q": 1 - order / small.ROWS}
    pq.write_table(pa.table(truth), tmp_path / "truth.parquet", row_group_size=100)
    run["evaluation"] |= {
        "group": "city",
        "slices": ["city", "shop", "age"],
        "truth": {"path": str(tmp_path / "truth.parquet"), "key": "id", "columns": {"pctr": "p", "pcvr": "q"}},
    }
    return run


def held_out(keys: small.Document, directory: Path) -> tuple[small.Prepared, HeldOut]:
    found = small.prepare(keys, directory)
    ranker = Ranker(found.fitted.inputs, found.run.model, 2)
    return found, score_rows(found.run, ranker, identity(found.run.tasks), found.tensors[TEST], found.staged)


def column(name: str, rows: Any) -> list[Any]:
    values = small.columns()[name].to_pylist()
    return [values[row] for row in rows]


def test_every_array_has_the_values_of_the_rows(keys: small.Document, tmp_path: Path) -> None:
    found, scored = held_out(keys, tmp_path)
    rows = found.tensors[TEST].row
    assert np.array_equal(scored.labels, found.tensors[TEST].labels)
    assert scored.slices["city"].tolist() == column("city", rows)
    shops = [None if np.isnan(x) else x for x in scored.slices["shop"]]
    assert shops == column("shop", rows)
    assert scored.truth is not None
    assert np.allclose(scored.truth["pctr"], rows / small.ROWS)
    assert np.allclose(scored.truth["pcvr"], 1 - rows / small.ROWS)


def test_scores_are_those_of_the_network(keys: small.Document, tmp_path: Path) -> None:
    found = small.prepare(keys, tmp_path)
    ranker, calibration = Ranker(found.fitted.inputs, found.run.model, 2), identity(found.run.tasks)
    scored = score_rows(found.run, ranker, calibration, found.tensors[TEST], found.staged)
    expected = probabilities(found.run.tasks, predict_logits(ranker, found.tensors[TEST]), calibration)
    assert list(scored.scores) == ["pctr", "pcvr", "pctcvr"]
    assert all(np.array_equal(scored.scores[name], expected[name]) for name in expected)


def test_rows_of_one_value_are_one_group_and_those_without_are_another(keys: small.Document, tmp_path: Path) -> None:
    found, scored = held_out(keys, tmp_path)
    assert scored.group is not None
    cities = np.array([str(x) for x in column("city", found.tensors[TEST].row)])
    assert "None" in cities
    pairs = set(zip(cities.tolist(), scored.group.tolist(), strict=True))
    assert len(pairs) == len(set(cities)) == len(set(scored.group.tolist()))
    metrics = evaluate(found.run.tasks, scored.scores, scored.labels, group=scored.group, resamples=10)
    assert "gauc" in {metric.name for metric in metrics}


def test_columns_that_evaluation_needs_are_staged_beside_the_features(keys: small.Document) -> None:
    assert extra_columns(parse_run(keys)) == ["city", "city", "shop", "age", "id"]
    del keys["evaluation"]
    assert extra_columns(parse_run(keys)) == []


def test_run_without_group_and_truth_has_none(keys: small.Document, tmp_path: Path) -> None:
    keys["evaluation"] = {}
    _, scored = held_out(keys, tmp_path)
    assert (scored.group, scored.truth, scored.slices) == (None, None, {})


def test_row_of_a_thinned_log_stands_for_those_that_were_dropped(keys: small.Document, tmp_path: Path) -> None:
    keys["data"]["negative_rate"] = 0.25
    found = small.prepare(keys, tmp_path)
    weight = row_weight(found.run, found.tensors[TEST])
    assert np.array_equal(weight, np.where(found.tensors[TEST].labels[:, 0] == 1, 1.0, 4.0))


def test_values_of_an_extra_column_keep_their_type(keys: small.Document, tmp_path: Path) -> None:
    found = small.prepare(keys, tmp_path)
    ages = extra_values(found.staged, "age", found.tensors[TEST])
    assert ages.type == pa.float32()
    assert ages.to_pylist() == column("age", found.tensors[TEST].row)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"columns": {"pctvr": "p"}}, RunInvalid, "'pctvr' is no output"),
        ({"columns": {"pctr": "prob"}}, ColumnMissing, "no column 'prob'"),
        ({"key": "ids"}, ColumnMissing, "did you mean 'id'"),
        ({"path": "nowhere.parquet"}, SourceMissing, "no such file"),
    ],
)
def test_wrong_truth_is_found_without_reading_the_log(
    change: small.Document, kind: type[FullfunnelError], words: str, keys: small.Document
) -> None:
    keys["evaluation"]["truth"] |= change
    with pytest.raises(kind, match=words) as caught:
        open_truth(parse_run(keys))
    assert caught.value.place
    assert caught.value.remedy


def test_test_rows_without_a_truth_are_counted(keys: small.Document, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": IDS[:-3], "p": [0.5] * 797, "q": [0.5] * 797}), tmp_path / "truth.parquet")
    with pytest.raises(DataInvalid, match="3 test rows have no truth"):
        held_out(keys, tmp_path)
