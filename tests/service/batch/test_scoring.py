"""Record batches in, tables with scores out: the same however the batches and the runs of the graph are cut."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from contract.errors import ScoreInvalid
from service.batch import arrays, scoring
from service.batch.arrays import Arrays
from service.batch.formats.codec import Chunk
from service.batch.scoring import Scored, TableScorer
from service.scoring.scorer import Feeds, Scorer
from tests.service.batch.tables import SCHEMA, assert_scored, toy_table

OUTPUTS = ["pctr", "pcvr", "pctcvr"]


def batch_of(table: pa.Table) -> pa.RecordBatch:
    (batch,) = table.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], table.schema)]
    return batch


def scored(scorer: Scorer, table: pa.Table, keep: tuple[str, ...] = (), **refused: str) -> Scored:
    """What becomes of one chunk; `refused` are rows by `row_N`."""
    reasons = {int(name.removeprefix("row_")): why for name, why in refused.items()}
    (found,) = TableScorer(scorer, keep).stream([Chunk(batch_of(table), reasons)])
    return found


def replaced(table: pa.Table, name: str, values: dict[int, Any]) -> pa.Table:
    rows = [row | ({name: values[number]} if number in values else {}) for number, row in enumerate(table.to_pylist())]
    return pa.Table.from_pylist(rows, table.schema)


def as_table(found: list[Scored]) -> pa.Table:
    return pa.Table.from_batches([one.table for one in found])


# ---------------------------------------------------------------- rows


def test_chunks_are_scored_one_after_the_other_as_they_are_asked_for(scorer: Scorer) -> None:
    table = toy_table(90, 1, users=9)
    taken: list[int] = []

    def chunks() -> Iterator[Chunk]:
        for start in (0, 30, 60):
            taken.append(start)
            yield Chunk(batch_of(table.slice(start, 30)))

    stream = TableScorer(scorer, ("row_id",)).stream(chunks())
    assert not taken
    found = [next(stream)]
    assert taken == [0]
    found += stream
    assert as_table(found)["row_id"].to_pylist() == list(range(90))
    assert_scored(as_table(found), scorer, table)
    assert [one.source.num_rows for one in found] == [30, 30, 30]


def test_an_empty_batch_is_an_empty_table_of_the_same_columns(scorer: Scorer) -> None:
    found, other = scored(scorer, toy_table(0), ("row_id", "tags")), scored(scorer, toy_table(3), ("row_id", "tags"))
    assert found.table.schema == other.table.schema
    assert found.table.schema.names == ["row_id", "tags", *OUTPUTS]
    assert (found.table.num_rows, found.refused, found.source.num_rows) == (0, {}, 0)
    assert {name: len(values) for name, values in found.scores.items()} == dict.fromkeys(OUTPUTS, 0)


def test_what_is_kept_is_cast_to_the_schema_that_is_written(scorer: Scorer) -> None:
    table = toy_table(9, 2).append_column("word", pa.array(["a", None, "b"] * 3).dictionary_encode())
    fields = [("word", pa.string()), ("row_id", pa.int64()), *((name, pa.float32()) for name in OUTPUTS)]
    (found,) = TableScorer(scorer, ["word", "row_id"], pa.schema(fields)).stream([Chunk(batch_of(table))])
    assert found.table.schema == pa.schema(fields)
    assert found.table["word"].to_pylist() == ["a", None, "b"] * 3
    assert found.table["row_id"].to_pylist() == list(range(9))


def test_a_score_that_is_none_ends_the_stream(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(feeds: Feeds) -> Any:
        raise ScoreInvalid("is no probability")

    monkeypatch.setattr(scorer, "run", run)
    with pytest.raises(ScoreInvalid):
        list(TableScorer(scorer).stream([Chunk(batch_of(toy_table(3)))]))


# ---------------------------------------------------------------- refused rows


def test_refused_rows_are_left_out_of_everything_that_goes_out(scorer: Scorer) -> None:
    table = replaced(toy_table(40, 3), "price", {5: float("inf"), 39: float("-inf")})
    found = scored(scorer, table, ("row_id",), row_0="unreadable", row_7="unreadable")
    assert list(found.refused) == [0, 5, 7, 39]
    assert found.ready.refused is not None and np.flatnonzero(found.ready.refused).tolist() == [0, 5, 7, 39]
    left = table.filter(pa.array([row not in found.refused for row in range(40)]))
    assert found.table["row_id"].to_pylist() == left["row_id"].to_pylist()
    assert_scored(found.table, scorer, left)
    assert {len(values) for values in found.scores.values()} == {36}
    assert found.source.num_rows == 40


def test_a_row_that_could_not_be_read_keeps_that_reason(scorer: Scorer) -> None:
    table = replaced(toy_table(4), "price", {1: float("inf"), 2: float("inf")})
    found = scored(scorer, table, row_2="2 fields where the header has 10")
    assert found.refused[2] == "2 fields where the header has 10"
    assert found.refused[1].startswith("price: must be a finite number")


def test_where_every_row_is_refused_nothing_is_left(scorer: Scorer) -> None:
    table = replaced(toy_table(3), "item_id", dict.fromkeys(range(3)))
    found = scored(scorer, table, ("row_id",))
    assert list(found.refused) == [0, 1, 2]
    assert (found.table.num_rows, found.table.schema.names) == (0, ["row_id", *OUTPUTS])


def test_where_none_is_refused_none_is_told(scorer: Scorer) -> None:
    found = scored(scorer, toy_table(20, 4))
    assert (found.refused, found.ready.refused) == ({}, None)


# ---------------------------------------------------------------- runs


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("rows", [1, 7, 64, 65, 200])
def test_many_runs_give_the_scores_of_one(
    scorer: Scorer, in_order: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = toy_table(200, 5, users=50, in_order=in_order)
    whole = scored(scorer, table)
    monkeypatch.setattr(scoring, "RUN_ROWS", rows)
    found = scored(scorer, table)
    for name in OUTPUTS:
        np.testing.assert_allclose(found.scores[name], whole.scores[name], rtol=0, atol=1e-6)
    assert_scored(found.table, scorer, table)


@pytest.mark.parametrize(("rows", "sizes"), [(0, [0]), (1, [1]), (4, [4]), (5, [4, 1]), (8, [4, 4])])
def test_a_run_is_full_or_the_last(
    scorer: Scorer, rows: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "RUN_ROWS", 4)
    feeds = Arrays(scorer).read(batch_of(toy_table(rows, 6))).feeds
    parts = list(TableScorer(scorer).parts(feeds))
    assert [len(part["row_user"]) for part in parts] == sizes
    assert [len(part["item_id"]) for part in parts] == sizes


def test_a_real_chunk_is_cut_in_runs_of_which_each_stays_small(scorer: Scorer) -> None:
    table = toy_table(scoring.RUN_ROWS + 1, 7)
    feeds = Arrays(scorer).read(batch_of(table)).feeds
    assert [len(part["row_user"]) for part in TableScorer(scorer).parts(feeds)] == [scoring.RUN_ROWS, 1]
    assert_scored(scored(scorer, table).table, scorer, table)


@pytest.mark.parametrize(
    ("row_user", "users"),
    [
        ([0, 0, 0, 0], [0]),
        ([2, 2, 3, 5], [2, 3, 4, 5]),  # close together: a slice, with one that is not needed
        ([2, 5, 3, 2], [2, 3, 4, 5]),
        ([0, 4, 0, 4], [0, 4]),  # one beyond what a slice of as many users as rows holds
        ([9, 1, 1, 5], [1, 5, 9]),
    ],
)
def test_a_run_has_the_users_that_its_rows_need_and_never_more_than_rows(
    scorer: Scorer, row_user: list[int], users: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "RUN_ROWS", 4)
    people = [f"u{number}" for number in range(10)]
    batch = batch_of(replaced(toy_table(10, 8), "user_id", dict(enumerate(people))))
    feeds = {**Arrays(scorer).read(batch).feeds, "row_user": np.array(row_user + row_user, np.int64)}
    first, second = TableScorer(scorer).parts(feeds)
    assert first["user_id"].tolist() == [people[user] for user in users]
    assert first["user_id"][first["row_user"]].tolist() == [people[user] for user in row_user]
    assert second["recent_items"].shape[0] == second["age"].shape[0] == len(users)
    assert first["item_id"].tolist() + second["item_id"].tolist() == feeds["item_id"][:8].tolist()


# ---------------------------------------------------------------- wide sequences


@pytest.mark.parametrize("cells", [8, 20, 40])
def test_a_chunk_that_is_too_wide_is_scored_in_halves(
    scorer: Scorer, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = replaced(toy_table(31, 9, users=31), "price", {3: float("inf"), 30: float("inf")})
    monkeypatch.setattr(arrays, "MAX_CELLS", cells)
    refused = {0: "unreadable", 17: "unreadable"}
    found = list(TableScorer(scorer, ("row_id",)).stream([Chunk(batch_of(table), refused)]))
    assert len(found) > 1
    firsts = np.cumsum([0, *(one.source.num_rows for one in found)])
    assert firsts[-1] == 31
    told = {
        int(first) + row: why for first, one in zip(firsts, found, strict=False) for row, why in one.refused.items()
    }
    assert sorted(told) == [0, 3, 17, 30]
    assert [told[row] for row in refused] == ["unreadable", "unreadable"]
    left = table.filter(pa.array([row not in told for row in range(31)]))
    assert as_table(found)["row_id"].to_pylist() == left["row_id"].to_pylist()
    assert_scored(as_table(found), scorer, left)


def test_one_row_is_never_too_wide(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "MAX_CELLS", 1)
    table = replaced(toy_table(1), "tags", {0: [1, 2, 3]})
    assert table.schema == SCHEMA
    assert_scored(scored(scorer, table).table, scorer, table)
