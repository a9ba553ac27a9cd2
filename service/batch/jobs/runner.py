"""Runs the jobs of a folder: in one process of all that look at it, each in a process beside, a few at once.

Whoever holds the folder's lock is the runner; when it dies, another takes the lock, and goes on with what was running.
Jobs die with their runner, and a job has one process at most. Knows asyncio, processes and records. Does not know what
a job does.
"""

import asyncio
import fcntl
import json
import logging
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

from pydantic import TypeAdapter

from contract.errors import FullfunnelError, UnknownJob
from service.batch.jobs.records import CANCELLED, FAILED, RUNNING, SUCCEEDED, WAITING, Count, Records, State

TURN_S = 0.25
WRITE_S = 0.5
GRACE_S = 5.0  # until a process that was told to end is killed

log = logging.getLogger("fullfunnel")


@dataclass(frozen=True)
class Bounds:
    """How many jobs run at once, how many are remembered, and what each may take."""

    at_once: int
    remembered: int
    memory_bytes: int
    workers: int


@dataclass(frozen=True)
class Begin:
    """A process has counted its input, some of which an earlier one has done."""

    rows: Count
    done: Count


@dataclass(frozen=True)
class Done:
    """A process has finished its job."""

    rows: Count
    refused: Count


@dataclass(frozen=True)
class Said:
    """A line of a job's process; `rows` are those done since the last."""

    begin: Begin | None = None
    rows: Count | None = None
    done: Done | None = None
    error: dict[str, str] | None = None


SAID = TypeAdapter(Said)


class Runner:
    """Lives on the event loop of a process that may serve meanwhile."""

    def __init__(self, records: Records, roots: list[str], bounds: Bounds) -> None:
        self._records, self._roots, self._bounds = records, roots, bounds
        self._running: dict[str, asyncio.Task[None]] = {}
        self._processes: dict[str, Process] = {}
        self._ended: set[str] = set()
        self._unreadable: set[str] = set()
        self._stopping = False

    async def run(self) -> None:
        """Until cancelled: wait for the lock, then run what there is to run."""
        lock = await self._locked()
        try:
            while True:
                try:
                    await self._turn()
                except (OSError, ValueError, FullfunnelError):
                    log.exception("the folder of jobs cannot be read or written")
                await asyncio.sleep(TURN_S)
        finally:
            self._stopping = True
            await asyncio.gather(*map(self._end, list(self._processes.values())), return_exceptions=True)
            await asyncio.gather(*self._running.values(), return_exceptions=True)
            os.close(lock)

    async def _locked(self) -> int:
        self._records.prepare()
        while True:
            lock = os.open(self._records.folder / "runner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                os.close(lock)
            await asyncio.sleep(TURN_S)

    async def _turn(self) -> None:
        """Start what can be started, end what is to be cancelled."""
        cancelled, startable = await asyncio.to_thread(self._look, set(self._running))
        for job_id in cancelled:
            if job_id in self._processes:
                await self._end(self._processes[job_id])
            elif job_id not in self._running and job_id not in self._ended:
                await self._write(job_id, self._closed(self._records.state(job_id), CANCELLED))
        for job_id in startable[: max(0, self._bounds.at_once - len(self._running))]:
            self._running[job_id] = asyncio.create_task(self._one(job_id))

    def _look(self, running: set[str]) -> tuple[list[str], list[str]]:
        """What is to be cancelled and what can be started, given what ran before: that may end meanwhile."""
        cancelled, entries = [], []
        for job_id in self._records.ids():
            if job_id in self._ended:
                continue
            try:
                if job_id not in running and self._records.state(job_id).has_ended:
                    self._ended.add(job_id)
                elif self._records.is_to_be_cancelled(job_id):
                    cancelled.append(job_id)
                elif job_id not in running:
                    entries.append(self._records.entry(job_id))
            except UnknownJob:
                continue  # has just been forgotten
            except (OSError, FullfunnelError) as error:
                if job_id not in self._unreadable:
                    log.warning("job %s is left out until it can be read: %s", job_id, error)
                self._unreadable.add(job_id)
        startable = [entry.id for entry in sorted(entries, key=lambda entry: (entry.created, entry.id))]
        return cancelled, startable

    async def _one(self, job_id: str) -> None:
        """One job, from now until it ends."""
        try:
            state = self._records.state(job_id)
            state.state, state.started, state.error = RUNNING, state.started or time.time(), None
            state.runs += 1
            await self._write(job_id, state)
            await self._follow(job_id, state)
            if state.has_ended:
                await self._write(job_id, state)
                self._ended.add(job_id)
                await asyncio.to_thread(self._records.forget, self._bounds.remembered)
            else:
                await self._write(job_id, state)
        except (OSError, FullfunnelError):
            log.exception("job %s cannot be run or written down", job_id)
            await asyncio.sleep(GRACE_S)  # before it is tried again
        finally:
            self._processes.pop(job_id, None)
            self._running.pop(job_id, None)

    async def _follow(self, job_id: str, state: State) -> None:
        order = {
            "folder": str(self._records.folder.absolute()),
            "id": job_id,
            "parent": os.getpid(),
            "roots": self._roots,
            "memory_bytes": self._bounds.memory_bytes,
            "workers": self._bounds.workers,
        }
        command = (sys.executable, "-m", "service.batch.jobs.work", json.dumps(order))
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, stdout=PIPE)
        self._processes[job_id] = process
        try:
            if self._stopping:
                await self._end(process)
            log.info("job %s runs in process %d", job_id, process.pid)
            last = await self._listen(job_id, state, process)
            self._judge(job_id, state, last, await process.wait())
        finally:
            if process.returncode is None:  # nobody follows it any more, and another may be started
                with suppress(ProcessLookupError):
                    process.kill()
                await process.communicate()  # reads on: it has not ended while there is something to read

    async def _listen(self, job_id: str, state: State, process: Process) -> Said:
        """Write down what a process says: the last of that, but for progress."""
        last = Said()
        written, since, here = 0.0, time.monotonic(), 0
        async for said in _lines(job_id, process):
            if said.begin:
                state.rows, state.rows_done = said.begin.rows, said.begin.done
                since = time.monotonic()
            elif said.rows is not None:
                here += said.rows
                state.rows_done += said.rows
                state.rows_per_s = round(here / max(1e-3, time.monotonic() - since), 1)
            elif said.done or said.error:
                last = said
            if time.monotonic() - written > WRITE_S:
                written = time.monotonic()
                await self._write(job_id, state)
        return last

    def _judge(self, job_id: str, state: State, last: Said, status: int) -> None:
        """What became of a job whose process has ended."""
        log.info("job %s has ended with status %d", job_id, status)
        if status == 0 and last.done:
            state.rows = state.rows_done = last.done.rows
            state.refused = last.done.refused
            self._closed(state, SUCCEEDED)
        elif self._records.is_to_be_cancelled(job_id):
            self._closed(state, CANCELLED)
        elif self._stopping:
            state.state = WAITING
        else:
            lost = {
                "type": "worker-lost",
                "detail": f"the job's process ended without a word (status {status})",
                "remedy": "start it again with a new key: it goes on where it stopped",
            }
            state.error = last.error or lost
            self._closed(state, FAILED)

    def _closed(self, state: State, how: str) -> State:
        state.state, state.ended = how, time.time()
        return state

    async def _write(self, job_id: str, state: State) -> None:
        await asyncio.to_thread(self._records.write_state, job_id, state)

    async def _end(self, process: Process) -> None:
        """Tell a process to end, and kill it if it does not."""
        with suppress(ProcessLookupError):
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), GRACE_S)
            except TimeoutError:
                process.kill()


async def _lines(job_id: str, process: Process) -> AsyncIterator[Said]:
    """What a process says, until it ends. What is no such line is passed over: a library may have printed it."""
    assert process.stdout is not None  # noqa: S101
    is_noted = False
    while True:
        try:
            if not (line := await process.stdout.readline()):
                return
            said = SAID.validate_json(line, strict=True)
        except ValueError:  # also of a line that does not end
            if not is_noted:  # there may be many
                log.warning("job %s: its process printed what says nothing of the job", job_id, exc_info=True)
            is_noted = True
        else:
            yield said
