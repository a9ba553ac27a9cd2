"""A job and its plan as plain data."""

import pickle
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from service.batch.job import File, Job, Plan, Shard
from service.batch.plan import plan_of
from service.scoring.scorer import Scorer
from tests.service.batch.tables import toy_table, write


@pytest.fixture
def plan(toy: Path, scorer: Scorer, tmp_path: Path) -> Plan:
    for number in range(2):
        write(toy_table(30, number), tmp_path / f"in/day={number}/a.parquet", row_group_size=20)
    job = Job(str(toy), str(tmp_path / "in"), str(tmp_path / "out"), keep=("row_id", "day"))
    return plan_of(job, scorer.manifest, scorer.digest)


def test_of_a_job_nothing_is_kept_and_no_bad_row_allowed_unless_it_says_so() -> None:
    job = Job("bundle", "in", "out")
    assert (job.keep, job.max_bad, job.input_format, job.output_format) == ((), 0, None, None)


def test_a_plan_comes_out_in_another_process_as_it_was(plan: Plan) -> None:
    copy = pickle.loads(pickle.dumps(plan))
    assert copy == plan
    assert copy.shards[1].file.partitions == {"day": "1"}


@pytest.mark.parametrize(
    "change",
    [
        {"schema": b""},
        {"identity": {}},
        {"keep": ()},
        {"labels": ()},
        {"shards": ()},
        {"job": Job("other", "in", "out")},
        {"input_format": "csv"},
        {"output_format": "csv"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_plans_that_differ_in_anything_are_not_equal(plan: Plan, change: dict[str, object]) -> None:
    assert replace(plan, **change) != plan  # type: ignore[arg-type]


@pytest.mark.parametrize("counts", [(), (0,), (7,), (7, 0, 5)])
def test_the_rows_of_a_plan_are_those_of_its_shards_and_not_of_their_blocks(
    plan: Plan, counts: tuple[int, ...]
) -> None:
    shards = [replace(plan.shards[0], index=n, first_row=100, rows=rows) for n, rows in enumerate(counts)]
    assert replace(plan, shards=tuple(shards)).rows == sum(counts)


def test_what_has_been_planned_is_not_changed(plan: Plan) -> None:
    found: tuple[Job | File | Shard | Plan, ...] = (plan, plan.job, plan.shards[0], plan.shards[0].file)
    for one in found:
        with pytest.raises(FrozenInstanceError):
            setattr(one, next(iter(vars(one))), None)
