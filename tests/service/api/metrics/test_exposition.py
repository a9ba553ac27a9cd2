"""What Prometheus reads, from real processes under load, beside what the client counted."""

import os
import re
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.api.metrics.families import FAMILIES, PREFIX
from tests.service.process import ServiceProcess

GOOD = {"user": {"user_id": "u1"}, "candidates": {"item_id": ["i1", "i2", "stranger"], "price": [1.0, None, 3.0]}}
EMPTY: dict[str, Any] = {"candidates": []}
BAD = {"candidates": {"item_id": [1]}}
Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


def scraped(service: ServiceProcess) -> Samples:
    """Samples by name and labels."""
    answer = httpx.get(f"http://127.0.0.1:{service.admin_port}/metrics", trust_env=False)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: Samples = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def load(service: ServiceProcess) -> Counter[tuple[str, str]]:
    """Requests of several connections at once; what was answered, by route and status."""
    counted: Counter[tuple[str, str]] = Counter()
    lock = threading.Lock()
    asked: list[tuple[str, Any]] = [
        *[("/v1/predict", body) for body in (GOOD, GOOD, BAD, EMPTY)],
        ("/v1/predict:batch", {"requests": [GOOD, GOOD]}),
        ("/nowhere", {}),
    ]

    def client() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", trust_env=False) as session:
            for _ in range(10):
                for path, body in asked:
                    status = str(session.post(path, json=body).status_code)
                    with lock:
                        counted[path, status] += 1

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counted


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_is_scraped_is_what_the_clients_counted(toy: Path, workers: str) -> None:
    with ServiceProcess(toy, "--workers", workers, "--admin-port", "0", drift_every=1) as service:
        counted = load(service)
        found = scraped(service)
    requests = found["fullfunnel_requests_total"]
    by_outcome = {(dict(key)["route"], dict(key)["outcome"]): value for key, value in requests.items()}
    assert by_outcome == {
        ("/v1/predict", "ok"): counted["/v1/predict", "200"],
        ("/v1/predict", "value-invalid"): counted["/v1/predict", "422"],
        ("/v1/predict:batch", "ok"): counted["/v1/predict:batch", "200"],
        ("other", "not-found"): counted["/nowhere", "404"],
    }
    assert sum(found["fullfunnel_request_seconds_count"].values()) == sum(counted.values())
    predictions = 2 * 40 + 2 * 40 + 40 + 40  # good ones, two in each batch, empty ones, and those whose value is wrong
    assert found["fullfunnel_prediction_candidates_count"][()] == predictions
    assert found["fullfunnel_prediction_candidates_sum"][()] == 3 * (2 * 40 + 2 * 40) + 40
    assert found["fullfunnel_run_candidates_sum"][()] == 3 * (2 * 40 + 2 * 40)
    assert 0 < found["fullfunnel_run_seconds_count"][()] <= 40 * 3
    assert found["fullfunnel_queue_seconds_count"][()] >= found["fullfunnel_run_seconds_count"][()]
    for label in ("pctr", "pcvr", "pctcvr"):
        assert found["fullfunnel_score_count"][("output", label),] == 3 * 4 * 40
    assert found["fullfunnel_feature_values_total"][("feature", "price"),] == 3 * 4 * 40
    assert found["fullfunnel_feature_missing_total"][("feature", "price"),] == 4 * 40
    assert found["fullfunnel_feature_unknown_total"][("feature", "item_id"),] == 4 * 40
    assert list(found["fullfunnel_worker_ready"].values()) == [1.0] * int(workers)
    assert min(found["fullfunnel_worker_memory_bytes"].values()) > 2**20
    (model,) = found["fullfunnel_model"]
    assert dict(model)["name"] == "toy"


def test_counts_never_go_back_when_a_worker_is_replaced(toy: Path) -> None:
    with ServiceProcess(toy, "--workers", "2", "--admin-port", "0") as service:
        load(service)
        before = scraped(service)
        victim = next(int(pid) for pid in re.findall(rb"\d+", children(service)))
        os.kill(victim, signal.SIGKILL)
        while sum((after := scraped(service))["fullfunnel_worker_starts_total"].values()) < 3:
            pass
        for name in ("fullfunnel_requests_total", "fullfunnel_run_seconds_count"):
            assert after[name].items() >= before[name].items()
        load(service)
        again = scraped(service)["fullfunnel_requests_total"]
        assert all(again[key] == 2 * value for key, value in before["fullfunnel_requests_total"].items())


def children(service: ServiceProcess) -> bytes:
    return Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_bytes()


def test_only_metrics_of_the_list_are_exposed_and_all_are(toy: Path) -> None:
    with ServiceProcess(toy, "--admin-port", "0", drift_every=1) as service:
        load(service)
        answer = httpx.get(f"http://127.0.0.1:{service.admin_port}/metrics", trust_env=False).text
    names = set(re.findall(r"^# TYPE (\w+)", answer, re.MULTILINE))
    listed = {f"{PREFIX}{family.name}" + ("_total" if family.kind == "counter" else "") for family in FAMILIES}
    assert names == listed
