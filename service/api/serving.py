"""`fullfunnel serve`: one process, or several under a supervisor.

Knows how the parts are put together. Does not know routes, nor how any part works.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager

import uvicorn

from contract.bundle import Bundle
from contract.errors import FullfunnelError
from service.api.keys import Keys
from service.api.lifecycle import Lifecycle, recorder_of
from service.api.listening import check_exposure, listen, listen_together, reserve
from service.api.metrics.cells import Block
from service.api.routes import shortcuts
from service.api.server import Server, config_of
from service.api.settings import Settings
from service.api.shortcut import ShortcutProtocol, shortened_by
from service.api.spreading import Receiver, Spread, spread_over
from service.api.supervisor import BEAT_S, FAILED, Pulse, Supervisor
from service.api.swap.hub import Hub
from service.api.swap.switch import Switch
from service.api.v2.http import shortcuts as v2_shortcuts
from service.reading import Reading
from service.scoring.scorer import Scorer

GRACE_S = 5.0  # beyond what requests under way get

log = logging.getLogger("fullfunnel")


def serve(reading: Reading, settings: Settings) -> int:
    """Serve a bundle until told to stop: the exit status.

    Raises: AddressUnavailable, SettingInvalid, BundleInvalid.
    """
    check_exposure(settings)
    Keys.of(settings.keys)  # or each worker would say what is wrong with them
    workers = settings.workers or len(os.sched_getaffinity(0))
    return _serve_alone(reading, settings) if workers == 1 else _serve_together(reading, settings, workers)


def _serve_alone(reading: Reading, settings: Settings) -> int:
    with listen(settings.host, settings.port) as listener, closing(Hub(str(reading.path))) as hub:
        _say_where(listener, settings)
        recorder = recorder_of(settings, Block(1))
        said = hub.open(0)
        lifecycle = Lifecycle(settings, lambda: Scorer.of(reading.take(), settings.scoring), recorder)
        switch = Switch(settings, lifecycle, hub.end(0), reading.path)
        config = config_of(settings, lifecycle, _protocol(settings, lifecycle))
        Alone(config, lifecycle, settings, switch, hub, said).run(sockets=[listener])
    if lifecycle.failure is not None:
        raise lifecycle.failure
    return 0


def _serve_together(reading: Reading, settings: Settings, workers: int) -> int:
    listeners = listen_together(settings.host, settings.port, workers)
    _say_where(listeners[0], settings)
    load = _loader(reading.take(), settings)

    patience_s = settings.drain_delay_s + settings.stop_timeout_s + GRACE_S
    block, hub = Block(workers), Hub(str(reading.path))
    with closing(Spread(workers)) as spread, _one_port_each(settings) as settings:

        def work(number: int, listener: socket.socket, pulse: Pulse) -> int:
            lifecycle = Lifecycle(settings, load, recorder_of(settings, block, number))
            switch = Switch(settings, lifecycle, hub.take(number), reading.path)
            lifecycle.load = _done(lifecycle.load, pulse)
            config = config_of(settings, lifecycle, spread_over(_protocol(settings, lifecycle), spread, number))
            Worker(config, lifecycle, settings, switch, spread, number, pulse).run(sockets=[listener])
            if isinstance(lifecycle.failure, FullfunnelError):
                sys.stderr.write(f"service: {lifecycle.failure}\n")
                return FAILED
            if lifecycle.failure is not None:
                raise lifecycle.failure
            return 0

        return Supervisor(
            listeners, work, spread.leave, hub, silence_s=settings.worker_silence_s, patience_s=patience_s
        ).run()


@contextmanager
def _one_port_each(settings: Settings) -> Iterator[Settings]:
    """The settings with the ports that all workers are to listen on, kept from other programs meanwhile."""
    with ExitStack() as stack:
        ports = {}
        if settings.grpc_port is not None:
            held = stack.enter_context(reserve(settings.host, settings.grpc_port, option="--grpc-port"))
            ports["grpc_port"] = held.getsockname()[1]
        if settings.admin_port is not None:
            held = stack.enter_context(reserve(settings.admin_host, settings.admin_port, option="--admin-port"))
            ports["admin_port"] = held.getsockname()[1]
        yield settings.model_copy(update=ports)


def _loader(bundle: Bundle, settings: Settings) -> Callable[[], Scorer]:
    """What gives each worker its scorer: one that was loaded here, so that memory holds it once, where that can be.

    A session on a GPU or with threads of its own does not live through a fork.

    Raises: SettingInvalid, BundleInvalid.
    """
    if settings.provider != "cpu" or settings.intra_op_threads != 1:
        return lambda: Scorer.of(bundle, settings.scoring)
    scorer = Scorer.of(bundle, settings.scoring)
    gc.freeze()  # or the first collection in each worker would touch, and so copy, every page
    return lambda: scorer


def _done(load: Callable[[], Scorer], pulse: Pulse) -> Callable[[], Scorer]:
    """What `load` answers or raises, when it has: other workers answer meanwhile, so there is no hurry to listen."""
    with ThreadPoolExecutor(1) as thread:
        loading = thread.submit(load)
        while not wait([loading], BEAT_S).done:
            pulse.beat(ready=False)
    return loading.result


def _protocol(settings: Settings, lifecycle: Lifecycle) -> type[ShortcutProtocol]:
    given = {**shortcuts(settings, lifecycle), **v2_shortcuts(settings, lifecycle)}
    return shortened_by(settings.limits, lifecycle, given)


def _say_where(listener: socket.socket, settings: Settings) -> None:
    host, port = listener.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    more = "documentation at /docs" if settings.keys is None else "for those who have a key"
    log.info("listening on http://%s:%d (%s)", address, port, more)


class Alone(Server):
    """The only process, which has the hub in it."""

    def __init__(
        self, config: uvicorn.Config, lifecycle: Lifecycle, settings: Settings, switch: Switch, hub: Hub, said: int
    ) -> None:
        super().__init__(config, lifecycle, settings, switch)
        self._hub, self._said = hub, said

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, to the hub and for SIGHUP too."""
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._said, self._hub.heard, 0)
        loop.add_signal_handler(signal.SIGHUP, self._hub.reload)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is under way, and go."""
        await super().shutdown(sockets)
        asyncio.get_running_loop().remove_reader(self._said)


class Worker(Server):
    """One of several processes."""

    shares_ports = True

    def __init__(
        self,
        config: uvicorn.Config,
        lifecycle: Lifecycle,
        settings: Settings,
        switch: Switch,
        spread: Spread,
        number: int,
        pulse: Pulse,
    ) -> None:
        super().__init__(config, lifecycle, settings, switch)
        self._spread, self._number, self._pulse = spread, number, pulse

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, at the door too, and for the end of the supervisor."""
        await super().startup(sockets)
        self._receiver = Receiver(self._spread, self._number, self._new_protocol)
        asyncio.get_running_loop().add_reader(self._pulse.life, self._orphaned)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        self._pulse.beat(self.lifecycle.ready)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is under way, and go."""
        await self._receiver.close()
        await super().shutdown(sockets)

    def _new_protocol(self) -> asyncio.Protocol:
        kind = self.config.http_protocol_class
        return kind(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[call-arg]

    def _orphaned(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pulse.life)
        self.handle_exit(signal.SIGTERM, None)
