"""An output in an object store: made in a folder of this machine, and sent when it is finished, its manifest last.

A store knows neither renaming nor locks; this machine does. What is made stays in the user's cache until it has been
sent, so that a stopped job goes on where it was. Knows stores and names. Does not know how rows are scored.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.fs

from contract.errors import SettingInvalid, TargetExists, TargetUnwritable
from service.batch.job import Job
from service.batch.output import PART, Output
from service.batch.stores import located

FILE = pyarrow.fs.FileType.File
R = TypeVar("R")


def cache_of(url: str) -> Path:
    """The folder in which the output for a URL is made: the same for each attempt."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "fullfunnel" / "outputs" / hashlib.sha256(url.encode()).hexdigest()[:16]


def deliver(job: Job, run: Callable[[Job], R], *, restart: bool) -> tuple[R, bool]:
    """Do a job whose output is a URL: `run` does it, with an output here. Its answer, and whether it was sent.

    Raises: what `run` raises; SettingInvalid, TargetExists, TargetUnwritable.
    """
    url = job.output.rstrip("/")
    if f"{job.input}/".startswith(f"{url}/") or f"{url}/".startswith(f"{job.input.rstrip('/')}/"):
        raise SettingInvalid("input and output hold each other", place=url, remedy="write to a place of its own")
    cache, seen = cache_of(url), cache_of(f"{url} seen")
    there, local = _at(url, job, cache)
    before, begun = _apart(there.names), there.output.success.exists() or there.output.journal.exists()
    if before and not begun and there.output.success.name not in before:
        raise TargetExists(
            "something is there already that no scoring job wrote",
            place=url,
            remedy="choose another output, or remove it",
        )
    if before and not begun and not restart:
        try:
            there, local = _at(url, job, seen)
            _apart(there.fetch, [there.output.success.name, there.output.summary.name])
            return run(local), False  # which finds it finished, or says what differs
        finally:
            shutil.rmtree(seen, ignore_errors=True)
    result = run(local)
    there.send(before)
    shutil.rmtree(cache, ignore_errors=True)
    return result, True


def _at(url: str, job: Job, cache: Path) -> tuple["_There", Job]:
    """The place, and the job whose output lies in a folder of this machine meanwhile."""
    local = replace(job, output=str(cache / url.rpartition("/")[2]))
    return _There(url, Output.of(local, "parquet")), local


def _apart(work: Callable[..., R], *arguments: Any) -> R:
    """Do something in a process of its own: what pyarrow needs for S3 does not live through the forks that follow."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(work, arguments)


@dataclass(frozen=True)
class _There:
    """A place in a store, and the output here that is to be there."""

    url: str
    output: Output

    @property
    def filesystem(self) -> pyarrow.fs.FileSystem:
        """The store."""
        return located(self.url)[0]

    @property
    def _roots(self) -> tuple[Path, str]:
        """The folders in which the files of the output have the same names, here and there."""
        inside = located(self.url)[1]
        if self.output.is_folder:
            return self.output.target, inside
        return self.output.target.parent, inside.rpartition("/")[0]

    @property
    def _beside(self) -> list[str]:
        return [path.name for path in (self.output.summary, self.output.refused, self.output.success)]

    def names(self) -> set[str]:
        """What is there of such an output."""
        root = self._roots[1]
        with _told(self.url):
            if self.output.is_folder:
                selector = pyarrow.fs.FileSelector(root, allow_not_found=True, recursive=True)
                found = self.filesystem.get_file_info(selector)
            else:
                names = [self.output.target.name, *self._beside]
                found = self.filesystem.get_file_info([f"{root}/{name}" for name in names])
        return {info.path.removeprefix(f"{root}/") for info in found if info.type == FILE}

    def send(self, before: set[str]) -> None:
        """Everything, the manifest last. Before that, parts of the output `before` that are none any more go, and first
        of all the old manifest, which would lie. What else is there is not ours.
        """
        here, root = self._roots
        parts = [part["name"] for part in json.loads(self.output.success.read_bytes())["parts"]]
        beside = [name for name in self._beside if (here / name).exists()]
        old = {name for name in before if name in self._beside or PART.fullmatch(name)}
        self.remove([self.output.success.name, *sorted(old - {*parts, *beside})])
        with _told(self.url):
            if self.filesystem.type_name != "s3":  # where a folder is no more than a part of a name
                self.filesystem.create_dir(root, recursive=True)
            for name in [*parts, *beside]:
                pyarrow.fs.copy_files(str(here / name), f"{root}/{name}", pyarrow.fs.LocalFileSystem(), self.filesystem)
                size, sent = (here / name).stat().st_size, self.filesystem.get_file_info(f"{root}/{name}").size
                if sent != size:
                    raise OSError(f"{name} has {sent} bytes there, and {size} here")

    def fetch(self, names: list[str]) -> None:
        """Some files, to where the output is made."""
        here, root = self._roots
        here.mkdir(parents=True, exist_ok=True)
        with _told(self.url):
            for name in names:
                pyarrow.fs.copy_files(f"{root}/{name}", str(here / name), self.filesystem, pyarrow.fs.LocalFileSystem())

    def remove(self, names: list[str]) -> None:
        """Some files, where they are there."""
        with _told(self.url):
            for info in self.filesystem.get_file_info([f"{self._roots[1]}/{name}" for name in names]):
                if info.type == FILE:
                    self.filesystem.delete_file(info.path)


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Turn what a store refuses into TargetUnwritable."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        text = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise TargetUnwritable(
            f"cannot be written ({text[:300]})",
            place=url,
            remedy="check the store and its rights, then start the same command again: what was made is kept",
        ) from None
