"""Jobs as folders on disk, which any process of the service can read, and which outlive it.

    ID/job.json     what is asked for, written once     ID/cancel   somebody wants it to end
    ID/state.json   how far it is, written by the one runner

A job appears whole or not at all, and once for each key. One whose files are damaged or cannot be read hides no other.
Knows files. Does not know who runs jobs, nor how.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from contract.bundle import sync_folder
from contract.errors import KeyReused, StorageFailed, UnknownJob
from service.batch.durable import durable, unwritable

ID = re.compile(r"[0-9a-f]{32}")
WAITING, RUNNING, SUCCEEDED, FAILED, CANCELLED = "waiting", "running", "succeeded", "failed", "cancelled"
ENDED = (SUCCEEDED, FAILED, CANCELLED)

Known = Annotated[str, Field(pattern=f"^({'|'.join((WAITING, RUNNING, *ENDED))})$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, lt=2**37)]  # what can be told as a date


@dataclass(frozen=True)
class Entry:
    """What was asked for, by whom and when is not told; `asked` are the fields of the request as they came."""

    id: str
    created: float
    bundle: str
    model: Mapping[str, str]
    source: str
    target: str
    asked: Mapping[str, Any]


@dataclass
class State:
    """How far a job is. Times are seconds since 1970; `rows` are those of the input, None until they are known."""

    state: Known = WAITING
    rows: Count | None = None
    rows_done: Count = 0
    rows_per_s: float | None = None
    refused: Count | None = None
    error: dict[str, str] | None = None
    started: Seconds | None = None
    ended: Seconds | None = None
    runs: Count = 0

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will become of it."""
        return self.state in ENDED


STATE = TypeAdapter(State)  # passes over fields that it does not know: a later version may have written them


class Records:
    """All jobs of one folder. Every call reads or writes files: not for the event loop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make the folder. Raises: TargetUnwritable."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise unwritable(self.folder, error) from None

    def add(self, entry: Entry) -> tuple[Entry, bool]:
        """A new job, or the one of this id that is there, and whether it is new.

        Raises: KeyReused, TargetUnwritable.
        """
        hidden = self.folder / f".{entry.id}.{secrets.token_hex(8)}"
        try:
            hidden.mkdir()
            with durable(hidden / "job.json") as file:
                file.write(json.dumps(asdict(entry)).encode())
            hidden.rename(self.folder / entry.id)
            sync_folder(self.folder)
            return entry, True
        except OSError as error:
            shutil.rmtree(hidden, ignore_errors=True)
            if not (self.folder / entry.id).is_dir():
                raise unwritable(self.folder, error) from None
        known = self.entry(entry.id)
        if dict(known.asked) != dict(entry.asked):
            raise KeyReused(
                "the key came with another job before", place="idempotency-key", remedy="choose a new key for a new job"
            )
        return known, False

    def entry(self, job_id: str) -> Entry:
        """What was asked for. Raises: UnknownJob, StorageFailed."""
        try:
            if ID.fullmatch(job_id):
                return Entry(**json.loads((self.folder / job_id / "job.json").read_bytes()))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError) as error:
            raise _unreadable(f"{job_id}/job.json", error) from error
        raise UnknownJob("there is no such job", place="id", remedy="see GET /v1/jobs for those there are")

    def state(self, job_id: str) -> State:
        """How far it is: failed, where what was written of that is damaged. Raises: StorageFailed."""
        place = f"{job_id}/state.json"
        try:
            return STATE.validate_json((self.folder / place).read_bytes(), strict=True)
        except FileNotFoundError:
            return State()
        except OSError as error:
            raise _unreadable(place, error) from error  # which may pass, so nothing is concluded from it
        except ValueError:
            damaged = {
                "type": "storage-failed",
                "place": place,
                "detail": "the record of how far the job is is damaged",
                "remedy": "start it again with a new key: it goes on where it stopped",
            }
            return State(FAILED, error=damaged)

    def write_state(self, job_id: str, state: State) -> None:
        """To be called by the runner only. Raises: TargetUnwritable."""
        with durable(self.folder / job_id / "state.json") as file:
            file.write(json.dumps(asdict(state)).encode())

    def ids(self) -> list[str]:
        """Of all jobs."""
        return [name for name in os.listdir(self.folder) if ID.fullmatch(name)]

    def all(self) -> list[tuple[Entry, State]]:
        """Those that can be read, the oldest first."""
        found = []
        for job_id in self.ids():
            try:
                found.append((self.entry(job_id), self.state(job_id)))
            except (UnknownJob, StorageFailed):
                continue  # has just been forgotten, or is the runner's to warn of
        return sorted(found, key=lambda one: (one[0].created, one[0].id))

    def ask_to_cancel(self, job_id: str) -> None:
        """Leave word for the runner. Raises: UnknownJob, TargetUnwritable."""
        self.entry(job_id)
        with durable(self.folder / job_id / "cancel"):
            pass

    def is_to_be_cancelled(self, job_id: str) -> bool:
        """Whether somebody has."""
        return (self.folder / job_id / "cancel").exists()

    def forget(self, keep: int) -> None:
        """Remove the oldest jobs that have ended, until there are no more than `keep`."""
        jobs = self.all()
        for entry, state in jobs[: max(0, len(jobs) - keep)]:
            if state.has_ended:
                hidden = self.folder / f".{entry.id}.gone"
                (self.folder / entry.id).rename(hidden)
                shutil.rmtree(hidden, ignore_errors=True)


def _unreadable(place: str, error: Exception) -> StorageFailed:
    why = (isinstance(error, OSError) and error.strerror) or str(error)
    return StorageFailed(
        f"the record of a job cannot be read ({why})",
        place=place,
        remedy="check the folder of jobs, its rights and its disk, or remove the job's folder there",
    )


def new_id(key: str | None) -> str:
    """The id of a job: that of its key, or any."""
    return secrets.token_hex(16) if key is None else hashlib.sha256(f"key {key}".encode()).hexdigest()[:32]
