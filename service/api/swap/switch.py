"""A process's part in a change of the model: load, change over, fall back.

Knows the lifecycle, the line to the hub, and scorers. Does not know HTTP, nor the other processes.
"""

import asyncio
import itertools
import logging
import os
import select
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path

from contract.bundle import Bundle, read_bundle
from contract.errors import BundleInvalid, FullfunnelError, SwapBusy, SwapInvalid, SwapRefused
from service.api.lifecycle import Lifecycle
from service.api.metrics.families import BACK, BROKEN, DONE, FELL_BACK, REFUSED
from service.api.settings import Settings
from service.api.swap.aside import Aside
from service.api.swap.fitting import check_fits
from service.api.swap.hub import FIRST
from service.api.swap.line import Line, Message
from service.api.swap.sealed import digest_of, seal, unseal
from service.api.swap.shadow import Shadow
from service.api.swap.trial import Trial, drift_of_scores
from service.scoring.scorer import Scorer

LOOK_S = 1.0  # between two looks at a model on trial
REFUSALS: dict[str, tuple[type[SwapRefused], str, str]] = {  # what the hub says, as an error: its fact and remedy
    "busy": (SwapBusy, "a change of the model is under way", "ask again when it is done"),
    "nothing": (SwapRefused, "no model was served before this one", "name the bundle to serve instead"),
    "failed": (SwapRefused, "a process could not load it, and nothing has changed", "see the log of the service"),
}

log = logging.getLogger("fullfunnel")


class Switch:
    """Lives on the event loop; models are loaded in a thread of their own."""

    def __init__(self, settings: Settings, lifecycle: Lifecycle, line: Line, path: Path) -> None:
        self._settings, self._lifecycle, self._line, self._path = settings, lifecycle, line, path
        self._first, lifecycle.load, lifecycle.on_ready = lifecycle.load, self.begin, self.start
        self._scorers: dict[int, Scorer] = {}
        self._made: Scorer | None = None  # read and loaded here, before it has a number
        self._roles: Message = {}
        self._ids = itertools.count()
        self._asked: dict[int, asyncio.Future[str | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._aside = Aside()
        self._trial: Trial | None = None
        self._look_at = 0.0
        self._shadow: Shadow | None = None

    def begin(self) -> Scorer:
        """The model that answers in the other processes now; to be called once, before `start`, in any thread.

        Raises: BundleInvalid, SettingInvalid.
        """
        while True:
            select.select([self._line], [], [])
            if (said := self._line.receive()) is None:
                raise SwapRefused("the service has gone")
            message, file = said
            if message["say"] == "load" and file is not None:
                try:
                    self._scorers[message["number"]] = self._load(file)
                finally:
                    os.close(file)
            elif message["say"] == "roles":
                break
        self._roles = message
        self._lifecycle.turn = message["turn"]
        self._lifecycle.bundle = Path(message["path"]).resolve()
        if (current := message["current"]) == FIRST:
            self._scorers[FIRST] = self._first()
        return self._scorers[current]

    def start(self) -> None:
        """Take part from now on. On the event loop, when the first model is there."""
        loop = asyncio.get_running_loop()

        def on_fault(scorer: Scorer) -> None:
            loop.call_soon_threadsafe(self._fault, scorer)

        self._lifecycle.recorder.on_fault = on_fault
        self._cast_shadow()
        loop.add_reader(self._line, self._heard)
        self._heard()

    def close(self) -> None:
        """Take part no more."""
        asyncio.get_running_loop().remove_reader(self._line)
        for task in self._tasks:
            task.cancel()
        if self._shadow is not None:
            self._shadow.close()
        self._line.close()

    async def swap(self, name: str | None = None) -> None:
        """Have all processes answer with another bundle.

        name: of a folder beside the bundle that the service was started with; None: that one, read again.
        Raises: SwapRefused, SwapInvalid, SwapBusy, NotReady.
        """
        path = self._path if name is None else self._path.parent / name
        try:
            file = await asyncio.to_thread(self._read_aside, path)
            try:
                if digest_of(file) == self._lifecycle.scorer.digest:
                    log.info("%s is served already", path.name)
                    return
                await self._ask({"ask": "swap", "path": str(path)}, file)
            finally:
                os.close(file)
        except FullfunnelError as error:
            self._lifecycle.recorder.swapped(REFUSED)
            log.error("the model was not changed: %s", error)
            raise
        except BaseException:
            self._lifecycle.recorder.swapped(BROKEN)
            raise
        finally:
            self._made = None
        self._lifecycle.recorder.swapped(DONE)

    async def back(self) -> None:
        """Have all processes answer with the model before this one. Raises: SwapRefused, SwapBusy."""
        try:
            await self._ask({"ask": "back"})
        except FullfunnelError:
            self._lifecycle.recorder.swapped(REFUSED)
            raise
        self._lifecycle.recorder.swapped(BACK)

    async def shadow(self, name: str | None) -> None:
        """Have a bundle score in the shadow in all processes; None: none.

        Raises: SwapRefused, SwapInvalid, SwapBusy, NotReady.
        """
        if name is None:
            await self._ask({"ask": "shadow", "path": ""})
            return
        path = self._path.parent / name
        try:
            file = await asyncio.to_thread(self._read_aside, path)
            try:
                await self._ask({"ask": "shadow", "path": str(path)}, file)
            finally:
                os.close(file)
        finally:
            self._made = None

    @property
    def models(self) -> dict[str, Scorer | None]:
        """What answers, what did before, and what scores in the shadow, of what this process has loaded."""
        return {role: self._scorers.get(self._roles.get(role, -1)) for role in ("current", "previous", "shadow")}

    def tick(self) -> None:
        """To be called often: looks at a model that is on trial."""
        if self._trial is None or (now := time.monotonic()) < self._look_at:
            return
        self._look_at = now + LOOK_S
        if self._trial.over:
            self._trial.end()
            self._trial = None
            log.info("the new model stays: its trial is over")
        elif (output := self._trial.shifted()) is not None:
            self._fall_back(f"its scores of {output} have shifted")

    def _read_aside(self, path: Path) -> int:
        with self._aside:
            return self._read(path)

    def _load_aside(self, file: int | None) -> Scorer:
        with self._aside:
            return self._first() if file is None else self._load(file)

    def _read(self, path: Path) -> int:
        """The sealed bundle at a path, when it has been loaded here and has scored its golden rows."""
        try:
            bundle = read_bundle(path)
            check_fits(self._lifecycle.scorer.manifest, bundle.manifest)
            file = seal(bundle)
            del bundle
            try:
                self._made = self._load(file)
            except BaseException:
                os.close(file)
                raise
            return file
        except BundleInvalid as error:  # whoever asks knows a name, and is told no path
            raise SwapInvalid(error.fact, error.place.replace(f"{path.parent}/", ""), error.remedy) from None
        except OSError as error:
            raise SwapRefused(
                f"the system could not hold it beside the other ({error.strerror})",
                remedy="give the service more memory",
            ) from None

    def _load(self, file: int) -> Scorer:
        bundle: Bundle = unseal(file)
        made = self._made
        return made if made is not None and made.digest == bundle.digest else Scorer.of(bundle, self._settings.scoring)

    async def _ask(self, message: Message, file: int | None = None) -> None:
        number = next(self._ids)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._line.send({**message, "id": number}, file)
            refused = await answer
        finally:
            del self._asked[number]
        if refused is not None:
            kind, fact, remedy = REFUSALS[refused]
            raise kind(fact, remedy=remedy)

    def _heard(self) -> None:
        while (said := self._line.receive()) is not None:
            message, file = said
            if message["say"] == "load":
                self._spawn(self._load_for_all(message["number"], file))
            elif message["say"] == "roles":
                self._change_over(message)
            elif message["say"] == "reload":
                self._spawn(self._reload())
            elif (answer := self._asked.get(message["asked"])) is not None and not answer.done():
                answer.set_result(message["refused"])

    async def _load_for_all(self, number: int, file: int | None) -> None:
        failed = None
        try:
            if number not in self._scorers:
                self._scorers[number] = await asyncio.to_thread(self._load_aside, file)
        except Exception as error:
            log.exception("a model could not be loaded")
            failed = type(error).__name__
        finally:
            if file is not None:
                os.close(file)
        self._line.send({"did": "load", "failed": failed})

    async def _reload(self) -> None:
        with suppress(FullfunnelError):  # the log has it
            await self.swap()

    def _change_over(self, roles: Message) -> None:
        before, self._roles = self._roles, roles
        lifecycle, current = self._lifecycle, self._scorers[roles["current"]]
        if before["turn"] != roles["turn"]:
            drift, _ = drift_of_scores(lifecycle.recorder)
            lifecycle.turn, lifecycle.bundle = roles["turn"], Path(roles["path"]).resolve()
            lifecycle.adopt(current)
            self._trial = None
            if roles["trial"] and self._settings.trial_s:
                seconds, max_psi = self._settings.trial_s, self._settings.trial_psi
                self._trial = Trial(lifecycle.recorder, drift, seconds=seconds, max_psi=max_psi)
            manifest = current.manifest
            log.info("now answering: %s %s, digest %s", manifest.name, manifest.version, current.digest)
        if before["shadow"] != roles["shadow"]:
            self._cast_shadow()
        with_role = {roles["current"], roles["previous"], roles["shadow"]}
        self._scorers = {number: scorer for number, scorer in self._scorers.items() if number in with_role}
        self._line.send({"did": "roles"})

    def _cast_shadow(self) -> None:
        """Compare with the model in the shadow from now on, or with none."""
        recorder, scorer = self._lifecycle.recorder, self.models["shadow"]
        if self._shadow is not None:
            threading.Thread(target=self._shadow.close).start()  # it may be comparing
        self._shadow = None if scorer is None else Shadow(scorer, self._settings.shadow_every, recorder.compared)
        recorder.shadow = self._shadow

    def _fault(self, scorer: Scorer) -> None:
        if self._trial is not None and scorer is self._lifecycle.scorer:
            self._fall_back("it has failed")

    def _fall_back(self, why: str) -> None:
        self._trial = None
        log.error("the new model is taken back: %s", why)
        self._spawn(self._fallen_back(self._roles["current"]))

    async def _fallen_back(self, bad: int) -> None:
        try:
            await self._ask({"ask": "back", "bad": bad})
        except SwapBusy:  # somebody is changing something, perhaps only the shadow
            await asyncio.sleep(LOOK_S)
            await self._fallen_back(bad)
        except SwapRefused:
            log.info("the new model does not answer any more: another process was first")
        else:
            self._lifecycle.recorder.swapped(FELL_BACK)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
