"""Connections spread evenly over workers, so that a few that are kept alive use every core.

The kernel gives a new connection to a worker by a hash, which spreads thousands evenly and four hardly ever. A worker
that is given one while another has fewer passes it on, before a byte of it is read. Knows sockets and counts. Does not
know requests.
"""

import asyncio
import mmap
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from service.api.shortcut import WELCOMING, ShortcutProtocol

GONE = 2**31 - 1  # the count of a worker that takes no connections


class Spread:
    """How many connections each worker has, in memory that forked processes share, and a door to each worker."""

    def __init__(self, workers: int) -> None:
        self.counts = memoryview(mmap.mmap(-1, 4 * workers)).cast("i")
        self._doors = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(workers)]
        for door in self._doors:
            for side in door:
                side.setblocking(False)
        for number in range(workers):
            self.leave(number)

    def close(self) -> None:
        """Close the doors."""
        for door in self._doors:
            for side in door:
                side.close()

    def leave(self, number: int) -> None:
        """A worker takes no connections any more, or not yet."""
        self.counts[number] = GONE

    def pass_on(self, connection: socket.socket, number: int, have: int) -> bool:
        """Give a connection of worker `number`, which has `have` others, to the worker that has the fewest."""
        counts = list(self.counts)
        least = min(range(len(counts)), key=counts.__getitem__)
        if least == number or counts[least] >= have:
            return False
        try:
            socket.send_fds(self._doors[least][1], [b"c"], [connection.fileno()])
        except OSError:  # its door is full: it has enough to do
            return False
        self.counts[least] = counts[least] + 1
        return True

    def door(self, number: int) -> int:
        """What can be read from when a connection was passed to a worker."""
        return self._doors[number][0].fileno()

    def passed(self, number: int) -> socket.socket | None:
        """A connection that was passed to a worker, if there is one."""
        with suppress(BlockingIOError):
            _, descriptors, _, _ = socket.recv_fds(self._doors[number][0], 1, 1)
            for descriptor in descriptors:
                connection = socket.socket(fileno=descriptor)
                connection.setblocking(False)
                return connection
        return None


class SpreadProtocol(ShortcutProtocol):
    """One connection of worker `number`. `spread` and `number` are set on a subclass, see `spread_over`."""

    spread: Spread
    number: int
    passed_on = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected, here."""
        self.passed_on = self.spread.pass_on(transport.get_extra_info("socket"), self.number, len(self.connections))
        if self.passed_on:
            self.turn.welcoming = WELCOMING
            transport.abort()  # closes our copy of the socket only
            return
        super().connection_made(transport)
        self.spread.counts[self.number] = len(self.connections)

    def data_received(self, data: bytes) -> None:
        """Some bytes of a request."""
        if not self.passed_on:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client, or our copy of its socket, has gone."""
        if not self.passed_on:
            super().connection_lost(exc)
            self.spread.counts[self.number] = len(self.connections)


def spread_over(base: type[ShortcutProtocol], spread: Spread, number: int) -> type[SpreadProtocol]:
    """The protocol of a worker, with what was set on `base`."""
    return type("SpreadOver", (SpreadProtocol, base), {"spread": spread, "number": number})


class Receiver:
    """Takes over what is passed to a worker: `protocol` makes what speaks on a connection."""

    def __init__(self, spread: Spread, number: int, protocol: Callable[[], asyncio.Protocol]) -> None:
        self._spread, self._number, self._protocol = spread, number, protocol
        self._tasks: set[asyncio.Task[Any]] = set()
        spread.counts[number] = 0
        asyncio.get_running_loop().add_reader(spread.door(number), self.take)

    def take(self) -> None:
        """Take what has been passed by now."""
        loop = asyncio.get_running_loop()
        while (connection := self._spread.passed(self._number)) is not None:
            task = loop.create_task(loop.connect_accepted_socket(self._protocol, connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Take the last ones."""
        self._spread.leave(self._number)
        self.take()
        asyncio.get_running_loop().remove_reader(self._spread.door(self._number))
        await asyncio.gather(*self._tasks)
