"""The one place of a service that knows which model answers, which did before, and which scores in the shadow.

A change has two steps. First the processes load the new model, one after the other, so that at most one core is busy
with it; if one cannot, nothing changes anywhere. Then all change over. The hub keeps the sealed bundles open, so that a
process that is started later begins with the model that answers by then. Lives in the supervisor, or in the one process
there is. Knows numbers and files of models. Does not know scorers.
"""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from service.api.swap.line import Line, Message, line

FIRST = 0  # the model that the service was started with, which processes have of themselves

log = logging.getLogger("fullfunnel")


@dataclass(frozen=True)
class Held:
    """A model by its number, where it came from, and its sealed bundle."""

    number: int
    path: str
    file: int | None = None


@dataclass(frozen=True)
class Roles:
    """What is served in the `turn`-th way."""

    current: Held
    previous: Held | None = None
    shadow: Held | None = None
    turn: int = 0
    trial: bool = False  # whether `current` is new

    @property
    def held(self) -> set[Held]:
        """All that have a role."""
        return {held for held in (self.current, self.previous, self.shadow) if held is not None}

    def message(self) -> Message:
        """The roles, to say them."""
        numbers = {
            name: None if held is None else held.number
            for name, held in (("current", self.current), ("previous", self.previous), ("shadow", self.shadow))
        }
        return {"say": "roles", "turn": self.turn, "trial": self.trial, "path": self.current.path, **numbers}


@dataclass
class Change:
    """A change under way: who asked, what is to be loaded first, and what is then to be."""

    asker: int
    asked: int
    load: Held | None
    then: Roles
    to_load: list[int] = field(default_factory=list)  # processes that are still to load it
    loading: int | None = None
    to_change: set[int] = field(default_factory=set)  # processes that have not changed over yet


class Hub:
    """Speaks with every process on a line of its own. Nothing here waits."""

    def __init__(self, path: str) -> None:
        self._roles = Roles(Held(FIRST, path))
        self._lines: dict[int, tuple[Line, Line]] = {}  # our end and the other, by process
        self._change: Change | None = None
        self._latest = FIRST
        self._asks: dict[str, Callable[[int, Message, int | None], Change | str]] = {
            "swap": self._swap,
            "back": self._back,
            "shadow": self._shadow,
        }

    def open(self, number: int) -> int:
        """A process of this number is about to be started; what can be read from when it says something."""
        self.gone(number)
        self._lines[number] = line()
        roles = replace(self._roles, previous=None)  # which it will load if it comes to that
        for held in roles.held:
            if held.file is not None:
                self._load(number, held)
        self._say(number, roles.message())
        if self._change is not None and self._change.load is not None and not self._change.to_change:
            self._change.to_load.append(number)
        return self._lines[number][0].fileno()

    def end(self, number: int) -> Line:
        """The end of a process."""
        return self._lines[number][1]

    def take(self, number: int) -> Line:
        """In the new process: its end; nothing else of the hub's stays open there."""
        ours, end = self._lines.pop(number)
        ours.close()
        self.close()
        return end

    def close(self) -> None:
        """Close every line and file."""
        for ends in self._lines.values():
            for end in ends:
                end.close()
        self._release(self._held)

    def gone(self, number: int) -> None:
        """A process has ended: nobody waits for it any more."""
        for end in self._lines.pop(number, ()):
            end.close()
        if (change := self._change) is None:
            return
        if number in change.to_load:
            change.to_load.remove(number)
        if change.to_change:
            self._changed(number)
        elif change.loading == number:
            self._go_on()

    def reload(self) -> None:
        """Have the path that the service was started with read again, by the first process there is."""
        if self._lines:
            self._say(min(self._lines), {"say": "reload"})

    def heard(self, number: int) -> None:
        """A process has said something."""
        while number in self._lines and (said := self._lines[number][0].receive()) is not None:
            message, file = said
            if (ask := message.get("ask")) is not None:
                self._begin(ask, number, message, file)
            elif message["did"] == "load":
                self._loaded(number, message["failed"])
            else:
                self._changed(number)

    def _begin(self, ask: str, number: int, message: Message, file: int | None) -> None:
        change = "busy" if self._change is not None else self._asks[ask](number, message, file)
        if isinstance(change, str):
            if file is not None:
                os.close(file)
            self._say(number, {"say": "answer", "asked": message["id"], "refused": change})
            return
        self._change = change
        if change.load is not None:
            change.to_load = sorted(self._lines)
        self._go_on()

    def _swap(self, number: int, message: Message, file: int | None) -> Change:
        held = self._new(message, file)
        roles = replace(self._roles, current=held, previous=self._roles.current, trial=True)
        return self._next(number, message, held, roles)

    def _back(self, number: int, message: Message, file: int | None) -> Change | str:
        """Back to the one before; of a fault (`bad`: the number of the model at fault) nothing is kept."""
        current, previous = self._roles.current, self._roles.previous
        if previous is None or message.get("bad", current.number) != current.number:
            return "nothing"
        kept = None if "bad" in message else current
        roles = replace(self._roles, current=previous, previous=kept, trial=False)
        return self._next(number, message, previous, roles)

    def _shadow(self, number: int, message: Message, file: int | None) -> Change:
        held = None if file is None else self._new(message, file)
        return Change(number, message["id"], held, replace(self._roles, shadow=held))

    def _new(self, message: Message, file: int | None) -> Held:
        self._latest += 1
        return Held(self._latest, message["path"], file)

    def _next(self, number: int, message: Message, load: Held, then: Roles) -> Change:
        return Change(number, message["id"], load, replace(then, turn=self._roles.turn + 1))

    @property
    def _held(self) -> set[Held]:
        """All that have a role, and what is being loaded."""
        loaded = self._change.load if self._change is not None else None
        return self._roles.held | ({loaded} if loaded is not None else set())

    def _go_on(self) -> None:
        """The next process loads, or all change over."""
        change = self._change
        assert change is not None  # noqa: S101
        while change.load is not None and change.to_load:
            change.loading = change.to_load.pop(0)
            if self._load(change.loading, change.load):
                return
        self._settle(change.then)

    def _loaded(self, number: int, failed: str | None) -> None:
        change = self._change
        if change is None or change.loading != number:
            return
        change.loading = None
        if failed is None:
            self._go_on()
            return
        log.error("the change of the model is given up: worker %d could not load it (%s)", number, failed)
        self._settle(self._roles, refused="failed")

    def _settle(self, roles: Roles, refused: str | None = None) -> None:
        """Have everybody take these roles, and drop what has none."""
        change = self._change
        assert change is not None  # noqa: S101
        if refused is not None:
            self._say(change.asker, {"say": "answer", "asked": change.asked, "refused": refused})
            change.asker = -1
        self._release(self._held - roles.held)
        self._roles = roles
        change.to_change = set(self._lines)
        for number in sorted(self._lines):
            if not self._say(number, roles.message()):
                change.to_change.discard(number)
        self._changed(-1)

    def _changed(self, number: int) -> None:
        change = self._change
        if change is None:
            return
        change.to_change.discard(number)
        if not change.to_change:
            self._change = None
            self._say(change.asker, {"say": "answer", "asked": change.asked, "refused": None})

    def _load(self, number: int, held: Held) -> bool:
        return self._say(number, {"say": "load", "number": held.number}, held.file)

    def _say(self, number: int, message: Message, file: int | None = None) -> bool:
        """Whether it was said; who cannot be told has ended, or will be ended by whoever watches over it."""
        with suppress(OSError):
            if number in self._lines:
                self._lines[number][0].send(message, file)
                return True
        return False

    def _release(self, held: set[Held]) -> None:
        for each in held:
            if each.file is not None:
                os.close(each.file)
