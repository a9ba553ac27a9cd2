"""The listener of operators."""

import asyncio
from pathlib import Path
from typing import cast

import httpx
import pytest

from contract.errors import SettingInvalid, SwapBusy
from service.api.admin import create_app
from service.api.lifecycle import Lifecycle
from service.api.listening import check_exposure
from service.api.settings import Settings
from service.api.swap.switch import Switch
from service.scoring.scorer import Scorer
from tests.service.process import ServiceProcess


def test_it_answers_beside_the_predictions_and_only_what_is_its_own(toy: Path) -> None:
    with ServiceProcess(toy, "--admin-port", "0") as service:
        admin = f"http://127.0.0.1:{service.admin_port}"
        statuses = {
            path: httpx.get(admin + path, trust_env=False).status_code
            for path in ("/metrics", "/readyz", "/v1/model", "/docs")
        }
        assert statuses == {"/metrics": 200, "/readyz": 200, "/v1/model": 404, "/docs": 404}
        assert service.client.get("/metrics").status_code == 404
        assert httpx.post(admin + "/metrics", trust_env=False).headers["content-type"] == "application/problem+json"
        service.terminate()
        assert service.process.wait(30) == 0


@pytest.mark.parametrize(
    ("client", "remote", "status"),
    [
        ("127.0.0.1", False, 409),
        ("::1", False, 409),
        ("10.0.0.7", False, 403),
        ("fe80::1", False, 403),
        ("10.0.0.7", True, 409),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/swap"), ("POST", "/swap/back"), ("POST", "/shadow"), ("DELETE", "/shadow")]
)
def test_only_the_machine_itself_may_change_the_model_unless_told_otherwise(
    scorer: Scorer, client: str, remote: bool, status: int, method: str, path: str
) -> None:
    class Refusing:
        async def refuse(self, *_: object) -> None:
            raise SwapBusy("told")

        swap = back = shadow = refuse

    async def ask() -> httpx.Response:
        lifecycle = Lifecycle(Settings(), lambda: scorer)
        await lifecycle.start()
        app = create_app(lifecycle, cast(Switch, Refusing()), remote=remote)
        transport = httpx.ASGITransport(app, client=(client, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as session:
            return await session.request(method, path, json={"bundle": "2"})

    assert asyncio.run(ask()).status_code == status


def test_an_address_that_others_reach_is_refused_for_it_too() -> None:
    check_exposure(Settings(admin_host="0.0.0.0"))
    with pytest.raises(SettingInvalid) as refused:
        check_exposure(Settings(admin_host="0.0.0.0", admin_port=0))
    assert refused.value.place == "admin_host 0.0.0.0"
    check_exposure(Settings(admin_host="0.0.0.0", admin_port=0, insecure=True))
