"""A bundle read ahead: its bytes are hashed in a thread, while what is to serve it is still being imported.

Knows bundles and one thread. Does not know scorers; imports nothing that takes long.
"""

import threading
from pathlib import Path

from contract.bundle import Bundle, read_bundle


class Reading:
    """The bundle at `path`, being read from now on. Ends with the process, whether it was taken or not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: Bundle | Exception | None = None
        self._thread = threading.Thread(target=self._read, name="reading", daemon=True)
        self._thread.start()

    def take(self) -> Bundle:
        """What was read; it is not kept here, and another time is read again.

        Raises: BundleInvalid.
        """
        self._thread.join()
        found, self._found = self._found, None
        if isinstance(found, Exception):
            raise found
        return found or read_bundle(self.path)

    def _read(self) -> None:
        try:
            self._found = read_bundle(self.path)
        except Exception as error:  # of whoever takes it
            self._found = error
