"""Listening, refusing to, and leaving."""

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from contract.bundle import GOLDEN
from contract.errors import SettingInvalid
from service.__main__ import main
from service.api.serving import serve
from service.api.settings import Settings
from service.reading import Reading
from tests.service.process import PATIENCE_S, ServiceProcess, raw
from tests.service.toy_bundle import publish_toy

ONE = {"candidates": {"item_id": ["i1"]}}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_a_bad_bundle_ends_the_process_with_one_message(tmp_path: Path) -> None:
    publish_toy(tmp_path / "toy")
    (tmp_path / "toy" / GOLDEN).write_bytes(b"{}")
    done = run(str(tmp_path / "toy"), "--port", "0")
    assert done.returncode == 1
    assert "golden.json: size or SHA-256 differs from the manifest" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_before_the_server_takes_signals_ends_the_process_without_a_word(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("service.api.serving.Alone", interrupted)
    monkeypatch.setattr(sys, "argv", ["service", str(toy), "--port", "0"])
    assert main() == 130
    assert capsys.readouterr().out == ""


def test_a_public_address_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(SettingInvalid, match="--insecure"):
        serve(Reading(Path("nowhere")), Settings(host="0.0.0.0", port=0))


def test_sigterm_drains_without_losing_a_request(toy: Path) -> None:
    with ServiceProcess(toy, "--drain-delay-s", "0.6") as service:
        failures: list[str] = []
        answered = [0]

        def ask_until_refused() -> None:
            """A client that looks at readiness, as a load balancer does, and leaves when it is gone."""
            limits = httpx.Limits(max_keepalive_connections=0)  # a new connection for every request
            with httpx.Client(base_url=service.client.base_url, limits=limits, trust_env=False) as client:
                while client.get("/readyz").status_code != 503:
                    answered[0] += client.post("/v1/predict", json=ONE).status_code == 200

        def note_failures() -> None:
            try:
                ask_until_refused()
            except httpx.HTTPError as error:
                failures.append(repr(error))

        clients = [threading.Thread(target=note_failures) for _ in range(3)]
        for client in clients:
            client.start()
        while answered[0] < 20:
            time.sleep(0.01)
        service.terminate()
        for client in clients:
            client.join(PATIENCE_S)
        late = service.client.post("/v1/predict", json=ONE)  # readiness is gone, and still it answers
        assert late.status_code == 200
        assert late.headers["connection"] == "close"
        assert service.process.wait(PATIENCE_S) == 0
        assert failures == []


def test_a_request_under_way_is_finished(toy: Path) -> None:
    with ServiceProcess(toy, "--drain-delay-s", "0") as service, raw(service) as connection:
        head = b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 35\r\n\r\n"
        connection.sendall(head)
        assert service.client.get("/livez").status_code == 200
        service.client.close()
        service.terminate()
        give_up = time.monotonic() + PATIENCE_S
        while can_connect(service.port):
            assert time.monotonic() < give_up
        connection.sendall(b'{"candidates": {"item_id": ["i1"]}}')
        assert b"200 OK" in connection.recv(65536)
        assert service.process.wait(PATIENCE_S) == 0


def test_a_second_signal_ends_the_delay(toy: Path) -> None:
    with ServiceProcess(toy, "--drain-delay-s", "3600") as service:
        service.terminate()
        while service.client.get("/readyz").status_code != 503:
            pass
        service.client.close()
        service.terminate()
        assert service.process.wait(PATIENCE_S) == 0


def can_connect(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S).close()
    except OSError:
        return False
    return True
