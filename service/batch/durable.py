"""Files that are there whole or not at all, also after the power failed.

A file is written under a hidden name in the same folder, synced, renamed, and its folder synced. Knows POSIX. Does not
know what is written.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from contract.bundle import sync_folder
from contract.errors import TargetUnwritable


class Hashed:
    """A binary file that knows the SHA-256 and the size of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0
        self.closed = False

    def write(self, data: "bytes | memoryview") -> int:
        """Append."""
        self._digest.update(data)
        count = self._file.write(data)
        self.size += count
        return count

    def flush(self) -> None:
        """Nothing is held back here."""

    @property
    def sha256(self) -> str:
        """Of what was written so far."""
        return self._digest.hexdigest()


@contextmanager
def durable(path: Path, mark: str = "") -> Iterator[Hashed]:
    """A file that appears at `path` when the block ends, and does not when it fails.

    Several may write one file at once, each with a `mark` of its own. Raises: TargetUnwritable.
    """
    hidden = path.with_name(f".{path.name}{mark}.tmp")
    try:
        with open(hidden, "wb", buffering=2**20) as file:
            hashed = Hashed(file)
            yield hashed
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        hidden.unlink(missing_ok=True)
        if error.errno is None:
            raise
        raise unwritable(path, error) from None
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise


def unwritable(path: Path, error: OSError) -> TargetUnwritable:
    """The error for a place that cannot be written."""
    return TargetUnwritable(
        f"cannot be written ({error.strerror or error})",
        place=str(path),
        remedy="check its folder, its rights and the space that is left",
    )
