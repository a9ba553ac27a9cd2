"""A line between two processes: small messages in order, each with an open file where one belongs to it.

Knows sockets. Does not know what is said.
"""

import socket
from typing import Any

import orjson

MAX_BYTES = 64 * 1024

Message = dict[str, Any]


class Line:
    """One end. Nothing here waits."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end

    def fileno(self) -> int:
        """What can be read from when something was said."""
        return self._end.fileno()

    def send(self, message: Message, file: int | None = None) -> None:
        """Say something; the other end gets a descriptor of its own for `file`. Raises: OSError."""
        socket.send_fds(self._end, [orjson.dumps(message)], [] if file is None else [file])

    def receive(self) -> tuple[Message, int | None] | None:
        """What was said next, and the file that came with it, now the caller's; None if nothing was."""
        try:
            content, files, _, _ = socket.recv_fds(self._end, MAX_BYTES, 1)
        except (BlockingIOError, ConnectionResetError):
            return None
        return (orjson.loads(content), files[0] if files else None) if content else None

    def close(self) -> None:
        """Hang up."""
        self._end.close()


def line() -> tuple[Line, Line]:
    """Both ends of a new one."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Line(one), Line(other)
