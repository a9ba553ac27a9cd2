"""Counts of shards, and what they add up to."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from contract.bundle import FeatureReference, Manifest, Reference
from service.batch.formats.codec import Chunk
from service.batch.scoring import Scored, TableScorer
from service.batch.tally import (
    BINS,
    EPSILON,
    SAMPLED,
    STEPS,
    Tally,
    bins_of,
    edges_of,
    label_of,
    lower_edges,
    measured_rows,
)
from service.scoring.scorer import Scorer
from tests.service.batch.tables import toy_table
from tests.service.toy_bundle import toy_manifest

ROWS = 120
TENTHS = tuple(float(tenth) for tenth in range(11))


@pytest.fixture
def manifest() -> Manifest:
    """With quantiles of a number of each side, some of them equal."""
    numbers = (
        FeatureReference(name="price", missing_rate=0, quantiles=(0, 10, 10, 20, 20)),
        FeatureReference(name="age", missing_rate=0, quantiles=(0, 30, 60, 90)),
        FeatureReference(name="category", missing_rate=0, quantiles=TENTHS),
        FeatureReference(name="city", missing_rate=0, unknown_rate=0),
    )
    return toy_manifest(reference=Reference(rows=6, features=numbers))


def _scored(scorer: Scorer, table: pa.Table, refused: Sequence[int] = ()) -> Scored:
    batch = pa.RecordBatch.from_pydict({name: table[name].combine_chunks() for name in table.column_names})
    (found,) = TableScorer(scorer).stream([Chunk(batch, dict.fromkeys(refused, "unreadable"))])
    return found


def _tally(manifest: Manifest, *chunks: Scored) -> Tally:
    tally = Tally(manifest)
    for chunk in chunks:
        tally.add(chunk)
    return tally


def _with(table: pa.Table, **columns: list[Any]) -> pa.Table:
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(values, table.schema.field(name).type))
    return table


def _counts(tally: Tally) -> dict[str, Any]:
    """All that are whole numbers."""
    plain = tally.plain()
    return {name: plain[name] for name in ("rows", "features", "numbers", "scores", "labels")}


# ---------------------------------------------------------------- addition


@pytest.mark.parametrize("cuts", [[1], [60], [119], [0], [10, 10, 90]], ids=str)
def test_counts_of_shards_and_of_chunks_add_up_to_those_of_one(
    scorer: Scorer, manifest: Manifest, cuts: list[int]
) -> None:
    table = toy_table(ROWS, 1, users=9, in_order=False)
    whole = _tally(manifest, _scored(scorer, table))
    edges = [0, *cuts, ROWS]
    parts = [table.slice(start, stop - start) for start, stop in pairwise(edges)]
    chunks = [_scored(scorer, part) for part in parts]
    total = Tally.of(manifest, [_tally(manifest, chunk).plain() for chunk in chunks])
    assert _counts(total) == _counts(whole)
    assert set(whole.labels) == {"pctr", "pcvr", "pctcvr"}
    one = _tally(manifest, *chunks)
    one.numbers = whole.numbers  # which are not counted in each chunk
    assert _counts(one) == _counts(whole)
    for found in (total, one):
        assert found.sums == pytest.approx(whole.sums)
        assert {name: pytest.approx(value) for name, value in whole.losses.items()} == found.losses


def test_what_json_held_is_the_same_tally(scorer: Scorer, manifest: Manifest) -> None:
    plain = _tally(manifest, _scored(scorer, toy_table(ROWS, 2))).plain()
    assert Tally.of(manifest, [json.loads(json.dumps(plain))]).plain() == plain


def test_what_cannot_be_told_in_the_parts_cannot_be_told_of_the_sum(scorer: Scorer, manifest: Manifest) -> None:
    plain = _tally(manifest, *[_scored(scorer, toy_table(9, seed)) for seed in range(3)]).plain()
    total = Tally.of(manifest, [plain, plain])
    assert (plain["features"]["age"][2], total.features["age"][2]) == (-1, -1)
    assert total.features["city"].tolist() == [2 * count for count in plain["features"]["city"]]


def test_of_nothing_the_sum_is_nothing(manifest: Manifest) -> None:
    assert Tally.of(manifest, []).plain() == Tally(manifest).plain()


def test_an_empty_chunk_counts_nothing(scorer: Scorer, manifest: Manifest) -> None:
    tally = _tally(manifest, _scored(scorer, toy_table(0)))
    assert (tally.rows, tally.scored) == (0, 0)
    assert sum(counts.sum() for counts in (*tally.scores.values(), *tally.numbers.values())) == 0
    assert set(tally.sums.values()) == {0.0}


def test_refused_rows_are_counted_as_rows_but_have_no_scores_and_no_labels(scorer: Scorer, manifest: Manifest) -> None:
    table = _with(toy_table(10, 3), click=[1, *[0] * 8, 1], conversion=[1, *[0] * 9])
    tally = _tally(manifest, _scored(scorer, table, refused=[0, 4]))
    assert (tally.rows, tally.scored) == (10, 8)
    assert {int(counts.sum()) for counts in tally.scores.values()} == {8}
    assert {name: rows.sum(axis=1).tolist() for name, rows in tally.labels.items()} == {
        "pctr": [7, 1],
        "pcvr": [1, 0],
        "pctcvr": [8, 0],
    }


# ---------------------------------------------------------------- numbers


def test_numbers_fall_in_the_bin_up_to_its_upper_edge_and_missing_ones_are_last(
    scorer: Scorer, manifest: Manifest
) -> None:
    table = _with(toy_table(6, 4), price=[-5.0, 10.0, 10.5, 20.0, 1e9, None], age=[30.0, 30.0, 31.0, 31.0, 31.0, None])
    tally = _tally(manifest, _scored(scorer, table))
    assert {name: counts.tolist() for name, counts in tally.numbers.items()} == {
        "price": [2, 3, 1],
        "age": [2, 3, 0, 1],
    }


def test_numbers_of_the_first_of_each_few_chunks_are_counted(scorer: Scorer, manifest: Manifest) -> None:
    chunks = [_scored(scorer, toy_table(rows, rows)) for rows in range(1, SAMPLED + 3)]
    tally = _tally(manifest, *chunks)
    assert tally.rows == sum(range(1, SAMPLED + 3))
    assert {name: int(counts.sum()) for name, counts in tally.numbers.items()} == dict.fromkeys(
        ("price", "age"), 1 + SAMPLED + 1
    )


def test_only_numbers_with_quantiles_have_edges_each_once(manifest: Manifest) -> None:
    assert {name: edges.tolist() for name, edges in edges_of(manifest).items()} == {
        "price": [10, 20],
        "age": [30, 60, 90],
    }
    assert edges_of(toy_manifest()) == {}


# ---------------------------------------------------------------- bins of scores


@pytest.mark.parametrize(
    ("score", "place"),
    [
        (0.0, 0),
        (np.nextafter(np.float32(2.0**-30), np.float32(0)), 0),
        (2.0**-30, 1),
        (np.nextafter(np.float32(0.5), np.float32(0)), BINS - 2 - STEPS),
        (0.5, BINS - 1 - STEPS),
        (np.nextafter(np.float32(1), np.float32(0)), BINS - 2),
        (1.0, BINS - 1),
    ],
)
def test_a_score_at_the_edge_of_a_bin_is_in_the_bin_above(score: float, place: int) -> None:
    assert bins_of(np.array([score], np.float32)).tolist() == [place]


def test_each_bin_begins_with_its_edge_and_is_a_twohundredfiftysixth_wide_at_most() -> None:
    edges = lower_edges()
    assert edges[0] == 0
    assert bins_of(edges.astype(np.float32)).tolist() == list(range(BINS))
    assert (edges[2:] / edges[1:-1] <= 1 + 1 / STEPS).all()


# ---------------------------------------------------------------- labels


def test_a_certain_score_that_is_wrong_costs_much_but_not_everything(scorer: Scorer, manifest: Manifest) -> None:
    scored = _scored(scorer, _with(toy_table(4, 5), click=[1, 1, 1, 0], conversion=[0, 0, 0, 0]))
    certain = {**scored.scores, "pctr": np.array([0, 1, 1, 0], np.float32)}
    tally = _tally(manifest, replace(scored, scores=certain))
    assert tally.losses["pctr"] == [pytest.approx(-np.log(EPSILON) - 3 * np.log1p(-EPSILON)), 2.0]
    assert tally.labels["pctr"][:, [0, BINS - 1]].tolist() == [[1, 0], [1, 2]]


def test_without_a_column_of_labels_an_output_is_not_measured(scorer: Scorer, manifest: Manifest) -> None:
    table = toy_table(20, 6)
    assert set(_tally(manifest, _scored(scorer, table.drop_columns(["click"]))).labels) == {"pctcvr"}
    assert set(_tally(manifest, _scored(scorer, table.drop_columns(["conversion"]))).labels) == {"pctr"}
    assert _tally(manifest, _scored(scorer, table.drop_columns(["click", "conversion"]))).losses == {}


NAN = np.nan
LABELS = {"click": [1, 0, NAN, 1, 0], "conversion": [0, 1, 1, NAN, NAN]}


@pytest.mark.parametrize(
    ("output", "known", "rows"),
    [
        ("pctr", ("click", "conversion"), [1, 1, 0, 1, 1]),
        ("pcvr", ("click", "conversion"), [1, 0, 0, 0, 0]),
        ("pctcvr", ("click", "conversion"), [1, 1, 1, 0, 0]),
        ("pctcvr", ("conversion",), [1, 1, 1, 0, 0]),
        ("pcvr", ("conversion",), None),
        ("pcvr", ("click",), None),
        ("pctcvr", ("click",), None),
    ],
)
def test_an_output_is_measured_where_its_label_is_known_and_a_conditional_one_where_its_condition_held(
    manifest: Manifest, output: str, known: tuple[str, ...], rows: list[int] | None
) -> None:
    (entry,) = (one for one in manifest.outputs if one.name == output)
    found = measured_rows(entry, manifest.tasks, {name: np.array(LABELS[name]) for name in known})
    assert (None if found is None else found.astype(int).tolist()) == rows


@pytest.mark.parametrize(
    ("column", "positive", "expected"),
    [
        (pa.array(["1", "0", None]), None, [1, 0, NAN]),
        (pa.array([0.5, 1.0, -0.0, NAN]), None, [NAN, 1, 0, NAN]),
        (pa.array(["1", None, "2"]), (1,), [1, NAN, 0]),
        (pa.array([True, False, None]), (1,), [1, 0, NAN]),
        (pa.array([1, 2], pa.int8()), ("buy",), [NAN, NAN]),
        (pa.nulls(2), None, [NAN, NAN]),
        (pa.nulls(2), ("buy",), [NAN, NAN]),
        (pa.array([], pa.int8()), None, []),
    ],
)
def test_labels_that_are_kept_in_other_types_are_read_and_those_in_no_sense_are_none(
    manifest: Manifest, column: pa.Array, positive: tuple[int | str, ...] | None, expected: list[float]
) -> None:
    task = manifest.tasks[0].model_copy(update={"positive": positive})
    np.testing.assert_array_equal(label_of(column, task), expected)
