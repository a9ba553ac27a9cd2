"""One process: listen, serve, and go without losing a request.

Knows uvicorn, sockets and signals, and when gRPC starts and stops. Does not know routes.

On SIGTERM /readyz turns 503 at once, requests are still answered for `drain_delay_s` (so that load balancers
notice), then the socket closes, requests under way are finished, and the process exits 0. On ctrl-C, or at a second
SIGTERM, the delay is left out.
"""

import asyncio
import logging
import signal
import socket
import time
from types import FrameType
from typing import Any

import uvicorn

from service.api.app import create_app
from service.api.lifecycle import Lifecycle
from service.api.listening import listen
from service.api.predictions import Predictions
from service.api.protocol import GuardedProtocol
from service.api.settings import Settings
from service.api.swap.switch import Switch

log = logging.getLogger("fullfunnel")


class Server(uvicorn.Server):
    """uvicorn, leaving in the order that load balancers need."""

    shares_ports = False  # with other processes of this service

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle, settings: Settings, switch: Switch) -> None:
        super().__init__(config)
        self.lifecycle, self._settings, self._switch = lifecycle, settings, switch
        self._stop_at = float("inf")
        self._rpc: Any = None
        self._admin: asyncio.Server | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen for gRPC and for operators too, where a port is set. Raises: AddressUnavailable."""
        if self._settings.admin_port is not None:
            from service.api import admin

            address = self._settings.admin_host, self._settings.admin_port
            listener = listen(*address, shared=self.shares_ports, option="--admin-port")
            self._admin = await admin.start(listener, self.lifecycle, self._switch, self._settings)
            log.info("listening for operators on http://%s:%d/metrics", *listener.getsockname()[:2])
        if self._settings.grpc_port is not None:
            from service.api.v2 import rpc  # slow to import, and most services do without

            predictions = Predictions(self._settings, self.lifecycle)
            self._rpc = await rpc.start(self._settings, self.lifecycle, predictions, shared=self.shares_ports)
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """gRPC first, because the threads end with HTTP; both within one `stop_timeout_s`."""
        if self._rpc is not None:
            began = time.monotonic()
            await self._rpc.stop(self._settings.stop_timeout_s)
            spent = int(time.monotonic() - began)
            self.config.timeout_graceful_shutdown = max(0, self._settings.stop_timeout_s - spent)
        await super().shutdown(sockets)
        self._switch.close()
        if self._admin is not None:
            self._admin.close()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: the first SIGTERM starts the delay, anything after it ends it."""
        first = not self.lifecycle.draining
        self.lifecycle.draining = True
        if first and sig == signal.SIGTERM:
            self._stop_at = time.monotonic() + self._settings.drain_delay_s
        elif self.should_exit:
            self.force_exit = True
        else:
            self._stop_at = 0

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: is it time to go?"""
        self.lifecycle.tell()
        if self.lifecycle.keys is not None:
            self.lifecycle.keys.refresh()
        self._switch.tick()
        if self.lifecycle.failure is not None or time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)


def config_of(settings: Settings, lifecycle: Lifecycle, protocol: type[GuardedProtocol]) -> uvicorn.Config:
    """How uvicorn is to serve."""
    return uvicorn.Config(
        create_app(settings, lifecycle),
        http=protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.limits.keep_alive_s,
        timeout_graceful_shutdown=settings.stop_timeout_s,
    )
