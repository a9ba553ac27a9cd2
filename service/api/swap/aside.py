"""Work in a thread that the event loop hardly notices.

Knows Python's interpreter lock. Does not know what the work is.
"""

import gc
import sys
import threading
from types import TracebackType

YIELD_S = 0.0002  # instead of 5 ms


class Aside:
    """Inside the block one thread at a time leaves the interpreter to others soon, and collects no garbage."""

    def __init__(self) -> None:
        self._alone = threading.Lock()
        self._interval = sys.getswitchinterval()

    def __enter__(self) -> None:
        self._alone.acquire()
        sys.setswitchinterval(YIELD_S)
        gc.disable()  # a collection holds the interpreter as long as it takes

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        gc.enable()
        sys.setswitchinterval(self._interval)
        self._alone.release()
