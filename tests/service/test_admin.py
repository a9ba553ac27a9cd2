"""The listener of operators."""

from pathlib import Path

import httpx
import pytest

from contract.errors import SettingInvalid
from service.api.listening import check_exposure
from service.api.settings import Settings
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


def test_an_address_that_others_reach_is_refused_for_it_too() -> None:
    check_exposure(Settings(admin_host="0.0.0.0"))
    with pytest.raises(SettingInvalid) as refused:
        check_exposure(Settings(admin_host="0.0.0.0", admin_port=0))
    assert refused.value.place == "admin_host 0.0.0.0"
    check_exposure(Settings(admin_host="0.0.0.0", admin_port=0, insecure=True))
