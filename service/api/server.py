"""One process: listen, serve, and go without losing a request.

Knows uvicorn, sockets and signals. Does not know routes.

On SIGTERM /readyz turns 503 at once, requests are still answered for `drain_delay_s` (so that load balancers
notice), then the socket closes, requests under way are finished, and the process exits 0. On ctrl-C, or at a second
SIGTERM, the delay is left out.
"""

import ipaddress
import logging
import signal
import socket
import time
from pathlib import Path
from types import FrameType

import uvicorn

from contract.errors import AddressUnavailable, SettingInvalid
from service.api.app import create_app
from service.api.lifecycle import Lifecycle
from service.api.routes import Predictions
from service.api.settings import Settings
from service.api.shortcut import shortened_by
from service.scoring.scorer import Scorer

log = logging.getLogger("fullfunnel")


class Server(uvicorn.Server):
    """uvicorn, leaving in the order that load balancers need."""

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle, drain_delay_s: float) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_delay_s = drain_delay_s
        self._stop_at = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: the first SIGTERM starts the delay, anything after it ends it."""
        first = not self._lifecycle.draining
        self._lifecycle.draining = True
        if first and sig == signal.SIGTERM:
            self._stop_at = time.monotonic() + self._drain_delay_s
        elif self.should_exit:
            self.force_exit = True
        else:
            self._stop_at = 0

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: is it time to go?"""
        if self._lifecycle.failure is not None or time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)


def serve(bundle: Path, settings: Settings) -> None:
    """Serve `bundle` until told to stop.

    Raises: AddressUnavailable, SettingInvalid, BundleInvalid.
    """
    check_exposure(settings)
    with listen(settings.host, settings.port) as listener:
        lifecycle = Lifecycle(settings, lambda: Scorer.load(bundle, settings.scoring))
        host, port = listener.getsockname()[:2]
        address = f"[{host}]" if ":" in host else host
        log.info("listening on http://%s:%d (documentation at /docs)", address, port)
        server = Server(_config(settings, lifecycle), lifecycle, settings.drain_delay_s)
        server.run(sockets=[listener])
    if lifecycle.failure is not None:
        raise lifecycle.failure


def check_exposure(settings: Settings) -> None:
    """Raises: SettingInvalid where other machines could ask without a key, unless that is what was asked for."""
    if settings.insecure or settings.host == "localhost":
        return
    try:
        if ipaddress.ip_address(settings.host).is_loopback:
            return
    except ValueError:
        pass
    raise SettingInvalid(
        "other machines can reach this address, and the service asks nobody for a key",
        place=f"host {settings.host}",
        remedy="listen on 127.0.0.1 behind a proxy that does ask, or say --insecure",
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one.

    Raises: AddressUnavailable.
    """
    place = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(2048)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise AddressUnavailable(
            f"cannot listen here ({error.strerror})", place=place, remedy="stop what does, or choose another --port"
        ) from None
    return listener


def _config(settings: Settings, lifecycle: Lifecycle) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(settings, lifecycle),
        http=shortened_by(settings.limits, lifecycle, Predictions(settings, lifecycle).shortcuts()),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.limits.keep_alive_s,
        timeout_graceful_shutdown=settings.stop_timeout_s,
    )
