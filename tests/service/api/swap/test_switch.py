"""A process's part in a change, with a hub in the same process."""

import asyncio
import gc
import resource
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any
from weakref import ref

import pytest

from contract.errors import SwapRefused
from service.api.lifecycle import Lifecycle
from service.api.settings import Settings
from service.api.swap.hub import Hub
from service.api.swap.switch import Switch
from service.scoring.scorer import Scorer

Scenario = Callable[[Switch, Lifecycle], Coroutine[Any, Any, None]]


def play(bundle: Path, scenario: Scenario) -> None:
    """With one process, as `fullfunnel serve` puts it together."""

    async def all_of_it() -> None:
        with closing(Hub(str(bundle))) as hub:
            said, settings = hub.open(0), Settings(trial_s=0)
            lifecycle = Lifecycle(settings, lambda: Scorer.load(bundle))
            switch = Switch(settings, lifecycle, hub.end(0), bundle)
            asyncio.get_running_loop().add_reader(said, hub.heard, 0)
            await lifecycle.start()
            await scenario(switch, lifecycle)
            asyncio.get_running_loop().remove_reader(said)
            switch.close()
            lifecycle.close()

    asyncio.run(all_of_it())


def versions_of(switch: Switch) -> list[str | None]:
    return [None if scorer is None else scorer.manifest.version for scorer in switch.models.values()]


def test_models_take_their_places_and_go_back(versions: Path) -> None:
    async def scenario(switch: Switch, lifecycle: Lifecycle) -> None:
        assert versions_of(switch) == ["1", None, None]
        await switch.swap("2")
        assert versions_of(switch) == ["2", "1", None] and lifecycle.scorer.manifest.version == "2"
        assert lifecycle.bundle == (versions / "2").resolve(), "where jobs find it"
        await switch.shadow("3")
        assert versions_of(switch) == ["2", "1", "3"]
        await switch.back()
        await switch.shadow(None)
        assert versions_of(switch) == ["1", "2", None]
        await switch.swap()
        assert versions_of(switch) == ["1", "2", None], "what is served already stays"

    play(versions / "1", scenario)


def test_a_model_that_nobody_goes_back_to_is_gone_at_once(versions: Path) -> None:
    async def scenario(switch: Switch, lifecycle: Lifecycle) -> None:
        first, second = ref(lifecycle.scorer), "2"
        await switch.swap(second)
        assert first() is not None, "one can go back to it"
        gc.disable()  # what refers to itself would wait for this
        try:
            await switch.swap("3")
            assert first() is None
            await switch.shadow("2")
            shadow = ref(switch.models["shadow"])
            assert shadow() is not None
            await switch.shadow(None)
            assert shadow() is None
        finally:
            gc.enable()

    play(versions / "1", scenario)


def test_a_model_at_fault_is_taken_back_also_where_something_else_is_being_changed(
    versions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.swap.switch.LOOK_S", 0.01)

    async def scenario(switch: Switch, lifecycle: Lifecycle) -> None:
        await switch.swap("2")
        shadowing = asyncio.create_task(switch.shadow("3"))
        while not switch._asked:  # until the hub has been asked
            await asyncio.sleep(0)
        await switch._fallen_back(switch._roles["current"])
        await shadowing
        assert versions_of(switch) == ["1", None, "3"]

    play(versions / "1", scenario)


def test_without_a_trial_a_fault_changes_nothing(versions: Path) -> None:
    async def scenario(switch: Switch, lifecycle: Lifecycle) -> None:
        await switch.swap("2")
        switch._fault(lifecycle.scorer)
        assert not switch._tasks and versions_of(switch) == ["2", "1", None]

    play(versions / "1", scenario)


def test_each_refusal_is_an_error_of_its_own(versions: Path) -> None:
    async def scenario(switch: Switch, _: Lifecycle) -> None:
        with pytest.raises(SwapRefused, match="no model was served before") as first:
            await switch.back()
        with pytest.raises(SwapRefused) as second:
            await switch.back()
        assert first.value is not second.value, "or its traceback would grow without end"

    play(versions / "1", scenario)


def test_what_the_system_cannot_hold_is_refused_and_nothing_changes(versions: Path) -> None:
    async def scenario(switch: Switch, lifecycle: Lifecycle) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            with pytest.raises(SwapRefused, match=r"could not hold it beside the other \(File too large\)"):
                await switch.swap("2")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert lifecycle.scorer.manifest.version == "1"
        await switch.swap("2")

    play(versions / "1", scenario)
