"""The end of a job: what is put together, what is written, and what is not there when it fails."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import TargetUnwritable
from service.batch.finish import finish
from service.batch.job import Job, Plan
from service.batch.output import Output
from service.batch.plan import plan_of
from service.batch.shards import Done, ShardScorer
from service.scoring.scorer import Scorer
from tests.service.batch.tables import SCHEMA, toy_table, write

ROWS, BAD = 30, {0: (), 1: (4, 29), 2: (), 3: (0,)}  # bad rows of each file
SINGLE, FOLDER = "out.parquet", "out"
Scored = tuple[Output, Plan, list[Done]]


def _scored(toy: Path, scorer: Scorer, root: Path, name: str, files: int = 4) -> Scored:
    """All shards of a job, written."""
    for number in range(files):
        rows = toy_table(ROWS, number).to_pylist()
        for row in BAD[number]:
            rows[row]["item_id"] = None
        write(pa.Table.from_pylist(rows, SCHEMA), root / f"in/{number}.parquet")
    job = Job(str(toy), str(root / "in"), str(root / "there" / name), keep=("row_id",), max_bad=3)
    plan = plan_of(job, scorer.manifest, scorer.digest)
    output = Output.of(job, "parquet")
    output.work.mkdir(parents=True)
    return output, plan, [ShardScorer(scorer, plan).write(shard) for shard in plan.shards]


@pytest.fixture(params=[FOLDER, SINGLE])
def scored(request: pytest.FixtureRequest, toy: Path, scorer: Scorer, tmp_path: Path) -> Scored:
    return _scored(toy, scorer, tmp_path, request.param)


@pytest.fixture
def folder(toy: Path, scorer: Scorer, tmp_path: Path) -> Scored:
    return _scored(toy, scorer, tmp_path, FOLDER)


@pytest.fixture
def single(toy: Path, scorer: Scorer, tmp_path: Path) -> Scored:
    return _scored(toy, scorer, tmp_path, SINGLE)


def _tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_done_again_it_writes_the_same_bytes(scored: Scored, scorer: Scorer) -> None:
    output, plan, done = scored
    summary = finish(output, plan, scorer.manifest, done)
    before = _tree(output.target.parent)
    assert finish(output, plan, scorer.manifest, done) == summary
    assert _tree(output.target.parent) == before
    assert json.loads(output.summary.read_bytes()) == summary


def test_the_refused_rows_of_all_shards_are_in_the_order_of_the_input(scored: Scored, scorer: Scorer) -> None:
    output, plan, done = scored
    finish(output, plan, scorer.manifest, done)
    lines = [json.loads(line) for line in output.refused.read_bytes().splitlines()]
    assert [(Path(line["source"]).stem, line["row"]) for line in lines] == [("1", 4), ("1", 29), ("3", 0)]


def test_where_no_row_was_refused_there_is_no_file_of_them(toy: Path, scorer: Scorer, tmp_path: Path) -> None:
    output, plan, done = _scored(toy, scorer, tmp_path, FOLDER, files=1)
    finish(output, plan, scorer.manifest, done)
    assert sorted(_tree(output.target)) == ["_SUCCESS", "_summary.json", "part-00000.parquet"]


def test_the_summary_counts_the_rows_of_all_shards(scored: Scored, scorer: Scorer) -> None:
    output, plan, done = scored
    summary = finish(output, plan, scorer.manifest, done)
    assert (summary["rows"], summary["refused"]) == (4 * ROWS, 3)
    assert sum(summary["scores"]["pctr"]["histogram"]["rows"]) == 4 * ROWS - 3


def test_the_manifest_of_a_folder_tells_of_each_part_what_is_in_it(folder: Scored, scorer: Scorer) -> None:
    output, plan, done = folder
    finish(output, plan, scorer.manifest, done)
    manifest = json.loads(output.success.read_bytes())
    assert manifest["job"] == json.loads(json.dumps(plan.identity))
    assert manifest["model"] == {"name": "toy", "version": "1", "digest": scorer.digest}
    assert (manifest["rows"], manifest["refused"]) == (4 * ROWS, 3)
    assert [part["rows"] for part in manifest["parts"]] == [30, 28, 30, 29]
    for part in manifest["parts"]:
        content = (output.target / part["name"]).read_bytes()
        assert (part["size"], part["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        assert pq.read_metadata(output.target / part["name"]).num_rows == part["rows"]


def test_a_single_file_has_the_rows_of_all_parts_in_order_and_is_the_only_part(single: Scored, scorer: Scorer) -> None:
    output, plan, done = single
    finish(output, plan, scorer.manifest, done)
    kept = [row for number in BAD for row in range(ROWS) if row not in BAD[number]]
    assert pq.read_table(output.target)["row_id"].to_pylist() == kept
    content = output.target.read_bytes()
    assert json.loads(output.success.read_bytes())["parts"] == [
        {"name": SINGLE, "rows": len(kept), "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    ]


def test_what_an_attempt_that_died_left_is_taken_away_and_nothing_else(scored: Scored, scorer: Scorer) -> None:
    output, plan, done = scored
    parts = output.part(plan.shards[0]).parent
    for name in (".part-00001.parquet.tmp", ".part-00001.parquet.x.tmp", ".notes.tmp", "part-00001.tmp"):
        (parts / name).write_bytes(b"mine")
    finish(output, plan, scorer.manifest, done)
    assert {path.name for path in parts.glob("*.tmp")} == {".notes.tmp", "part-00001.tmp"}


@pytest.mark.parametrize("blocked", ["summary", "refused"])
def test_a_job_of_which_something_cannot_be_written_is_not_said_to_be_done(
    scored: Scored, scorer: Scorer, blocked: str
) -> None:
    output, plan, done = scored
    place: Path = getattr(output, blocked)
    place.mkdir()
    with pytest.raises(TargetUnwritable) as said:
        finish(output, plan, scorer.manifest, done)
    assert said.value.place == str(place)
    assert not output.success.exists()
    place.rmdir()
    finish(output, plan, scorer.manifest, done)
    assert output.success.exists()


def test_a_single_file_of_which_a_part_is_gone_does_not_appear(single: Scored, scorer: Scorer) -> None:
    output, plan, done = single
    output.part(plan.shards[2]).unlink()
    with pytest.raises(TargetUnwritable):
        finish(output, plan, scorer.manifest, done)
    assert not output.target.exists()
    assert not output.success.exists()


def test_each_shard_is_to_be_done(scored: Scored, scorer: Scorer) -> None:
    output, plan, done = scored
    with pytest.raises(ValueError, match="shorter"):
        finish(output, plan, scorer.manifest, [replace(one, refused=0) for one in done[:-1]])
    assert not output.success.exists()


def test_words_are_written_as_they_are(folder: Scored, scorer: Scorer) -> None:
    output, plan, done = folder
    finish(output, replace(plan, identity={**plan.identity, "options": {"keep": ["größe"]}}), scorer.manifest, done)
    assert '"größe"' in output.success.read_text(encoding="utf-8")
