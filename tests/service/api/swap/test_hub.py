"""The order of a change, without processes: what the hub says to whom, and what it keeps."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from service.api.swap.hub import Hub
from service.api.swap.line import Line


class Process:
    """The other end of a line: reads what was said, and answers as it is told to."""

    def __init__(self, hub: Hub, number: int) -> None:
        self.hub, self.number = hub, number
        hub.open(number)
        self.line: Line = hub.end(number)
        self.files: list[int] = []

    def heard(self) -> list[dict[str, Any]]:
        found = []
        while (said := self.line.receive()) is not None:
            found.append(said[0])
            if said[1] is not None:
                os.close(said[1])
        return found

    def says(self) -> list[str]:
        return [f"{m['say']} {m.get('number', m.get('current', m.get('refused')))}" for m in self.heard()]

    def tell(self, file: int | None = None, **message: Any) -> None:
        self.line.send(message, file)
        self.hub.heard(self.number)

    def swap(self, identity: int = 7) -> None:
        file = os.memfd_create("bundle")
        self.tell(file, ask="swap", path="bundles/2", id=identity)
        os.close(file)


@pytest.fixture
def pair() -> Iterator[tuple[Hub, Process, Process]]:
    hub = Hub("bundles/1")
    one, other = Process(hub, 0), Process(hub, 1)
    assert one.says() == other.says() == ["roles 0"]
    yield hub, one, other
    hub.close()


def test_all_load_one_after_the_other_and_then_all_change_over(pair: tuple[Hub, Process, Process]) -> None:
    _, one, other = pair
    other.swap()
    assert one.says() == ["load 1"] and other.says() == []
    one.tell(did="load", failed=None)
    assert one.says() == [] and other.says() == ["load 1"]
    other.tell(did="load", failed=None)
    assert one.heard() == [
        {"say": "roles", "turn": 1, "trial": True, "path": "bundles/2", "current": 1, "previous": 0, "shadow": None}
    ]
    assert other.says() == ["roles 1"]
    other.tell(did="roles")
    assert other.says() == [], "it is over when all are"
    one.tell(did="roles")
    assert other.says() == ["answer None"] and one.says() == []


def test_if_one_cannot_load_it_nothing_changes(pair: tuple[Hub, Process, Process]) -> None:
    _, one, other = pair
    one.swap()
    one.tell(did="load", failed=None)
    other.tell(did="load", failed="MemoryError")
    assert one.says() == ["load 1", "answer failed", "roles 0"]
    assert other.says() == ["load 1", "roles 0"]
    for process in (one, other):
        process.tell(did="roles")
    one.swap()
    assert one.says() == ["load 2"], "and the next one may begin"


def test_while_one_change_is_under_way_others_are_refused(pair: tuple[Hub, Process, Process]) -> None:
    _, one, other = pair
    one.swap()
    other.swap(8)
    other.tell(ask="back", id=9)
    assert other.says() == ["answer busy"] * 2


@pytest.mark.parametrize("phase", ["load", "roles"])
def test_a_process_that_ends_is_not_waited_for(pair: tuple[Hub, Process, Process], phase: str) -> None:
    hub, one, other = pair
    other.swap()
    if phase == "roles":
        one.tell(did="load", failed=None)
        other.tell(did="load", failed=None)
        other.tell(did="roles")
    other.says()
    hub.gone(0)
    if phase == "load":
        assert other.says() == ["load 1"]
        other.tell(did="load", failed=None)
        assert other.says() == ["roles 1"]
        other.tell(did="roles")
    assert other.says() == ["answer None"]


def test_a_process_that_begins_during_a_change_takes_part_in_it(pair: tuple[Hub, Process, Process]) -> None:
    hub, one, other = pair
    one.swap()
    hub.gone(1)
    other = Process(hub, 1)
    assert other.says() == ["roles 0"]
    one.tell(did="load", failed=None)
    assert other.says() == ["load 1"]
    other.tell(did="load", failed=None)
    assert other.says() == ["roles 1"]


def test_a_process_that_begins_after_a_change_loads_what_answers_and_nothing_else(
    pair: tuple[Hub, Process, Process],
) -> None:
    hub, one, _ = pair
    hub.gone(1)
    for number in (1, 2):
        one.swap()
        one.tell(did="load", failed=None)
        one.tell(did="roles")
        assert one.says() == [f"load {number}", f"roles {number}", "answer None"]
    assert Process(hub, 1).says() == ["load 2", "roles 2"]


def test_back_goes_to_the_one_before_and_forth_again_but_never_to_one_at_fault(
    pair: tuple[Hub, Process, Process],
) -> None:
    hub, one, _ = pair
    hub.gone(1)

    def ask(**message: Any) -> list[str]:
        one.tell(ask="back", id=1, **message)
        heard = one.says()
        if heard[0].startswith("load"):
            one.tell(did="load", failed=None)
            one.tell(did="roles")
            heard += one.says()
        return heard

    assert ask() == ["answer nothing"]
    one.swap()
    one.tell(did="load", failed=None)
    one.tell(did="roles")
    one.says()
    assert ask() == ["load 0", "roles 0", "answer None"]
    assert ask() == ["load 1", "roles 1", "answer None"]
    assert ask(bad=0) == ["answer nothing"], "which does not answer any more"
    assert ask(bad=1) == ["load 0", "roles 0", "answer None"]
    assert ask() == ["answer nothing"]


def test_what_has_no_role_any_more_is_let_go(pair: tuple[Hub, Process, Process]) -> None:
    hub, one, _ = pair
    hub.gone(1)
    open_before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        one.swap()
        one.tell(did="load", failed=None)
        one.tell(did="roles")
        one.says()
    assert len(os.listdir("/proc/self/fd")) == open_before + 2, "what answers and what did before"


def test_sighup_goes_to_the_first_process_there_is(pair: tuple[Hub, Process, Process]) -> None:
    hub, _, other = pair
    hub.gone(0)
    hub.reload()
    assert other.says() == ["reload None"]
