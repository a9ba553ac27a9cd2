"""docker-compose.yml, up: trains, serves, scores, survives a kill, drains, and is shut in as it says."""

import http.client
import json
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import pytest

from tests.container.engine import TAG, docker, python_in
from tests.container.stack import DRAIN_DELAY_S, PATIENCE_S, ROWS, Stack, kill_from_outside

CLIENTS, WARM, PROBE_S = 4, 5, 0.5
ASKED, SCRAPE_S = 20, 5
CONFINEMENT = """
import json, os, pathlib
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
def first(*paths):
    return next((open(path).read().split() for path in paths if os.path.exists(path)), ["max"])
def number(text):
    return -1 if text == "max" else int(text)
def writable(folder):
    try:
        pathlib.Path(folder, "probe").write_text("")
        os.unlink(os.path.join(folder, "probe"))
        return True
    except OSError:
        return False
group = "/sys/fs/cgroup"
quota = first(f"{group}/cpu.max") if os.path.exists(f"{group}/cpu.max") else (
    first(f"{group}/cpu/cpu.cfs_quota_us") + first(f"{group}/cpu/cpu.cfs_period_us"))
print(json.dumps({
    "user": os.getuid(), "group": os.getgid(), "groups": os.getgroups(),
    "capabilities": [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")],
    "no_new_privileges": int(status["NoNewPrivs"]), "seccomp": int(status["Seccomp"]),
    "writable": [folder for folder in "/ /opt /opt/venv /etc /work /bundles /tmp".split() if writable(folder)],
    "memory": number(first(f"{group}/memory.max", f"{group}/memory/memory.limit_in_bytes")[0]),
    "pids": number(first(f"{group}/pids.max", f"{group}/pids/pids.max")[0]),
    "cores": number(quota[0]) / int(quota[-1]) if quota[0] not in ("max", "-1") else None,
}))
"""
SCORES = """
import json, sys
import pyarrow.parquet as pq
scores, log = pq.read_table("/data/scores.parquet"), pq.read_table("/data/demo/log.parquet")
assert scores["impression_id"].equals(log["impression_id"])
names = json.loads(sys.argv[1])
print(json.dumps({"rows": scores.num_rows, "columns": scores.column_names,
                  "head": scores.slice(0, 8).to_pylist(), "log": log.select(names).slice(0, 8).to_pylist()}))
"""


def violations(seen: dict[str, Any], memory: int, pids: int, cores: float | None) -> set[str]:
    """In what a process inside is less confined than docker-compose.yml says."""
    wanted = {
        "user": 10001,
        "group": 10001,
        "groups": [10001],
        "capabilities": [0] * 5,
        "no_new_privileges": 1,
        "seccomp": 2,
        "writable": ["/tmp"],
        "memory": memory,
        "pids": pids,
        "cores": cores,
    }
    return {name for name, value in wanted.items() if seen[name] != value}


def test_the_trainer_ends_before_the_service_begins_and_the_service_answers(stack: Stack) -> None:
    trainer, service = stack.container("trainer")["State"], stack.container("service")["State"]
    assert (trainer["Status"], trainer["ExitCode"]) == ("exited", 0)
    assert trainer["FinishedAt"] < service["StartedAt"] and service["Health"]["Status"] == "healthy"
    status, answer = stack.ask("POST", "/v1/predict", stack.request())
    assert status == 200 and answer["model"]["name"] == "demo-ple"
    assert all(0 < score < 1 for score in answer["pctcvr"]) and len(answer["pctcvr"]) > 1


def test_a_bundle_that_is_there_is_not_trained_again(stack: Stack) -> None:
    digest = stack.ask("GET", "/v1/model")[1]["digest"]
    assert "/bundles/demo is trained already" in stack.compose("run", "--rm", "trainer")
    stack.compose("up", "--detach", "--wait", "--pull", "never")
    assert stack.ask("GET", "/v1/model")[1]["digest"] == digest


def test_a_process_of_the_service_is_confined_as_the_file_says(stack: Stack) -> None:
    assert violations(stack.python("service", CONFINEMENT), memory=2**30, pids=128, cores=2) == set()


def test_the_confinement_is_not_that_of_any_container(stack: Stack) -> None:
    seen = python_in(f"fullfunnel-serve:{TAG}", CONFINEMENT, "--user", "0", "--security-opt", "seccomp=unconfined")
    everything = violations(seen, memory=2**30, pids=128, cores=2)
    assert everything == set(seen)


def test_every_container_of_the_file_is_hardened_and_publishes_to_this_machine_only(stack: Stack) -> None:
    services = json.loads(stack.compose("--profile", "*", "config", "--format", "json"))["services"]
    assert {"trainer", "service", "batch", "service-gpu", "prometheus", "grafana"} <= services.keys()
    for name, service in services.items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"] and service["pids_limit"], name
        assert {port["host_ip"] for port in service.get("ports", ())} <= {"127.0.0.1"}, name
    published = stack.container("service")["NetworkSettings"]["Ports"]["8000/tcp"]
    assert [binding["HostIp"] for binding in published] == ["127.0.0.1"]


def test_a_table_scored_in_the_batch_container_has_the_scores_of_the_service(stack: Stack) -> None:
    stack.compose("--profile", "batch", "run", "--rm", "batch")
    features = stack.ask("GET", "/v1/model")[1]["features"]
    sides = {feature["name"]: feature["side"] for feature in features}
    volume = ("--volume", "fullfunnel-test_data:/data:ro", "--entrypoint", "python")
    seen = json.loads(docker("run", "--rm", *volume, f"fullfunnel-batch:{TAG}", "-c", SCORES, json.dumps(list(sides))))
    assert seen["rows"] == ROWS and set(seen["columns"]) == {"impression_id", "pctr", "pcvr", "pctcvr"}
    for row, scores in zip(seen["log"], seen["head"], strict=True):
        user = {name: row[name] for name in row if sides[name] == "user"}
        item = {name: row[name] for name in row if sides[name] == "item"}
        status, answer = stack.ask("POST", "/v1/predict", {"user": user, "candidates": [item]})
        assert status == 200
        assert {name: answer[name][0] for name in ("pctr", "pcvr", "pctcvr")} == pytest.approx(
            {name: scores[name] for name in ("pctr", "pcvr", "pctcvr")}, abs=1e-6
        )


def test_prometheus_counts_the_predictions_that_were_answered(stack: Stack) -> None:
    counted = 'sum(fullfunnel_requests_total{route="/v1/predict",outcome="ok"})'
    request = stack.request()
    assert set(_until(lambda: stack.query('up{job="fullfunnel"} == 1')).values()) == {1}
    before = _until_settled(lambda: sum(stack.query(counted).values()))
    for _ in range(ASKED):
        assert stack.ask("POST", "/v1/predict", request)[0] == 200
    assert _until(lambda: sum(stack.query(counted).values()) >= before + ASKED)
    assert _until_settled(lambda: sum(stack.query(counted).values())) == before + ASKED
    _, rules = stack.ask("GET", "/api/v1/rules", port=stack.prometheus_port)
    assert {rule["health"] for group in rules["data"]["groups"] for rule in group["rules"]} <= {"ok", "unknown"}
    assert sum(len(group["rules"]) for group in rules["data"]["groups"]) > 0


def _until(see: Callable[[], Any]) -> Any:
    """What is seen once it is something."""
    deadline = time.monotonic() + PATIENCE_S
    while not (seen := see()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return seen


def _until_settled(see: Callable[[], float]) -> float:
    """What is seen when it is the same over more than two scrapes."""
    seen, since = see(), time.monotonic()
    while time.monotonic() < since + 2.5 * SCRAPE_S:
        time.sleep(0.5)
        if (now := see()) != seen:
            seen, since = now, time.monotonic()
    return seen


def test_the_metrics_are_shown_on_no_published_port(stack: Stack) -> None:
    assert stack.ask("GET", "/metrics")[0] == 404
    assert set(stack.container("service")["NetworkSettings"]["Ports"]) == {"8000/tcp"}


def test_a_service_that_is_killed_comes_back_with_the_same_scores(stack: Stack) -> None:
    request = stack.request()
    before = stack.wait_until_healthy("service")
    _, answer = stack.ask("POST", "/v1/predict", request)
    kill_from_outside(before)
    stack.wait_until(lambda container: container["RestartCount"] == before["RestartCount"] + 1)
    after = stack.wait_until_healthy("service")
    assert after["State"]["Pid"] != before["State"]["Pid"]
    assert stack.ask("POST", "/v1/predict", request) == (200, answer)


def test_a_service_that_is_stopped_under_load_fails_no_request_and_exits_with_0(stack: Stack) -> None:
    stack.wait_until_healthy("service")
    balancer = Balancer(stack.port, json.dumps(stack.request()))
    with balancer:
        docker("stop", stack.name("service"))
    stopped = stack.container("service")["State"]
    docker("start", stack.name("service"))
    assert balancer.wrong == [] and min(balancer.answered) >= WARM
    assert (stopped["ExitCode"], stopped["OOMKilled"]) == (0, False)
    stack.wait_until_healthy("service")


class Balancer:
    """Sends requests, each on a new connection, until it sees, looking now and then, that the service is not ready."""

    def __init__(self, port: int, body: str) -> None:
        self.wrong: list[str] = []
        self.answered = [0] * CLIENTS
        self._port, self._body = port, body
        self._not_ready, self._warm = threading.Event(), threading.Barrier(CLIENTS + 1)
        clients = [threading.Thread(target=self._send, args=(number,), daemon=True) for number in range(CLIENTS)]
        self._threads = [*clients, threading.Thread(target=self._look, daemon=True)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self._warm.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(60)

    def _look(self) -> None:
        while not self._not_ready.wait(PROBE_S):
            if self._status("GET", "/readyz", None) != 200:
                self._not_ready.set()

    def _send(self, number: int) -> None:
        while not self._not_ready.is_set():
            status = self._status("POST", "/v1/predict", self._body)
            if status != 200:
                self.wrong.append(f"{status}")
                return
            self.answered[number] += 1
            if self.answered[number] == WARM:
                self._warm.wait(60)

    def _status(self, method: str, path: str, body: str | None) -> int | str:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request(method, path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
            return response.status
        except OSError as error:
            return repr(error)
        finally:
            connection.close()


def test_the_delay_of_the_drain_is_the_one_that_was_asked_for(stack: Stack) -> None:
    assert f"FULLFUNNEL_DRAIN_DELAY_S={DRAIN_DELAY_S}" in stack.container("service")["Config"]["Env"]
