"""One process: listen, serve, and go without losing a request.

Knows uvicorn, sockets and signals. Does not know routes.

On SIGTERM /readyz turns 503 at once, requests are still answered for `drain_delay_s` (so that load balancers
notice), then the socket closes, requests under way are finished, and the process exits 0. On ctrl-C, or at a second
SIGTERM, the delay is left out.
"""

import signal
import time
from types import FrameType

import uvicorn

from service.api.app import create_app
from service.api.lifecycle import Lifecycle
from service.api.protocol import GuardedProtocol
from service.api.settings import Settings


class Server(uvicorn.Server):
    """uvicorn, leaving in the order that load balancers need."""

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle, drain_delay_s: float) -> None:
        super().__init__(config)
        self.lifecycle = lifecycle
        self._drain_delay_s = drain_delay_s
        self._stop_at = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: the first SIGTERM starts the delay, anything after it ends it."""
        first = not self.lifecycle.draining
        self.lifecycle.draining = True
        if first and sig == signal.SIGTERM:
            self._stop_at = time.monotonic() + self._drain_delay_s
        elif self.should_exit:
            self.force_exit = True
        else:
            self._stop_at = 0

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: is it time to go?"""
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
