"""Files below allowed folders only, opened without following a link, so that none can be swapped in.

A path is walked folder by folder, each opened relative to the one before (openat with O_NOFOLLOW): what was checked is
what is opened. Links in the allowed folders' own paths are their owner's affair. Knows POSIX. Does not know jobs.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from contract.errors import PlaceForbidden

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_roots: list[str] = []  # none: this process may read everything


def confine(roots: Sequence[str]) -> None:
    """From now on `opened` is how this process, and those forked from it, read files on this machine."""
    _roots[:] = roots


def is_confined() -> bool:
    """Whether `confine` was called."""
    return bool(_roots)


@contextmanager
def opened(path: str) -> Iterator[str]:
    """A name under which the file at `path` can be opened inside the block. Raises: PlaceForbidden, OSError."""
    descriptor = beneath(_roots, path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PlaceForbidden("is no file", place=path, remedy="name files")
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def beneath(roots: Sequence[str], path: str, flags: int, make: bool = False) -> int:
    """A descriptor of what is at `path`, below one of the roots; with `make`, missing folders are made.

    Raises: PlaceForbidden, OSError.
    """
    root = root_of(roots, path)
    parts = [part for part in path[len(root) :].split("/") if part]
    if ".." in parts:
        raise PlaceForbidden("leads out of its folder", place=path, remedy="name it without `..`")
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            if make:
                _make(part, descriptor)
            below = _open(part, descriptor, (flags | os.O_NOFOLLOW | os.O_CLOEXEC) if last else FOLDER, path)
            os.close(descriptor)
            descriptor = below
        return descriptor
    except BaseException:
        os.close(descriptor)
        raise


def root_of(roots: Sequence[str], path: str) -> str:
    """The root that a path is below, by its name. Raises: PlaceForbidden."""
    for root in roots:
        if path == root or path.startswith(f"{root.rstrip('/')}/"):
            return root
    raise PlaceForbidden("is outside of the folders that jobs may touch", place=path, remedy="choose one inside")


def _make(part: str, descriptor: int) -> None:
    try:
        os.mkdir(part, dir_fd=descriptor)
    except FileExistsError:
        return


def _open(part: str, folder: int, flags: int, path: str) -> int:
    try:
        return os.open(part, flags, dir_fd=folder)
    except OSError:
        if is_link(part, folder):
            raise PlaceForbidden(
                "is, or leads through, a link", place=path, remedy="name the files themselves"
            ) from None
        raise


def is_link(name: str, folder: int | None = None) -> bool:
    """Whether a link is there."""
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False
