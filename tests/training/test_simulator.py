import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from contract.errors import RunInvalid, TargetExists, TargetUnwritable
from training.simulator import LOG, TRUTH, log, simulate
from training.simulator.table import LOG_SCHEMA, START_MS, TRUTH_SCHEMA

ROWS, DAYS = 40_000, 14
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("simulated")
    simulate(directory, rows=ROWS, seed=7, days=DAYS)
    return directory


@pytest.fixture(scope="module")
def impressions(directory: Path) -> pa.Table:
    return pq.read_table(directory / LOG)


@pytest.fixture(scope="module")
def truth(directory: Path) -> pa.Table:
    return pq.read_table(directory / TRUTH)


def column(table: pa.Table, name: str) -> NDArray[Any]:
    values: NDArray[Any] = table[name].to_numpy()
    return values


def days_of(table: pa.Table) -> NDArray[np.int64]:
    days: NDArray[np.int64] = (table["timestamp"].cast("int64").to_numpy() - START_MS) // DAY_MS
    return days


def both_files(directory: Path) -> tuple[bytes, bytes]:
    return (directory / LOG).read_bytes(), (directory / TRUTH).read_bytes()


def test_files_have_the_documented_columns_and_exactly_the_rows_asked_for(
    impressions: pa.Table, truth: pa.Table
) -> None:
    assert impressions.schema.equals(LOG_SCHEMA)
    assert truth.schema.equals(TRUTH_SCHEMA)
    assert impressions.num_rows == truth.num_rows == ROWS


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_log(tmp_path: Path) -> None:
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        simulate(tmp_path / name, rows=2000, seed=seed, days=1)
    assert both_files(tmp_path / "first") == both_files(tmp_path / "again")
    assert both_files(tmp_path / "first") != both_files(tmp_path / "other")


def test_rows_do_not_depend_on_the_size_of_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(tmp_path / "large", rows=2000, seed=3, days=1)
    monkeypatch.setattr(log, "MAX_ROW_GROUP", 100)
    simulate(tmp_path / "small", rows=2000, seed=3, days=1)
    assert (
        pq.ParquetFile(tmp_path / "small" / LOG).num_row_groups
        > pq.ParquetFile(tmp_path / "large" / LOG).num_row_groups
    )
    for name in (LOG, TRUTH):
        assert pq.read_table(tmp_path / "small" / name).equals(pq.read_table(tmp_path / "large" / name))


def test_row_groups_end_with_the_day(directory: Path) -> None:
    file = pq.ParquetFile(directory / LOG)
    groups = [set(days_of(file.read_row_group(index, ["timestamp"])).tolist()) for index in range(file.num_row_groups)]
    assert groups == [{day} for day in range(DAYS)]


def test_rows_are_in_time_order_and_count_up(impressions: pa.Table) -> None:
    assert (np.diff(impressions["timestamp"].cast("int64").to_numpy()) >= 0).all()
    assert (column(impressions, "impression_id") == np.arange(ROWS)).all()
    hours = impressions["timestamp"].cast("int64").to_numpy() // 3_600_000
    assert (column(impressions, "hour") == hours % 24).all()
    assert (column(impressions, "weekday") == days_of(impressions) % 7).all()


def test_a_page_shows_positions_one_after_another_and_no_item_twice(impressions: pa.Table) -> None:
    request, position = column(impressions, "request_id"), column(impressions, "position")
    follows = np.diff(request) == 0
    assert position[0] == 1
    assert (np.where(follows, position[:-1] + 1, 1) == position[1:]).all()
    pairs = impressions.group_by(["request_id", "item_id"]).aggregate([]).num_rows
    assert pairs == ROWS


def test_a_page_has_one_user_one_time_and_one_length_of_history(impressions: pa.Table) -> None:
    flat = impressions.append_column("length", pc.list_value_length(impressions["recent_items"]))
    names = ["user_id", "timestamp", "scene", "length"]
    counts = flat.group_by("request_id").aggregate([(name, "count_distinct") for name in names])
    assert all(set(counts[f"{name}_count_distinct"].to_pylist()) == {1} for name in names)


def test_rates_are_those_of_real_funnels(impressions: pa.Table, truth: pa.Table) -> None:
    click, conversion = column(impressions, "click"), column(impressions, "conversion")
    assert 0.03 < click.mean() < 0.05
    assert 0.055 < conversion.sum() / click.sum() < 0.12
    assert column(truth, "true_pctr").mean() == pytest.approx(click.mean(), rel=0.1)
    assert column(truth, "true_pcvr").mean() == pytest.approx(column(truth, "would_convert").mean(), rel=0.1)


def test_conversion_is_the_click_times_what_a_click_would_have_brought(impressions: pa.Table, truth: pa.Table) -> None:
    assert (column(truth, "impression_id") == column(impressions, "impression_id")).all()
    product = column(impressions, "click") * column(truth, "would_convert")
    assert (column(impressions, "conversion") == product).all()
    assert set(np.unique(column(impressions, "click"))) == set(np.unique(column(truth, "would_convert"))) == {0, 1}


def test_clicked_rows_are_a_biased_sample_of_conversion(impressions: pa.Table, truth: pa.Table) -> None:
    click, pcvr = column(impressions, "click"), column(truth, "true_pcvr")
    assert pcvr[click == 1].mean() > 1.5 * pcvr.mean()


def test_click_and_would_be_conversion_are_independent_given_the_truth(truth: pa.Table, impressions: pa.Table) -> None:
    """No hidden confounder: on clicked rows, as many convert as their true pCVR says."""
    pcvr = column(truth, "true_pcvr")[column(impressions, "click") == 1].astype(np.float64)
    deviation = np.sqrt((pcvr * (1 - pcvr)).sum())
    assert abs(column(impressions, "conversion").sum() - pcvr.sum()) < 4 * deviation


def test_labels_can_be_predicted_but_not_trivially(impressions: pa.Table, truth: pa.Table) -> None:
    assert 0.74 < roc_auc_score(column(impressions, "click"), column(truth, "true_pctr")) < 0.84
    assert 0.76 < roc_auc_score(column(truth, "would_convert"), column(truth, "true_pcvr")) < 0.88


@pytest.mark.parametrize("name", ["user_id", "item_id"])
def test_ids_unknown_to_the_first_days_become_more_frequent(impressions: pa.Table, name: str) -> None:
    ids, day = impressions[name].to_numpy(), days_of(impressions)
    unknown = ~np.isin(ids.astype(str), np.unique(ids[day < 5].astype(str)))
    early, late = unknown[(day >= 5) & (day < 8)].mean(), unknown[day >= 11].mean()
    assert 0 < early < late < 0.5


@pytest.mark.parametrize("name", ["user_id", "item_id", "brand", "shop"])
def test_ids_have_a_long_tail(impressions: pa.Table, name: str) -> None:
    counts = np.sort(impressions[name].value_counts().field("counts").to_numpy())[::-1]
    assert counts[: len(counts) // 10].sum() > 0.3 * ROWS
    assert np.median(counts) < 0.7 * counts.mean()


def test_sequences_run_parallel_and_name_the_categories_of_their_items(impressions: pa.Table) -> None:
    items, categories, actions = (
        impressions[name].combine_chunks() for name in ("recent_items", "recent_categories", "recent_actions")
    )
    lengths = np.diff(items.offsets.to_numpy())
    assert lengths.min() == 0 and lengths.max() == 20
    assert items.offsets.equals(categories.offsets) and items.offsets.equals(actions.offsets)
    assert set(actions.values.unique().to_pylist()) == {"view", "cart", "buy"}
    logged = impressions.select(["item_id", "category"]).group_by(["item_id", "category"]).aggregate([])
    category_of = dict(zip(logged["item_id"].to_pylist(), logged["category"].to_pylist(), strict=True))
    recent = (
        pa.table({"item": items.values, "category": categories.values}).group_by(["item", "category"]).aggregate([])
    )
    assert all(category_of.get(row["item"], row["category"]) == row["category"] for row in recent.to_pylist())


def test_recent_items_hold_the_clicks_of_earlier_hours_and_no_later_ones(impressions: pa.Table) -> None:
    busiest = max(impressions["user_id"].value_counts().to_pylist(), key=lambda pair: pair["counts"])["values"]
    mine = impressions.select(["user_id", "timestamp", "item_id", "recent_items", "click"])
    rows = mine.filter(pc.field("user_id") == busiest).to_pylist()
    at_start = rows[0]["recent_items"]
    assert sum(row["click"] for row in rows) > 3
    for row in rows:
        hour = row["timestamp"].replace(minute=0, second=0, microsecond=0)
        clicked = [before["item_id"] for before in rows if before["click"] and before["timestamp"] < hour]
        assert row["recent_items"] == (at_start + clicked)[-20:]


def test_counters_hold_the_seven_days_before_midnight(impressions: pa.Table) -> None:
    day, click = days_of(impressions), column(impressions, "click")
    top = impressions["item_id"].value_counts().to_pylist()
    item = max(top, key=lambda pair: pair["counts"])["values"]
    mine = impressions["item_id"].to_numpy() == item
    for today in range(7, DAYS):
        window = mine & (day >= today - 7) & (day < today)
        shown = mine & (day == today)
        assert set(column(impressions, "item_impressions_7d")[shown]) == {window.sum()}
        expected = (click[window].sum() + 1) / (window.sum() + 25)
        assert column(impressions, "item_ctr_7d")[shown] == pytest.approx(expected, rel=1e-6)


def test_some_values_are_missing_and_none_of_the_others(impressions: pa.Table) -> None:
    missing = {name: impressions[name].null_count / ROWS for name in impressions.column_names}
    may_be = {"city", "age", "gender", "price", "item_ctr_7d"}
    assert {name for name, rate in missing.items() if rate > 0} == may_be
    assert all(rate < 0.3 for rate in missing.values())
    for name in ("age", "price", "item_ctr_7d", "spend_90d", "days_since_signup", "item_age_days"):
        assert np.isfinite(impressions[name].drop_null().to_numpy()).all()
    assert (impressions["spend_90d"].to_numpy() == 0).mean() > 0.3


@pytest.mark.parametrize("rows", [1, 300])
def test_a_handful_of_rows_is_a_log_too(tmp_path: Path, rows: int) -> None:
    simulate(tmp_path, rows=rows, days=1)
    assert pq.read_table(tmp_path / LOG).num_rows == rows


def test_progress_is_told_the_rows_made_so_far(tmp_path: Path) -> None:
    told: list[int] = []
    simulate(tmp_path, rows=500, days=1, on_progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 500


@pytest.mark.parametrize("name", [LOG, TRUTH])
def test_an_existing_file_is_never_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(TargetExists, match=name):
        simulate(tmp_path, rows=10, days=1)
    assert (tmp_path / name).read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_interruption_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path, rows=100, days=1, on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(TargetUnwritable, match="taken"):
        simulate(tmp_path / "taken" / "deeper", rows=10, days=1)


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"days": 0}, {"seed": -1}])
def test_impossible_sizes_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(RunInvalid, match=f"{next(iter(wrong))} = "):
        simulate(tmp_path, rows=wrong.get("rows", 10), days=wrong.get("days", 1), seed=wrong.get("seed", 0))


def test_simulating_does_not_import_torch() -> None:
    code = "import sys, training.simulator; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
