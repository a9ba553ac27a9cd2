"""What the service says on stderr: plain lines, or JSON, one line an event.

A line is dropped rather than waited for where nobody reads the pipe. Of an exception its type and place are told, not
its message, which may hold what a client sent. Knows the fields of a line. Does not know what is worth saying.
"""

import json
import logging
import os
import select
from datetime import UTC, datetime
from traceback import format_tb
from typing import Any, Literal

Format = Literal["text", "json"]
STDERR = 2
MAX_BYTES = 4096  # of a line: what is free in a pipe that select calls writable (PIPE_BUF), so that no write waits
FIELDS = ("request_id", "traceparent", "route", "outcome", "duration_ms")  # of `extra`


class Line(logging.Formatter):
    """Plain text, without the messages of exceptions."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line, and where there is an exception more of them."""
        record.exc_text = None  # what another formatter kept there holds the message
        line = super().format(record)
        record.exc_text = None  # and another one wants it
        found = {name: str(value) for name in FIELDS if (value := getattr(record, name, None))}
        fields = [f"{name}={value}" for name, value in found.items() if value not in record.getMessage()]
        return " ".join([line, *fields])

    def formatException(self, ei: Any) -> str:
        """Where it happened, and of which type it is."""
        kind, _, trace = ei
        return "".join([*format_tb(trace), kind.__name__])


class JsonLine(Line):
    """One JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """The object, on one line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        found = {"time": at, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        found |= {name: value for name in FIELDS if (value := getattr(record, name, None))}
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return json.dumps({**found, "pid": record.process})


class Dropping(logging.Handler):
    """Writes to a descriptor, or does not where that would wait; says later how many lines were lost."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor, self._dropped = descriptor, 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line of at most 4,096 bytes."""
        try:
            line = self.format(record)
            if self._dropped and self._write(self._lost(record)):
                self._dropped = 0
            if not self._write(line):
                self._dropped += 1
        except Exception:
            self.handleError(record)

    def _write(self, line: str) -> bool:
        data = line.encode(errors="backslashreplace")
        data = (data if len(data) < MAX_BYTES else data[: MAX_BYTES - 1]) + b"\n"
        if not select.select([], [self._descriptor], [], 0)[1]:
            return False
        os.write(self._descriptor, data)
        return True

    def _lost(self, record: logging.LogRecord) -> str:
        message = f"{self._dropped} lines were lost, because nobody read them in time"
        return self.format(logging.LogRecord(record.name, logging.WARNING, "", 0, message, None, None))


def configure(kind: Format) -> None:
    """Say everything on stderr in this form."""
    handler = Dropping(STDERR)
    handler.setFormatter(JsonLine() if kind == "json" else Line())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
