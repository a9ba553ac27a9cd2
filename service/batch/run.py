"""A batch job from beginning to end: lock, look, score what is not scored yet, finish.

Knows the order of the steps, and what is there after each. Does not know how a shard is scored.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contract.errors import JobChanged, SettingInvalid, StorageFailed, TargetExists
from service.batch.cluster import Cluster
from service.batch.delivery import deliver
from service.batch.durable import unwritable
from service.batch.finish import finish
from service.batch.job import Job, Plan, Shard
from service.batch.journal import Journal, check_same
from service.batch.lock import locked
from service.batch.output import PART, UNFINISHED, Output
from service.batch.plan import plan_of
from service.batch.shards import ShardScorer, check_refused
from service.batch.stores import is_remote
from service.batch.workers import Report, Workers
from service.scoring.scorer import Scorer


@dataclass(frozen=True)
class Watch:
    """What a caller is told: `begin` with the rows of the input and how many are done, `rows` with each few more."""

    begin: Callable[[int, int], None] = lambda rows, done: None
    rows: Report = lambda rows: None


@dataclass(frozen=True)
class Result:
    """A finished job. `was_done`: by an earlier run. `sent`: to an object store, by this one."""

    rows: int
    refused: int
    output: Output
    was_done: bool
    summary: Mapping[str, Any]
    sent: bool = False


def run_job(
    job: Job, *, workers: int = 1, on: Cluster | None = None, restart: bool = False, watch: Watch | None = None
) -> Result:
    """Score `job.input` into `job.output`, or what is left of it; in `workers` processes, or on a cluster.

    Raises: BundleInvalid, DataInvalid, JobInvalid, ScoreInvalid, SettingInvalid.
    """
    watch = watch or Watch()
    if is_remote(job.output):
        if on is not None:
            raise SettingInvalid(
                "a cluster writes to a folder that all of its machines see", place=job.output, remedy="give a path"
            )

        def run_here(local: Job) -> Result:
            return run_job(local, workers=workers, restart=restart, watch=watch)

        result, sent = deliver(job, run_here, restart=restart)
        return replace(result, sent=sent)
    output = Output.of(job, "parquet")
    with _failing_clearly(output):
        return _run(job, output, workers, on, restart, watch)


@contextmanager
def _failing_clearly(output: Output) -> Iterator[None]:
    """What the system refuses, and no step had a better word for. Raises: StorageFailed."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            f"the system could not read or write a file ({error.strerror or error})",
            place=str(error.filename or output.target),
            remedy="check the disk, its rights and the space that is left, then start the same command again",
        ) from error


def _run(job: Job, output: Output, workers: int, on: Cluster | None, restart: bool, watch: Watch) -> Result:
    _prepare(output)
    with locked(output.lock, str(output.target)), _tidied(output):
        scorer = Scorer.load(Path(job.bundle))
        with on.crew() if on else Workers(workers, lambda plan: ShardScorer(scorer, plan).write) as crew:
            plan = plan_of(job, scorer.manifest, scorer.digest)
            output = Output.of(job, plan.output_format)
            if restart:  # no sooner, so that a mistake in the command costs nothing
                _discard(output)
            if (finished := _finished(output, plan)) is not None:
                return finished
            with Journal.opened(output.journal, plan.identity) as journal:
                waiting = list(_waiting(plan, output, journal))
                watch.begin(plan.rows, plan.rows - sum(shard.rows for shard in waiting))
                _check_total(plan, output, journal)
                for done in crew.run(plan, waiting, watch.rows):
                    journal.add(done)
                    _check_total(plan, output, journal)
            done = [journal.done[shard.index] for shard in plan.shards]
        summary = finish(output, plan, scorer.manifest, done)
        return Result(plan.rows, sum(one.refused for one in done), output, False, summary)


def _prepare(output: Output) -> None:
    """Make the folders. Nothing that is not a job's is ever written over. Raises: TargetExists, TargetUnwritable."""
    target = output.target
    try:
        begun = output.success.exists() or output.journal.exists()
        foreign = any(name != "_job" for name in os.listdir(target)) if target.is_dir() else target.exists()
        if (foreign and not begun) or (target.exists() and target.is_dir() != output.is_folder):
            raise TargetExists(
                "something is there already that no scoring job wrote",
                place=str(target),
                remedy="choose another output, or remove it",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        output.work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(target, error) from None


@contextmanager
def _tidied(output: Output) -> Iterator[None]:
    """Take away what is of no use once the job is done, or has failed before it had done anything."""
    try:
        yield
    finally:
        done = output.success.exists()
        if not done and not (output.journal.exists() and len(output.journal.read_bytes().splitlines()) > 1):
            _discard(output)
            done = True
        if done:
            shutil.rmtree(output.work, ignore_errors=True)
            if output.is_folder and not any(output.target.iterdir()):
                output.target.rmdir()


def _discard(output: Output) -> None:
    """Remove what an earlier run of any job left at this output; the lock stays."""
    try:
        output.success.unlink(missing_ok=True)  # first: without the rest it would lie
        files = [output.journal, output.summary, output.refused]
        files += [path for path in output.work.iterdir() if path != output.lock]
        if output.is_folder:
            files += [
                path for path in output.target.iterdir() if PART.fullmatch(path.name) or UNFINISHED.fullmatch(path.name)
            ]
        else:
            files.append(output.target)
        for path in files:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(output.target, error) from None


def _finished(output: Output, plan: Plan) -> Result | None:
    """What an earlier run finished. Raises: JobChanged."""
    if not output.success.exists():
        return None
    try:
        manifest = json.loads(output.success.read_bytes())
        summary = json.loads(output.summary.read_bytes()) if output.summary.exists() else {}
        job, rows, refused = dict(manifest["job"]), int(manifest["rows"]), int(manifest["refused"])
    except (ValueError, LookupError, TypeError, RecursionError):
        raise JobChanged(
            "the manifest of a finished job is damaged", place=str(output.success), remedy="begin anew with --restart"
        ) from None
    check_same(job, plan.identity, str(output.target))
    return Result(rows, refused, output, True, summary)


def _waiting(plan: Plan, output: Output, journal: Journal) -> Iterator[Shard]:
    """The shards that are not written yet, or whose part or refused rows are not what the journal says."""
    for shard in plan.shards:
        done = journal.done.get(shard.index)
        try:
            lost = done is not None and done.refused > 0 and not output.refused_part(shard).exists()
            if done is None or lost or output.part(shard).stat().st_size != done.size:
                yield shard
        except FileNotFoundError:
            yield shard


def _check_total(plan: Plan, output: Output, journal: Journal) -> None:
    """Raises: RowsRefused."""
    count = sum(done.refused for done in journal.done.values())
    if count > plan.job.max_bad:
        first = next(
            shard for shard in plan.shards if shard.index in journal.done and journal.done[shard.index].refused
        )
        with open(output.refused_part(first), "rb") as file:
            check_refused(count, plan.job.max_bad, [json.loads(file.readline())])
