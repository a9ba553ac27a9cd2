"""The toy bundle, its scorer, and an API that is spoken to as ASGI."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api.app import create_app
from service.api.lifecycle import Lifecycle
from service.api.settings import Limits, Settings
from service.scoring.scorer import Scorer
from tests.service.process import ServiceProcess
from tests.service.toy_bundle import publish_toy


class Api:
    """Speaks to the application as an HTTP client would, without a socket."""

    def __init__(self, runner: asyncio.Runner, settings: Settings, load: Callable[[], Scorer]) -> None:
        self.lifecycle = Lifecycle(settings, load)
        self.app = create_app(settings, self.lifecycle)
        self._runner = runner
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://service")

    def start(self) -> "Api":
        self._runner.run(self.lifecycle.start())
        return self

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._runner.run(self._client.request(method, path, **options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.call("GET", path, **options)

    def post(self, path: str, body: Any) -> httpx.Response:
        """`body` as JSON, or as it is where it is bytes."""
        if isinstance(body, bytes):
            return self.call("POST", path, content=body, headers={"content-type": "application/json"})
        return self.call("POST", path, json=body)

    def gather(self, *calls: tuple[str, Any]) -> list[httpx.Response]:
        """Several POSTs at once."""

        async def all_of_them() -> list[httpx.Response]:
            return list(await asyncio.gather(*(self._client.post(path, json=body) for path, body in calls)))

        return self._runner.run(all_of_them())


MakeApi = Callable[..., Api]


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bundles") / "toy"
    publish_toy(directory)
    return directory


@pytest.fixture(scope="session")
def scorer(toy: Path) -> Scorer:
    return Scorer.load(toy)


@pytest.fixture
def make_api(scorer: Scorer) -> Iterator[MakeApi]:
    """`make_api(load=..., settings..., limits={...})`; the toy bundle unless `load` says otherwise."""
    with asyncio.Runner() as runner:

        def make(
            load: Callable[[], Scorer] = lambda: scorer, limits: dict[str, Any] | None = None, **options: Any
        ) -> Api:
            return Api(runner, Settings(limits=Limits(**(limits or {})), **options), load).start()

        yield make


@pytest.fixture
def api(make_api: MakeApi) -> Api:
    return make_api()


@pytest.fixture
def workers(toy: Path) -> Iterator[ServiceProcess]:
    """A service of two processes."""
    with ServiceProcess(toy, "--workers", "2", "--drain-delay-s", "0.2") as process:
        yield process
