"""Which scorer answers, whether the service is ready, and how much it takes on at once.

Knows states, counts and keys. Does not know HTTP, nor how a scorer is loaded: it is given a function that does.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from contract.errors import NotReady, Overloaded
from service.api.keys import ACCESS, Keys
from service.api.metrics.cells import Block
from service.api.metrics.recorder import Recorder
from service.api.overlap import Overlap
from service.api.settings import Settings
from service.scoring import plain
from service.scoring.batching import Batcher
from service.scoring.scorer import Scorer
from service.scoring.session import GPU

log = logging.getLogger("fullfunnel")
access = logging.getLogger("fullfunnel.access")


class Ids(NamedTuple):
    """What a request is known by, here and to whoever follows it through several services."""

    request_id: str
    traceparent: str | None = None


class Counted(Protocol):
    """A request that has been read."""

    @property
    def count(self) -> int:
        """How many candidates it asks about."""


class Lifecycle:
    """The state of one serving process. Lives on the event loop; only `load` runs in a thread."""

    def __init__(self, settings: Settings, load: Callable[[], Scorer], recorder: Recorder | None = None) -> None:
        self.draining = False
        self.failure: Exception | None = None
        self.bundle: Path | None = None  # where the model comes from, for processes beside this one
        self.turn = 0  # of the models that have answered since the service began, in every process
        self.keys = Keys.of(settings.keys)
        self.recorder = recorder or recorder_of(settings, Block(1))
        self.threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="scoring")
        self.waiting = ThreadPoolExecutor(settings.limits.max_concurrency, thread_name_prefix="waiting")
        self.on_ready: Callable[[], None] = lambda: None  # called once there is a model, on the event loop
        self._settings, self._limits = settings, settings.limits
        self.batcher: Batcher | None = None
        self.overlap: Overlap | None = None
        self.load = load  # what answers first
        self._scorer: Scorer | None = None
        self._predictions = 0
        self._buffered_bytes = 0

    async def start(self) -> None:
        """Load, verify and warm the bundle, off the event loop. What goes wrong is kept as `failure`."""
        try:
            scorer = await asyncio.get_running_loop().run_in_executor(self.threads, self.load)
        except Exception as error:
            self.failure = error
            return
        self.batcher = _batcher(scorer, self._settings, self.recorder)
        if self.batcher is None and self._settings.overlaps:
            self.overlap = Overlap(asyncio.get_running_loop(), self.recorder.queued)
        self.adopt(scorer)
        manifest = scorer.manifest
        log.info(
            "ready: %s %s, digest %s, on %s", manifest.name, manifest.version, scorer.digest, scorer.session.provider
        )
        if not plain.compiled():
            log.warning("no compiled code was installed: requests are read by Python alone, which takes longer")
        self.on_ready()

    def adopt(self, scorer: Scorer) -> None:
        """From now on this one answers; what has been begun with the one before is finished with it."""
        self.recorder.watch(scorer, self.turn)
        self._scorer = scorer

    def close(self) -> None:
        """End the threads, when nothing is under way any more."""
        if self.batcher is not None:
            self.batcher.close()
        if self.overlap is not None:
            self.overlap.close()
        self.waiting.shutdown()
        self.threads.shutdown()

    @property
    def scorer(self) -> Scorer:
        """What answers requests now. Raises: NotReady."""
        if self._scorer is None:
            raise NotReady("no model has been loaded yet", remedy="ask again in a moment")
        return self._scorer

    @property
    def ready(self) -> bool:
        """Whether a model has been loaded."""
        return self._scorer is not None

    def check_ready(self) -> None:
        """Raises: NotReady, while loading and while draining."""
        if self.draining:
            raise NotReady("the service is stopping", remedy="send requests elsewhere")
        self.scorer  # noqa: B018

    def tell(self) -> None:
        """Let the other processes know how things stand."""
        self.recorder.state(self.ready and not self.draining, self._predictions)

    def check_key(self, route: str, authorization: str) -> None:
        """Raises: KeyMissing, KeyForbidden, where a key is asked for and the header holds none for this route."""
        if self.keys is not None:
            self.keys.check(authorization.encode("latin-1", "replace"), ACCESS[route])

    @contextmanager
    def prediction(self) -> Iterator[None]:
        """One prediction under way. Raises: Overloaded."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> None:
        """A prediction is under way until `leave`. Raises: Overloaded."""
        if self._predictions >= self._limits.max_concurrency:
            raise Overloaded("too many predictions are under way", remedy="send the request again a little later")
        self._predictions += 1

    def leave(self) -> None:
        """It has been answered."""
        self._predictions -= 1

    def note(self, asked: Counted | list[Any]) -> None:
        """Count what is asked."""
        for request in asked if isinstance(asked, list) else (asked,):
            self.recorder.prediction(request.count)

    def answered(self, route: str, outcome: str, began: float, ids: Ids | None = None) -> None:
        """A request that began at `began` (time.perf_counter) has been answered."""
        self.recorder.request(route, outcome, began)
        if self._settings.access_log:
            spent = {"route": route, "outcome": outcome, "duration_ms": round(1000 * (time.perf_counter() - began), 2)}
            access.info("answered", extra={**spent, **(ids._asdict() if ids else {})})

    def hold(self, size: int) -> None:
        """Count bytes of a body as held in memory. Raises: Overloaded."""
        if self._buffered_bytes + size > self._limits.max_buffered_bytes:
            raise Overloaded("too many bodies are under way", remedy="send the request again a little later")
        self._buffered_bytes += size

    def release(self, size: int) -> None:
        """The bytes are gone again."""
        self._buffered_bytes -= size


def recorder_of(settings: Settings, block: Block, worker: int = 0) -> Recorder:
    """What writes the row of a worker in `block`."""
    return Recorder(block, worker, drift_every=settings.drift_every, drift_window_s=settings.drift_window_s)


def _batcher(scorer: Scorer, settings: Settings, recorder: Recorder) -> Batcher | None:
    wait_ms = settings.batch_wait_ms
    if wait_ms is None:
        wait_ms = 1.0 if scorer.session.provider == GPU else 0.0
    if not wait_ms:
        return None
    return Batcher(
        max_rows=settings.batch_rows,
        max_wait_ms=wait_ms,
        max_queue_ms=settings.queue_ms,
        queued=recorder.queued,
    )
