"""The runner of a folder of jobs, with programs in the place of the real one."""

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.batch.jobs import runner as module
from service.batch.jobs.records import CANCELLED, FAILED, RUNNING, SUCCEEDED, WAITING, Entry, Records, State, new_id
from service.batch.jobs.runner import Bounds, Runner
from tests.service.process import PATIENCE_S

Program = Callable[[str], None]
BOUNDS = Bounds(at_once=2, remembered=100, memory_bytes=12345, workers=3)
UNTIL_TOLD = """echo '{"rows": 1}'; exec tail -f /dev/null"""
LISTENING = f"""exec {sys.executable} -S -c '
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("{{\\"rows\\": 1}}", flush=True)
signal.sigwait([signal.SIGTERM])
sys.stdout.write(sys.argv[1])' """
START = """#!/bin/sh
cd "$(dirname "$0")"
printf '%s\\n' "$3" >> runs
finish() { echo '{"done": {"rows": 7, "refused": 2}}'; }
"""
DONE = "finish"


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Records:
    monkeypatch.setattr(module, "TURN_S", 0.005)
    monkeypatch.setattr(module, "WRITE_S", 0.0)
    found = Records(tmp_path / "jobs")
    found.prepare()
    return found


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """What a job is from now on: a few lines of shell, in a folder where `runs` says what they were started with."""

    def make(script: str) -> None:
        path = tmp_path / "program"
        path.write_text(f"{START}{script}\n")
        path.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(path))

    return make


def job(records: Records, created: float = 0.0, state: State | None = None) -> str:
    entry = Entry(new_id(None), created, "/bundle", {"digest": "d"}, "/in", "/out", {})
    records.add(entry)
    if state is not None:
        records.write_state(entry.id, state)
    return entry.id


@asynccontextmanager
async def running(records: Records, bounds: Bounds = BOUNDS) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(Runner(records, ["/data"], bounds).run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], Any]) -> None:
    """Wait, but not for ever."""
    async with asyncio.timeout(PATIENCE_S):
        while condition() not in (True, None):
            await asyncio.sleep(0.002)


def orders(records: Records) -> list[dict[str, Any]]:
    """What each process was told, in the order they were started."""
    path = records.folder.parent / "runs"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def follow(records: Records, *steps: Callable[[], Any], bounds: Bounds = BOUNDS) -> None:
    """Run until each of these was true, or was done, one after the other."""

    async def work() -> None:
        async with running(records, bounds):
            for step in steps:
                await until(step)

    asyncio.run(work())


def run(records: Records, *jobs: str, bounds: Bounds = BOUNDS) -> list[State]:
    """Run until all of these have ended."""
    follow(records, lambda: all(records.state(each).has_ended for each in jobs), bounds=bounds)
    return [records.state(each) for each in jobs]


def test_a_job_that_says_it_is_done_has_succeeded(records: Records, program: Program) -> None:
    program(DONE)
    (state,) = run(records, one := job(records))
    assert (state.state, state.rows, state.rows_done, state.refused, state.runs) == (SUCCEEDED, 7, 7, 2, 1)
    assert state.started is not None and state.ended is not None and state.started <= state.ended
    order = {"folder": str(records.folder), "id": one, "parent": os.getpid(), "roots": ["/data"]}
    assert orders(records) == [{**order, "memory_bytes": 12345, "workers": 3}]


def test_what_a_job_says_of_itself_is_written_down_while_it_runs(records: Records, program: Program) -> None:
    program(f"""echo '{{"begin": {{"rows": 100, "done": 40}}}}'; echo '{{"rows": 5}}'; {UNTIL_TOLD}""")
    one, seen = job(records), [State()]

    def has_said_all() -> bool:
        seen.append(records.state(one))
        return seen[-1].rows_done == 46

    follow(records, has_said_all)
    state = seen[-1]
    assert (state.state, state.rows, state.refused, state.ended) == (RUNNING, 100, None, None)
    assert state.rows_per_s is not None and state.rows_per_s > 0


LOST = "the job's process ended without a word (status {})"


@pytest.mark.parametrize(
    ("script", "detail"),
    [
        ("""echo '{"error": {"type": "rows-refused", "detail": "no"}}'; exit 1""", "no"),
        ("kill -KILL $$", LOST.format(-9)),
        ("exit 3", LOST.format(3)),
        ("exit 0", LOST.format(0)),
        (f"{DONE}; exit 1", LOST.format(1)),
        (f"{DONE}; kill -KILL $$", LOST.format(-9)),
    ],
)
def test_a_job_whose_process_dies_has_failed(records: Records, program: Program, script: str, detail: str) -> None:
    program(script)
    (state,) = run(records, job(records))
    assert (state.state, state.runs, state.refused) == (FAILED, 1, None)
    assert state.error is not None and state.error["detail"] == detail
    assert state.error["type"] == ("rows-refused" if detail == "no" else "worker-lost")
    assert len(orders(records)) == 1


def test_a_job_that_was_under_way_goes_on(records: Records, program: Program) -> None:
    program(DONE)
    (state,) = run(records, job(records, state=State(RUNNING, started=12.5, error={"type": "x"}, runs=2)))
    assert (state.state, state.runs, state.started, state.error) == (SUCCEEDED, 3, 12.5, None)


def test_no_more_run_at_once_than_allowed(records: Records, program: Program) -> None:
    program(UNTIL_TOLD)
    first, second, third = (job(records, float(number)) for number in range(3))
    follow(
        records,
        lambda: all(records.state(each).rows_done for each in (first, second)),
        lambda: records.state(third) == State(),
        lambda: records.ask_to_cancel(first),
        lambda: records.state(third).rows_done == 1,
    )
    assert records.state(first).state == CANCELLED and records.state(second).runs == 1
    assert [order["id"] for order in orders(records)][2:] == [third]


def test_one_after_the_other_where_one_may_run_and_the_oldest_first(records: Records, program: Program) -> None:
    program(f"mkdir alone || exit 1; {DONE}; rmdir alone")
    jobs = [job(records, float(number)) for number in (3, 1, 0, 2)]
    assert {state.state for state in run(records, *jobs, bounds=replace(BOUNDS, at_once=1))} == {SUCCEEDED}
    assert [jobs.index(order["id"]) for order in orders(records)] == [2, 1, 3, 0]


@pytest.mark.parametrize("how", [SUCCEEDED, FAILED, CANCELLED])
def test_what_has_ended_is_not_run_again(records: Records, program: Program, how: str) -> None:
    program(DONE)
    state = State(how, rows=1, ended=5.0, runs=1)
    old, new = job(records, 1.0, state), job(records, 2.0)
    records.ask_to_cancel(old)
    run(records, new)
    assert records.state(old) == state
    assert [order["id"] for order in orders(records)] == [new]


def test_when_a_job_has_ended_the_oldest_beyond_the_bound_are_forgotten(records: Records, program: Program) -> None:
    program(DONE)
    jobs = [job(records, float(number), State(SUCCEEDED)) for number in range(4)]
    new = job(records, 9.0)
    follow(records, lambda: len(records.ids()) == 3, bounds=replace(BOUNDS, remembered=3))
    assert [entry.id for entry, _ in records.all()] == [*jobs[2:], new]


def test_a_job_that_waits_is_cancelled_without_being_started(records: Records, program: Program) -> None:
    program(DONE)
    records.ask_to_cancel(one := job(records))
    (state,) = run(records, one)
    assert (state.state, state.runs, state.started, orders(records)) == (CANCELLED, 0, None, [])
    assert state.ended is not None


@pytest.mark.parametrize(
    ("script", "grace_s", "how"),
    [
        (UNTIL_TOLD, 60.0, CANCELLED),
        (f"{LISTENING} ''", 60.0, CANCELLED),
        (f'{LISTENING} "$(finish)"', 60.0, SUCCEEDED),
        (f"trap '' TERM; {UNTIL_TOLD}", 0.05, CANCELLED),
    ],
    ids=["it dies", "it leaves", "it has just finished", "it is deaf"],
)
def test_a_job_that_runs_is_told_to_end(
    records: Records, program: Program, monkeypatch: pytest.MonkeyPatch, script: str, grace_s: float, how: str
) -> None:
    monkeypatch.setattr(module, "GRACE_S", grace_s)
    program(script)
    one = job(records)
    follow(
        records,
        lambda: records.state(one).rows_done == 1,
        lambda: records.ask_to_cancel(one),
        lambda: records.state(one).has_ended,
    )
    state = records.state(one)
    assert (state.state, state.runs, state.error) == (how, 1, None)
    assert state.refused == (2 if how == SUCCEEDED else None)


def test_a_runner_that_stops_ends_its_jobs_and_the_next_goes_on(records: Records, program: Program) -> None:
    program(f"echo $$ > pid; {UNTIL_TOLD}")
    one, two = job(records, 1.0), job(records, 2.0)
    follow(records, lambda: records.state(one).rows_done == 1, bounds=replace(BOUNDS, at_once=1))
    before = records.state(one)
    assert (before.state, before.runs, before.ended, before.error) == (WAITING, 1, None, None)
    assert records.state(two) == State()
    with pytest.raises(ProcessLookupError):
        os.kill(int((records.folder.parent / "pid").read_text()), 0)
    program(DONE)
    after, other = run(records, one, two)
    assert (after.state, after.runs, after.started, other.runs) == (SUCCEEDED, 2, before.started, 1)


def test_of_two_runners_one_runs_jobs_and_the_other_follows_it(records: Records, program: Program) -> None:
    program(DONE)

    async def one_more() -> None:
        new = job(records)
        await until(lambda: records.state(new).has_ended)

    async def work() -> None:
        async with running(records) as first:
            await one_more()
            async with running(Records(records.folder), replace(BOUNDS, workers=8)):
                await one_more()
                first.cancel()
                await until(first.done)
                await one_more()

    asyncio.run(work())
    assert [order["workers"] for order in orders(records)] == [3, 3, 8]


def test_a_folder_that_cannot_be_read_for_a_while_is_read_again(
    records: Records, program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    program(DONE)
    away = records.folder.with_name("away")
    follow(
        records,
        lambda: (records.folder / "runner.lock").exists(),
        lambda: records.folder.rename(away) and None,
        lambda: "the folder of jobs cannot be read or written" in caplog.text,
        lambda: away.rename(records.folder) and None,
        lambda: job(records) and None,
        lambda: [state.state for _, state in records.all()] == [SUCCEEDED],
    )


def test_a_job_that_cannot_be_written_down_is_tried_again(
    records: Records, program: Program, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.0)
    program(DONE)
    one, write = job(records), records.write_state
    failures = [OSError("no space")]

    def write_state(job_id: str, state: State) -> None:
        if failures:
            raise failures.pop()
        write(job_id, state)

    monkeypatch.setattr(records, "write_state", write_state)
    (state,) = run(records, one)
    assert "cannot be run or written down" in caplog.text
    assert (state.state, state.runs, len(orders(records))) == (SUCCEEDED, 1, 1)


WAITS_FOR = "until [ -e {} ]; do sleep 0.01; done"


def ends_of(records: Records) -> list[bool]:
    """Whether each process that wrote its number to `pids` is gone, not even waited for."""
    return [not Path(f"/proc/{pid}").exists() for pid in (records.folder.parent / "pids").read_text().split()]


def test_a_job_that_ends_while_another_is_told_to_keeps_no_third_from_being_told(
    records: Records, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE_S", 60.0)
    program(f"""echo $$ >> pids
case $(wc -l < runs) in
1) trap ': > told' TERM; echo '{{"rows": 1}}'; {WAITS_FOR.format("go")};;
2) trap '' TERM; echo '{{"rows": 1}}'; {WAITS_FOR.format("told")}; finish;;
3) {UNTIL_TOLD};;
esac""")
    jobs: list[str] = []

    async def work() -> None:
        runner = Runner(records, ["/data"], replace(BOUNDS, at_once=3))
        task = asyncio.create_task(runner.run())
        for _ in range(3):  # one after the other, so that they are told in this order
            jobs.append(job(records))
            await until(lambda: records.state(jobs[-1]).rows_done == 1)
        task.cancel()
        await until(lambda: jobs[1] not in runner._running)
        (records.folder.parent / "go").touch()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    assert [records.state(each).state for each in jobs] == [WAITING, SUCCEEDED, WAITING]
    assert ends_of(records) == [True] * 3
    program(DONE)
    assert [state.runs for state in run(records, jobs[0], jobs[2])] == [2, 2]  # the lock was let go


@pytest.mark.parametrize(
    "line",
    [
        "Loading...",
        "",
        "[]",
        "null",
        '{"rows": "5"}',
        '{"rows": -5}',
        '{"begin": {"rows": 5}}',
        '{"done": {}}',
        '{"done": 7}',
        '{"error": "no"}',
        '{"error": {"type": null}}',
        "[" * 5000,
        "x" * 200_000,
    ],
    ids=lambda line: line[:20],
)
def test_a_line_that_says_nothing_of_the_job_is_passed_over_and_noted_once(
    records: Records, program: Program, caplog: pytest.LogCaptureFixture, line: str
) -> None:
    (records.folder.parent / "line").write_text(f"{line}\n")
    program(f"echo $$ >> pids; cat line; cat line; {DONE}")
    one, other = job(records, 1.0), job(records, 2.0)
    for state in run(records, one, other):
        assert (state.state, state.rows, state.refused, state.runs) == (SUCCEEDED, 7, 2, 1)
    assert ends_of(records) == [True] * 2 and len(orders(records)) == 2
    assert caplog.text.count(f"job {one}: its process printed what says nothing of the job") == 1


@pytest.mark.parametrize("ignores", ["", "trap '' TERM;"], ids=["it listens", "it is deaf"])
def test_a_job_that_can_no_longer_be_written_down_ends_before_it_is_tried_again(
    records: Records, program: Program, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, ignores: str
) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.0)
    # says more than anybody reads when it is not followed any more
    program(f"""{ignores} echo $$ >> pids
mkdir alone || {{ kill -0 "$(head -n 1 pids)" && exit 1; finish; exit; }}
while :; do echo '{{"rows": 1}}'; done""")
    one = job(records)
    blocked = records.folder / one / ".state.json.tmp"
    follow(
        records,
        lambda: records.state(one).rows_done > 0,
        lambda: block(blocked),
        lambda: "cannot be run or written down" in caplog.text,
        lambda: blocked.rmdir(),
        lambda: records.state(one).has_ended,
    )
    assert (records.state(one).state, len(orders(records))) == (SUCCEEDED, 2)
    assert ends_of(records) == [True] * 2


def block(path: Path) -> None:
    """Put a folder where a file is to be written."""
    with suppress(FileNotFoundError):
        path.unlink()
    try:
        path.mkdir()
    except FileExistsError:
        block(path)


@pytest.mark.parametrize("content", ["{", '{"state": "paused"}', '{"runs": "many"}', None])
def test_a_job_that_is_damaged_or_cannot_be_read_keeps_no_other_from_being_run(
    records: Records, program: Program, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    program(DONE)
    damaged, sound, cancelled = (job(records, float(number)) for number in range(3))
    path = records.folder / damaged / "state.json"
    path.mkdir() if content is None else path.write_text(content)
    records.ask_to_cancel(damaged)
    records.ask_to_cancel(cancelled)
    assert [state.state for state in run(records, sound, cancelled)] == [SUCCEEDED, CANCELLED]
    assert [order["id"] for order in orders(records)] == [sound]
    if content is None:
        assert caplog.text.count(f"job {damaged} is left out until it can be read") == 1
    else:
        assert records.state(damaged).state == FAILED and path.read_text() == content


def test_a_job_that_could_not_be_read_for_a_while_is_run_then(
    records: Records, program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    program(DONE)
    one = job(records)
    (path := records.folder / one / "state.json").mkdir()
    follow(
        records,
        lambda: "is left out until it can be read" in caplog.text,
        lambda: path.rmdir(),
        lambda: (records.folder / one / "state.json").is_file() and records.state(one).has_ended,
    )
    assert records.state(one).state == SUCCEEDED


def test_a_job_that_cannot_be_read_when_it_is_started_is_tried_again(
    records: Records, program: Program, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.0)
    program(DONE)
    one, entry = job(records), records.entry
    path = records.folder / one / "state.json"

    def entry_and_no_more(job_id: str) -> Entry:
        monkeypatch.setattr(records, "entry", entry)
        path.mkdir()
        return entry(job_id)

    monkeypatch.setattr(records, "entry", entry_and_no_more)
    follow(
        records,
        lambda: f"job {one} cannot be run or written down" in caplog.text,
        lambda: path.rmdir(),
        lambda: path.is_file() and records.state(one).has_ended,
    )
    assert records.state(one).state == SUCCEEDED


def test_a_job_of_a_later_version_goes_on(records: Records, program: Program) -> None:
    program(DONE)
    one = job(records)
    (records.folder / one / "state.json").write_text('{"state": "running", "runs": 2, "later": true}')
    (state,) = run(records, one)
    assert (state.state, state.runs) == (SUCCEEDED, 3)


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_job_that_ends_while_the_folder_is_looked_at_stays_as_it_is(
    records: Records, program: Program, monkeypatch: pytest.MonkeyPatch, is_cancelled: bool
) -> None:
    program(f"""echo '{{"rows": 1}}'; {WAITS_FOR.format("go")}; finish""")
    asked = records.is_to_be_cancelled

    async def work() -> str:
        runner = Runner(records, ["/data"], BOUNDS)

        def asked_late(job_id: str) -> bool:
            while threading.current_thread() is not threading.main_thread() and job_id in runner._running:
                time.sleep(0.001)
            return asked(job_id)

        monkeypatch.setattr(records, "is_to_be_cancelled", asked_late)
        one = job(records)
        task = asyncio.create_task(runner.run())
        await until(lambda: records.state(one).rows_done == 1)
        if is_cancelled:
            records.ask_to_cancel(one)
        (records.folder.parent / "go").touch()
        await until(lambda: records.state(one).has_ended)
        two = job(records)  # once it has ended, the folder was looked at again
        await until(lambda: records.state(two).has_ended)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return one

    state = records.state(asyncio.run(work()))
    assert (state.state, state.runs, len(orders(records))) == (SUCCEEDED, 1, 2)
