"""Keys: what a file may hold, who is let in where, and that no route is without an answer to that."""

import asyncio
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from contract.errors import KeyForbidden, KeyMissing, SettingInvalid
from service.api import admin
from service.api.jobs import Jobs
from service.api.jobs import router as jobs_router
from service.api.keys import ACCESS, ADMIN, BATCH, METRICS, OPEN, PREDICT, SCOPES, Keys, add_key, new_key, read_keys
from service.api.lifecycle import Lifecycle
from service.api.listening import check_exposure
from service.api.predictions import Predictions
from service.api.routes import router
from service.api.settings import Settings
from service.api.swap.switch import Switch
from service.api.tables import Tables
from service.api.tables import router as tables_router
from service.api.v2 import rpc
from service.api.v2.http import router as v2_router
from service.scoring.scorer import Scorer
from tests.service.conftest import Api, MakeApi
from tests.service.process import ServiceProcess, until

CANARY = "ff_canary-of-a-key-that-nobody-has"
ASKED = {"candidates": {"item_id": ["i1"]}}


class Ring:
    """A file of keys, and the secrets that are not in it."""

    def __init__(self, path: Path) -> None:
        self.path, self.secrets = path, dict[str, str]()

    def add(self, name: str, *scopes: str) -> str:
        secret, key = new_key(name, scopes or SCOPES)
        add_key(self.path, key)
        self.secrets[name] = secret
        return secret

    def header(self, name: str) -> dict[str, str]:
        """What a client sends; "" sends nothing, and a name without a key one that is not known."""
        return {"authorization": f"Bearer {self.secrets.get(name, CANARY)}"} if name else {}


@pytest.fixture
def ring(tmp_path: Path) -> Ring:
    found = Ring(tmp_path / "keys")
    for scope in SCOPES:
        found.add(scope, scope)
    return found


def bearer(secret: str) -> bytes:
    return f"Bearer {secret}".encode()


def test_a_key_is_known_by_its_hash_and_only_for_its_scopes(ring: Ring) -> None:
    secret = ring.add("two", PREDICT, BATCH)
    assert secret not in ring.path.read_text() and len(secret) > 40
    keys = Keys(ring.path)
    assert [keys.admits(bearer(secret), scope) for scope in SCOPES] == [True, True, False, False]
    keys.check(bearer(secret), BATCH)
    with pytest.raises(KeyForbidden, match="not for admin"):
        keys.check(bearer(secret), ADMIN)
    keys.check(b"", OPEN)
    assert keys.admits(b"", OPEN)


@pytest.mark.parametrize(
    "header", [b"", b"Bearer", b"Bearer ", b"%b", b"Basic %b", b"Bearer %bx", b"Bearer x%b", b"Bearer %b %b", b"\xff"]
)
def test_what_is_no_key_of_the_file_is_none(ring: Ring, header: bytes) -> None:
    keys, secret = Keys(ring.path), ring.secrets[PREDICT].encode()
    sent = header.replace(b"%b", secret)
    assert not keys.admits(sent, PREDICT)
    with pytest.raises(KeyMissing) as refused:
        keys.check(sent, PREDICT)
    assert secret.decode() not in str(refused.value)
    assert keys.admits(b"bearer  " + secret, PREDICT)


def test_a_key_takes_the_place_of_another_while_both_are_good(ring: Ring, caplog: pytest.LogCaptureFixture) -> None:
    keys, old = Keys(ring.path), ring.secrets[PREDICT]
    new = ring.add("predict-2", PREDICT)
    assert not keys.admits(bearer(new), PREDICT)
    keys.refresh()
    assert keys.admits(bearer(old), PREDICT) and keys.admits(bearer(new), PREDICT)
    ring.path.write_text(
        "".join(line for line in ring.path.read_text().splitlines(True) if not line.startswith("predict "))
    )
    keys.refresh()
    assert not keys.admits(bearer(old), PREDICT) and keys.admits(bearer(new), PREDICT)
    with caplog.at_level(logging.ERROR, "fullfunnel"):
        ring.path.write_text("nonsense\n")
        keys.refresh()
        keys.refresh()
        ring.path.unlink()
        keys.refresh()
    assert keys.admits(bearer(new), PREDICT), "what was read last is good until something better can be read"
    assert [message.count("the keys of before stay") for message in caplog.messages] == [1, 1]
    ring.path.write_text("")
    keys.refresh()
    assert not keys.admits(bearer(new), PREDICT)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a predict", "line 1"),
        ("# ours\n\nshop predict {0}\nshop batch {1}\n", "line 4"),
        ("shop predict {0} more", "line 1"),
        ("shop everything {0}", "line 1"),
        ("shop predict,everything {0}", "line 1"),
        ("sh/op predict {0}", "line 1"),
        (f"{'x' * 65} predict {{0}}", "line 1"),
        ("shop predict 0123", "line 1"),
        ("shop predict {0}0", "line 1"),
        ("sh\u00f6p predict {0}", "keys"),
    ],
)
def test_a_file_at_fault_is_refused_with_the_line(tmp_path: Path, text: str, place: str) -> None:
    (path := tmp_path / "keys").write_text(text.format("0" * 64, "1" * 64))
    with pytest.raises(SettingInvalid) as refused:
        read_keys(path)
    assert place in refused.value.place and str(path) in refused.value.place and refused.value.remedy


def test_a_file_may_hold_remarks_and_no_more_than_can_be_compared(tmp_path: Path) -> None:
    (path := tmp_path / "keys").write_text(f"# ours\n\n shop\tpredict,batch {'0' * 64}  # until March\n")
    assert [(key.name, key.scopes) for key in read_keys(path)] == [("shop", frozenset({PREDICT, BATCH}))]
    path.write_text("\n" * 257)
    with pytest.raises(SettingInvalid, match="more than 256 keys"):
        read_keys(path)
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(SettingInvalid, match="cannot be read"):
            Keys(missing)


def test_a_key_is_added_to_what_is_there_and_to_nothing_else(ring: Ring) -> None:
    ring.path.write_text(f"mine admin {'0' * 64}")  # without an end of line
    ring.add("other", METRICS)
    assert [key.name for key in read_keys(ring.path)] == ["mine", "other"]
    with pytest.raises(SettingInvalid, match="of this name"):
        ring.add("mine", METRICS)
    with pytest.raises(SettingInvalid, match="not a name"):
        ring.add("my own", METRICS)
    with pytest.raises(SettingInvalid, match="cannot be written"):
        add_key(ring.path / "below", new_key("x", [PREDICT])[1])
    ring.path.unlink()
    ring.add("first", PREDICT)
    assert ring.path.stat().st_mode & 0o777 == 0o600


class Switching:
    """Changes nothing."""

    def __init__(self) -> None:
        self.models = dict[str, Any]()

    async def do(self, *_: object) -> None: ...

    swap = back = shadow = do


def served(scorer: Scorer) -> dict[str, set[str]]:
    """The methods of every route, of both listeners and gRPC."""
    settings = Settings()
    lifecycle = Lifecycle(settings, lambda: scorer)
    predictions = Predictions(settings, lifecycle)
    routers = (
        router(settings, lifecycle, predictions),
        tables_router(Tables(settings, lifecycle)),
        jobs_router(Jobs(settings, lifecycle)),
        v2_router(lifecycle, predictions),
        admin.create_app(lifecycle, cast(Switch, Switching())),
    )
    found: dict[str, set[str]] = {}
    for each in routers:
        for route in cast(Any, each).routes:
            found.setdefault(route.path, set()).update(route.methods)
    handler = rpc.handler(rpc.Service(lifecycle, predictions), settings.limits)
    found |= {f"grpc/{name.rpartition('/')[2]}": set() for name in handler._method_handlers}
    lifecycle.close()
    return found


def test_every_route_says_what_it_needs_and_nothing_else_is_listed(scorer: Scorer) -> None:
    assert served(scorer).keys() == ACCESS.keys()
    opened = {route for route, scope in ACCESS.items() if scope is OPEN}
    health = {"/livez", "/readyz", "/v2/health/live", "/v2/health/ready", "grpc/ServerLive", "grpc/ServerReady"}
    assert opened == health


def statuses(ask: Callable[[str, str, dict[str, str]], int], ring: Ring, routes: dict[str, set[str]]) -> Iterator[str]:
    """What is wrong in the matrix of routes and roles."""
    for route, methods in routes.items():
        needed, path = ACCESS[route], re.sub(r"\{\w+\}", "1", route)
        for method in methods - {"HEAD"}:
            for role in ("", "stranger", *SCOPES):
                expected = 0 if needed in (OPEN, role) else 401 if role not in SCOPES else 403
                status = ask(method, path, ring.header(role))
                if (status if status in (401, 403) else 0) != expected:
                    yield f"{method} {path} as {role or 'nobody'}: {status}"


def test_each_role_gets_where_its_scope_leads_and_nowhere_else(make_api: MakeApi, scorer: Scorer, ring: Ring) -> None:
    api = make_api(keys=str(ring.path), job_roots="")
    routes = {route: methods for route, methods in served(scorer).items() if route.startswith(("/v1", "/v2", "/livez"))}
    assert len(routes) > 15

    def ask(method: str, path: str, headers: dict[str, str]) -> int:
        if path.startswith("/v1/jobs") and headers == ring.header(BATCH):
            return 200  # asked, jobs are forbidden here (403) for all
        return api.call(method, path, headers=headers, json=ASKED).status_code

    assert not list(statuses(ask, ring, routes))


def test_jobs_are_asked_for_with_a_key_of_their_own(make_api: MakeApi, ring: Ring, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    api = make_api(keys=str(ring.path), job_roots=str(tmp_path / "root"), job_dir=str(tmp_path / "records"))
    found = [api.get("/v1/jobs", headers=ring.header(role)).status_code for role in ("", "stranger", PREDICT, BATCH)]
    assert found == [401, 401, 403, 200]


@pytest.mark.parametrize("client", ["127.0.0.1", "10.0.0.7"])
def test_operators_need_theirs_from_wherever_they_ask(scorer: Scorer, ring: Ring, client: str) -> None:
    settings = Settings(keys=str(ring.path))
    with asyncio.Runner() as runner:
        lifecycle = Lifecycle(settings, lambda: scorer)
        runner.run(lifecycle.start())
        app = admin.create_app(lifecycle, cast(Switch, Switching()))
        transport = httpx.ASGITransport(app, client=(client, 1))
        session = httpx.AsyncClient(transport=transport, base_url="http://admin")

        def ask(method: str, path: str, headers: dict[str, str]) -> int:
            return runner.run(session.request(method, path, headers=headers, json={"bundle": "2"})).status_code

        routes = {route: served(scorer)[route] for route in ("/metrics", "/models", "/swap", "/swap/back", "/shadow")}
        assert not list(statuses(ask, ring, {**routes, "/readyz": {"GET"}}))
        assert ask("POST", "/swap", ring.header(ADMIN)) == 200
        runner.run(session.aclose())
        lifecycle.close()


def test_a_refusal_says_what_is_missing_in_the_form_of_its_protocol(make_api: MakeApi, ring: Ring) -> None:
    api = make_api(keys=str(ring.path))
    refused = api.call("POST", "/v1/predict", json=ASKED)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert refused.json()["type"] == "urn:fullfunnel:problem:key-missing"
    assert refused.headers["content-type"] == "application/problem+json"
    other = api.call("POST", "/v2/models/toy/infer", json={}, headers=ring.header(BATCH))
    assert (other.status_code, list(other.json())) == (403, ["error"]) and "predict" in other.json()["error"]
    assert [api.get(path).status_code for path in ("/docs", "/openapi.json", "/docs/oauth2-redirect")] == [404] * 3


def test_a_service_without_keys_asks_for_none(api: Api) -> None:
    assert api.call("POST", "/v1/predict", json=ASKED).status_code == 200
    assert api.get("/openapi.json").status_code == 200


def test_with_keys_it_may_listen_where_others_reach_it() -> None:
    check_exposure(Settings(host="0.0.0.0", keys="keys"))
    with pytest.raises(SettingInvalid, match="asks nobody for a key"):
        check_exposure(Settings(host="0.0.0.0"))


def test_a_running_service_asks_at_every_door_and_takes_new_keys(toy: Path, ring: Ring) -> None:
    head = "POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 35\r\n"
    body = '{"candidates": {"item_id": ["i1"]}}'

    def ask(service: ServiceProcess, role: str) -> str:
        lines = "".join(f"{name}: {value}\r\n" for name, value in ring.header(role).items())
        with service.connect() as client:
            client.sendall(f"{head}{lines}\r\n{body}".encode())
            return _received(client).partition("\r\n")[0].split()[1]

    arguments = ("--keys", str(ring.path), "--grpc-port", "0", "--workers", "2", "--drain-delay-s", "0")
    with ServiceProcess(toy, *arguments, access_log=True, overlap=False) as service:
        assert [ask(service, role) for role in ("", "stranger", BATCH, PREDICT)] == ["401", "401", "403", "200"]
        assert service.client.get("/livez").status_code == 200
        with grpc.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            assert stub.ServerLive(service_pb2.ServerLiveRequest()).live
            for role, code in (("", "UNAUTHENTICATED"), ("stranger", "UNAUTHENTICATED"), (BATCH, "PERMISSION_DENIED")):
                with pytest.raises(grpc.RpcError) as refused:
                    stub.ServerMetadata(service_pb2.ServerMetadataRequest(), metadata=tuple(ring.header(role).items()))
                assert refused.value.code().name == code and CANARY not in refused.value.details()
            metadata = tuple(ring.header(PREDICT).items())
            assert stub.ServerMetadata(service_pb2.ServerMetadataRequest(), metadata=metadata).name
        ring.add("late", PREDICT)
        until(lambda: ask(service, "late") == "200")
        until(lambda: all(ask(service, "late") == "200" for _ in range(8)))  # of both workers
        service.terminate()
        assert service.process.wait(30) == 0
        assert service.process.stderr is not None
        said = (service.log + service.process.stderr.read()).decode()
        assert "key-missing" in said and CANARY not in said
        assert not any(secret in said for secret in ring.secrets.values())


def test_a_service_does_not_start_with_a_file_at_fault(toy: Path, tmp_path: Path) -> None:
    for workers in ("1", "2"):
        command = ["-m", "service", str(toy), "--port", "0", "--keys", str(tmp_path / "none"), "--workers", workers]
        failed = _run(command)
        assert failed.count("service: ") == 1 and "cannot be read" in failed


def _run(command: list[str]) -> str:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 1
    return done.stderr


def _received(client: socket.socket) -> str:
    found = b""
    while b"\r\n\r\n" not in found:
        piece = client.recv(65536)
        assert piece
        found += piece
    return found.decode("latin-1")
