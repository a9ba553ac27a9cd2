"""What has been done of a job: lines of JSON that are only ever appended, each synced before the next step.

The first line says what the job is; a run that is another job is told what changed. A last line that was torn when
the machine stopped is cut off. Knows lines. Does not know how a shard is scored.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contract.bundle import sync_folder
from contract.errors import JobChanged
from service.batch.durable import unwritable
from service.batch.shards import Done

REMEDY = "undo the change and run the same command again, or begin anew with --restart"
VERSION = 1


class Journal:
    """The journal of one job, open for appending."""

    def __init__(self, path: Path, descriptor: int, done: dict[int, Done]) -> None:
        self._path, self._descriptor = path, descriptor
        self.done = done

    @classmethod
    @contextmanager
    def opened(cls, path: Path, identity: Mapping[str, Any]) -> Iterator["Journal"]:
        """Begin a journal, or go on with what an earlier run wrote.

        Raises: JobChanged, TargetUnwritable.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            sync_folder(path.parent)
        except OSError as error:
            raise unwritable(path, error) from None
        try:
            content = path.read_bytes()
            whole = content.rfind(b"\n") + 1
            os.ftruncate(descriptor, whole)
            before, done = _parsed(content[:whole], path)
            journal = cls(path, descriptor, done)
            if before is None:
                journal._append({"version": VERSION, "job": identity})
            else:
                check_same(before, identity, str(path.parent))
            yield journal
        finally:
            os.close(descriptor)

    def add(self, done: Done) -> None:
        """A shard is written. Raises: TargetUnwritable."""
        self.done[done.index] = done
        self._append(vars(done))

    def _append(self, line: Mapping[str, Any]) -> None:
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        try:
            while data:  # a disk that is nearly full takes a part
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)
        except OSError as error:
            raise unwritable(self._path, error) from None


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], place: str) -> None:
    """Whether two identities are of one job. Raises: JobChanged, which says what differs."""
    now = json.loads(json.dumps(now))
    if before == now:
        return
    if before.get("bundle") != now["bundle"]:
        fact = "the bundle is not the one this output was begun with"
    elif before.get("files") != now["files"]:
        fact = f"the input changed since this output was begun: {_changed_file(before.get('files', []), now['files'])}"
    elif before.get("options") != now["options"]:
        fact = f"the options are not those this output was begun with: {_options(before.get('options', {}))}"
    else:
        fact = "this output was begun with other versions of the libraries"
    raise JobChanged(fact, place=place, remedy=REMEDY)


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} was {value}" for name, value in options.items())


def _changed_file(before: list[Any], now: list[Any]) -> str:
    earlier = {str(entry[0]): entry for entry in before}
    for entry in now:
        if entry[0] not in earlier:
            return f"{entry[0]} is new"
        if earlier[entry[0]] != entry:
            return f"{entry[0]} differs"
    gone = set(earlier) - {entry[0] for entry in now}
    return f"{sorted(gone)[0]} is gone" if gone else "the order of the files differs"


def _parsed(content: bytes, path: Path) -> tuple[dict[str, Any] | None, dict[int, Done]]:
    """What the job is, if that is written, and the shards that are done."""
    job: dict[str, Any] | None = None
    done: dict[int, Done] = {}
    for number, line in enumerate(content.splitlines()):
        try:
            found = json.loads(line)
            if number == 0:
                job = dict(found["job"])
            else:
                done[found["index"]] = Done(**found)
        except (ValueError, LookupError, TypeError, RecursionError):
            raise JobChanged(
                f"line {number + 1} of the journal is damaged", place=str(path), remedy="begin anew with --restart"
            ) from None
    return job, done
