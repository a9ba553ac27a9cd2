"""The manifest and the card say what was trained on what, and where too few rows are positive to say much."""

from pathlib import Path

import numpy as np
import pytest

from contract.manifest import FeatureReference
from contract.tasks import CLICK_AND_CONVERSION
from tests.training import small
from training.facts import LIBRARIES, limits, provenance, reference
from training.run import parse_run
from training.source import open_source
from training.split import VALIDATION


def labels(clicks: int, conversions: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """1,000 rows with so many positives of each task."""
    row = np.arange(1000)
    return np.stack([row < clicks, row < conversions], axis=1).astype(np.uint8)


def test_card_says_where_positives_are_few() -> None:
    found = limits(CLICK_AND_CONVERSION, [labels(900, 300), labels(100, 40), labels(200, 99)])
    assert len(found) == 1
    assert found[0].startswith("conversion: calibrated on 40, measured on 99 positive rows.")


def test_card_keeps_silent_where_positives_abound() -> None:
    assert limits(CLICK_AND_CONVERSION, [labels(900, 100)] * 3) == ()


def references(prepared: small.Prepared) -> dict[str, FeatureReference]:
    scores = {"pctr": np.linspace(0, 1, 11, dtype=np.float32)}
    found = reference(prepared.fitted, prepared.tensors[VALIDATION], scores)
    assert found.rows == len(prepared.tensors[VALIDATION])
    assert found.scores[0].quantiles == pytest.approx(np.linspace(0, 1, 11))
    return {feature.name: feature for feature in found.features}


def test_reference_tells_how_much_is_missing_and_unknown(prepared: small.Prepared) -> None:
    found, rows = references(prepared), prepared.tensors[VALIDATION].row
    assert set(found) == {feature.name for feature in prepared.run.features}
    log = {name: [column.to_pylist()[row] for row in rows] for name, column in small.columns().items()}
    table = prepared.fitted.tables["user_id"].vocabulary
    assert table is not None
    unknown = [user not in table.to_pylist() for user in log["user_id"]]
    assert found["user_id"].unknown_rate == pytest.approx(np.mean(unknown))
    assert 0 < np.mean(unknown) < 1
    assert found["user_id"].missing_rate == 0
    assert found["member"].unknown_rate == 0
    assert found["age"].missing_rate == pytest.approx(np.mean([age is None for age in log["age"]]))
    assert found["rating"].missing_rate > 0
    assert found["price"].missing_rate == 0


def test_reference_tells_the_deciles_of_numbers_and_the_length_of_sequences(prepared: small.Prepared) -> None:
    found, rows = references(prepared), prepared.tensors[VALIDATION].row
    price = np.array(small.columns()["price"].to_pylist(), np.float32)[rows]
    assert found["price"].quantiles == pytest.approx(np.quantile(price, np.linspace(0, 1, 11)))
    recent = [[x for x in steps if x][-3:] for steps in small.columns()["recent"].to_pylist()]
    lengths = np.array([len(steps) for steps in recent])[rows]
    assert found["recent"].mean_length == pytest.approx(lengths.mean())
    assert found["recent"].missing_rate == pytest.approx((lengths == 0).mean())
    assert found["item_id"].mean_length is None
    assert found["item_id"].quantiles is None


def test_provenance_holds_the_run_from_which_it_can_be_repeated(
    prepared: small.Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = provenance(prepared.run, prepared.log.sources)
    assert parse_run(found.run) == prepared.run
    assert found.seed == prepared.run.seed
    assert set(found.libraries) == set(LIBRARIES)
    assert found.git_commit is None  # no repository here


def test_other_data_have_another_fingerprint(prepared: small.Prepared, tmp_path: Path) -> None:
    one = provenance(prepared.run, prepared.log.sources)
    changed = open_source(str(small.write(tmp_path / "log.parquet", small.columns(seed=1))))
    assert provenance(prepared.run, prepared.log.sources) == one
    assert provenance(prepared.run, (changed,)).data_fingerprint != one.data_fingerprint
