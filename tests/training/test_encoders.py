"""What is fitted comes from training rows only, and a feature that cannot teach anything stops the run."""

from pathlib import Path
from typing import Any

import mmh3
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from contract.errors import FullfunnelError, MixedTypes, RunInvalid, UselessFeature, ValueMissing
from contract.features import FIRST_ROW, MISSING_ROW, UNKNOWN_ROW, Categorical
from models.inputs import Number
from tests.training import small
from training.encoders import Table, default_row, quantile_edges
from training.split import TEST, TRAIN, VALIDATION

TRAIN_ROWS, OTHER_ROWS = 12, 4  # of each log below: 12 train, 4 validate, 4 test


def fitted(tmp_path: Path, *features: small.Document, **columns: Any) -> small.Prepared:
    """Features of a log of 20 rows."""
    rows = TRAIN_ROWS + 2 * OTHER_ROWS
    log = {"t": list(range(rows)), "click": [0, 1] * (rows // 2), "conversion": [0] * rows, **columns}
    run = small.document(small.write(tmp_path / "log.parquet", log))
    run["features"] = [{"side": "item", **feature} for feature in features]
    run["split"] = {"by": "time", "column": "t", "validation": 0.2, "test": 0.2}
    return small.prepare(run, tmp_path)


def padded(*train: Any, other: Any = None) -> list[Any]:
    """A column of 20 rows: the training values, filled up with the last, then `other`."""
    column = [*train, *[train[-1]] * (TRAIN_ROWS - len(train))]
    return column + [train[0] if other is None else other] * (2 * OTHER_ROWS)


def vocabulary(found: small.Prepared, name: str = "x") -> list[Any]:
    table = found.fitted.tables[name]
    assert table.vocabulary is not None
    values: list[Any] = table.vocabulary.to_pylist()
    assert table.rows == FIRST_ROW + len(values)
    return values


def ids(found: small.Prepared, split: int) -> list[int]:
    """The only feature's table rows."""
    (matrix,) = found.tensors[split].ids.values()
    rows: list[int] = matrix[:, 0].tolist()
    return rows


X = {"kind": "categorical", "name": "x"}


def test_vocabulary_is_ordered_by_count_then_by_first_appearance(tmp_path: Path) -> None:
    column = ["rare", "b", "a", "c", "b", "a", "c", "c", "d", "d", "e", "e"]
    found = fitted(tmp_path, X, x=padded(*column))
    assert vocabulary(found) == ["c", "b", "a", "d", "e"]
    assert ids(found, TRAIN)[:5] == [UNKNOWN_ROW, 3, 4, 2, 3]


@pytest.mark.parametrize(("min_count", "values"), [(1, ["a", "b", "c"]), (3, ["a", "b"]), (4, ["a"])])
def test_value_is_in_the_vocabulary_from_min_count_training_rows_on(
    min_count: int, values: list[str], tmp_path: Path
) -> None:
    column = ["c", "c", "b", "b", "b", *["a"] * 7]
    assert vocabulary(fitted(tmp_path, X | {"min_count": min_count}, x=padded(*column, other="c"))) == values


def test_value_that_only_later_rows_hold_is_unknown(tmp_path: Path) -> None:
    found = fitted(tmp_path, X, x=padded("a", "b", "a", "b", other="new"))
    assert "new" not in vocabulary(found)
    assert ids(found, VALIDATION) == ids(found, TEST) == [UNKNOWN_ROW] * OTHER_ROWS


@pytest.mark.parametrize("kind", ["categorical", "sequence"])
def test_missing_values_are_in_no_vocabulary(kind: str, tmp_path: Path) -> None:
    column: list[Any] = ["", None, "", "a", "a", "b", "b"]
    if kind == "sequence":
        column = [[x, None] for x in column]
    found = fitted(tmp_path, X | {"kind": kind}, x=padded(*column))
    assert sorted(vocabulary(found)) == ["a", "b"]
    assert ids(found, TRAIN)[:3] == [MISSING_ROW] * 3


def test_smallest_int64_is_missing(tmp_path: Path) -> None:
    found = fitted(tmp_path, X, x=padded(-(2**63), -(2**63), None, 5, 5, 6, 6))
    assert sorted(vocabulary(found)) == [5, 6]
    assert ids(found, TRAIN)[:3] == [MISSING_ROW] * 3


def test_tables_of_one_width_follow_one_another(prepared: small.Prepared) -> None:
    tables, rows = prepared.fitted.tables, prepared.fitted.inputs.table_rows
    for dim, names in ((4, ["user_id", "city", "item_id", "brand"]), (2, ["member", "actions", "shop", "position"])):
        end = 0
        for name in names:
            assert tables[name].offset == end
            end += tables[name].rows
        assert rows[dim] == end
    assert tables["brand"].rows == FIRST_ROW + 16


def test_features_that_share_a_table_look_up_the_same_rows(prepared: small.Prepared) -> None:
    offsets = {lookup.name: lookup.offset for lookup in prepared.fitted.inputs.lookups}
    assert offsets["recent"] == offsets["item_id"] == prepared.fitted.tables["item_id"].offset
    assert "recent" not in prepared.fitted.tables


def test_sequences_keep_their_length_and_what_they_run_along(prepared: small.Prepared) -> None:
    found = {lookup.name: (lookup.length, lookup.along) for lookup in prepared.fitted.inputs.lookups}
    assert (found["recent"], found["actions"], found["city"]) == ((3, None), (3, "recent"), (None, None))


def test_hash_is_murmur3_of_the_bytes_that_the_graph_hashes() -> None:
    strings = Table(0, FIRST_ROW + 1000, "string", None).hash_rows(pa.array(["", "a", "ä", "日本"]))
    numbers = Table(0, FIRST_ROW + 1000, "int64", None).hash_rows(pa.array([0, 1, -1, 2**62]))
    assert strings.tolist() == [FIRST_ROW + mmh3.hash(x, 0, signed=False) % 1000 for x in ("", "a", "ä", "日本")]
    little_endian = [x.to_bytes(8, "little", signed=True) for x in (0, 1, -1, 2**62)]
    assert numbers.tolist() == [FIRST_ROW + mmh3.hash(x, 0, signed=False) % 1000 for x in little_endian]


@pytest.mark.parametrize(("default", "row"), [("b", FIRST_ROW + 1), ("z", UNKNOWN_ROW)])
def test_default_is_the_row_of_its_value(default: str, row: int) -> None:
    feature = Categorical(name="x", side="user", missing="default", default=default)
    assert default_row(feature, Table(7, 4, "string", pa.array(["a", "b"]))) == row


@pytest.mark.parametrize(("column", "default"), [(padded(1, 1, 2, 2), "one"), (padded("a", "a", "b", "b"), 1)])
def test_default_of_another_type_than_the_column_is_refused(column: list[Any], default: Any, tmp_path: Path) -> None:
    with pytest.raises(RunInvalid, match="default") as caught:
        fitted(tmp_path, X | {"missing": "default", "default": default}, x=column)
    assert caught.value.place == "feature 'x'"
    assert caught.value.remedy


def test_table_shared_by_columns_of_different_types_is_refused(tmp_path: Path) -> None:
    other = {"kind": "categorical", "name": "y", "share": "x"}
    with pytest.raises(MixedTypes, match="int64") as caught:
        fitted(tmp_path, X, other, x=padded("a", "a", "b", "b"), y=padded(1, 1, 2, 2))
    assert caught.value.place == "feature 'y'"
    assert "dtype" in caught.value.remedy


# ------------------------------------------------------------------ numbers

NUMBER = {"kind": "numeric", "name": "x"}


def number(tmp_path: Path, column: list[Any], **options: Any) -> Number:
    (found,) = fitted(tmp_path, NUMBER | options, x=column).fitted.inputs.numbers
    return found


def test_center_and_spread_are_those_of_present_training_values(tmp_path: Path) -> None:
    train = [1.0, 2.0, 3.0, 10.0, None, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]
    found = number(tmp_path, padded(*train, other=1e6))
    present = np.array([x for x in train if x is not None])
    assert (found.center, found.spread) == pytest.approx((present.mean(), present.std()))
    assert (found.fill, found.indicator, found.edges) == (np.median(present), True, ())


def test_log1p_is_centred_after_the_logarithm(tmp_path: Path) -> None:
    train = np.array([-3.0, 0.0, 1.0, 8.0] * 3)
    found = number(tmp_path, padded(*train.tolist()), scale="log1p")
    logs = np.sign(train) * np.log1p(np.abs(train))
    assert (found.center, found.spread) == pytest.approx((logs.mean(), logs.std()), rel=1e-6)
    assert found.fill == 0.5


def test_missing_number_has_an_indicator_only_where_training_rows_show_one(tmp_path: Path) -> None:
    missing, present = padded(1.0, None, 2.0), padded(1.0, 2.0, 3.0, other=None)
    assert number(tmp_path, missing).indicator
    assert not number(tmp_path, present).indicator
    assert not number(tmp_path, missing, missing="default", default=7.0).indicator


def test_default_fills_what_is_missing(tmp_path: Path) -> None:
    assert number(tmp_path, padded(1.0, None, 2.0), missing="default", default=7.0).fill == 7.0


@pytest.mark.parametrize("scale", ["quantile", "piecewise"])
def test_edges_are_quantiles_of_training_values(scale: str, tmp_path: Path) -> None:
    found = number(tmp_path, padded(*np.arange(12.0).tolist(), other=99.0), scale=scale, bins=4)
    assert found.edges == pytest.approx(np.quantile(np.arange(12.0), [0, 0.25, 0.5, 0.75, 1]))


@given(
    st.lists(st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=200), st.integers(2, 32)
)
def test_edges_ascend_and_span_the_values(values: list[float], bins: int) -> None:
    column = np.array(values, np.float32)
    edges = np.array(quantile_edges(column, bins))
    assert len(edges) >= 2
    assert np.all(np.diff(edges) > 0)
    assert edges[0] == column.min()
    assert edges[-1] >= column.max()


def test_few_values_are_edges_themselves() -> None:
    assert quantile_edges(np.array([3, 1, 1, 2, 3], np.float32), 16) == (1.0, 2.0, 3.0)


def test_value_that_holds_most_rows_is_an_edge_and_leaves_the_bins_to_the_others() -> None:
    values: NDArray[np.float32] = np.concatenate([np.zeros(900), np.arange(1, 101)]).astype(np.float32)
    edges = quantile_edges(values, 10)
    assert edges[0] == 0.0
    assert len(edges) == 12
    inner = np.histogram(values[900:], bins=edges[1:])[0]
    assert inner.min() >= 9


# ------------------------------------------------------------------ refusals


def refused(kind: type[FullfunnelError], tmp_path: Path, feature: small.Document, column: list[Any]) -> str:
    with pytest.raises(kind) as caught:
        fitted(tmp_path, feature, x=column)
    assert type(caught.value) is kind
    assert caught.value.place == "feature 'x'"
    assert caught.value.remedy
    return caught.value.fact


@pytest.mark.parametrize(
    ("feature", "column", "fact"),
    [
        (X, padded("a", other="b"), "the same value in every training row"),
        (X | {"buckets": 4}, padded("a", other="b"), "the same value in every training row"),
        (X | {"missing": "default", "default": "a"}, padded(None, "a"), "the same value in every training row"),
        (X | {"min_count": 9}, padded("a", "b", "c", "d", *"aabbccdd"), "no value occurs 9 times"),
        (X, padded(None, other="b"), "missing in every training row"),
        (X, padded("", other="b"), "missing in every training row"),
        (X | {"kind": "sequence"}, padded([], None, [None], other=["a"]), "missing in every training row"),
        (NUMBER, padded(3.0, other=4.0), "the same value in every training row"),
        (
            NUMBER | {"missing": "default", "default": 3.0},
            padded(3.0, None, 3.0),
            "the same value in every training row",
        ),
        (NUMBER, padded(None, other=4.0), "missing in every training row"),
        (NUMBER, padded(float("nan"), other=4.0), "missing in every training row"),
    ],
)
def test_feature_that_says_nothing_stops_the_run(
    feature: small.Document, column: list[Any], fact: str, tmp_path: Path
) -> None:
    assert refused(UselessFeature, tmp_path, feature, column) == fact


@pytest.mark.parametrize(("feature", "column"), [(X, padded("a", None, "a")), (NUMBER, padded(3.0, None, 3.0))])
def test_being_missing_or_not_may_say_something(feature: small.Document, column: list[Any], tmp_path: Path) -> None:
    fitted(tmp_path, feature, x=column)


@pytest.mark.parametrize(
    ("feature", "values"), [(X, ["a", "b", "a", "b"]), (X, [1, 2, 1, 2]), (NUMBER, [1.0, 2.0, 1.0, 2.0])]
)
def test_missing_value_that_is_to_be_refused_stops_the_run_in_any_split(
    feature: small.Document, values: list[Any], tmp_path: Path
) -> None:
    refuse = feature | {"missing": "refuse"}
    fitted(tmp_path, refuse, x=padded(*values))
    column = padded(*values)
    column[2] = None
    assert "missing in row 2 (train)" in refused(ValueMissing, tmp_path, refuse, column)
    column = padded(*values)
    column[17] = None
    assert "missing in row 17 (test)" in refused(ValueMissing, tmp_path, refuse, column)
