"""What Prometheus reads, from real processes under load, beside what the client counted."""

import os
import re
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from contract.manifest import FeatureReference, Reference, ScoreReference
from service.api.metrics.families import FAMILIES, PREFIX
from service.scoring.scorer import Scorer
from tests.service.process import ServiceProcess
from tests.service.toy_bundle import publish_toy, toy_manifest

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
        admin = f"http://127.0.0.1:{service.admin_port}"
        httpx.post(f"{admin}/shadow", json={"bundle": toy.name}, trust_env=False).raise_for_status()
        answer = httpx.get(f"http://127.0.0.1:{service.admin_port}/metrics", trust_env=False).text
    names = set(re.findall(r"^# TYPE (\w+)", answer, re.MULTILINE))
    listed = {f"{PREFIX}{family.name}" + ("_total" if family.kind == "counter" else "") for family in FAMILIES}
    assert names == listed


def traffic(seed: int, cheapest: float = 0.0, strangers: float = 0.2) -> tuple[list[float], list[str]]:
    """Prices and items of 2,000 candidates."""
    rng = np.random.default_rng(seed)
    items = np.where(rng.random(2000) < strangers, "stranger", rng.choice(["i1", "i2"], 2000))
    return (cheapest + rng.uniform(0, 20, 2000)).tolist(), items.tolist()


def usual_reference(toy: Path) -> Reference:
    """The statistics that the usual traffic has."""
    prices, items = traffic(seed=0)
    scores = Scorer.load(toy).score({}, {"price": prices, "item_id": items})
    tenths = np.linspace(0, 1, 11)
    return Reference(
        rows=len(prices),
        features=(
            FeatureReference(name="price", missing_rate=0.0, quantiles=tuple(np.quantile(prices, tenths).tolist())),
            FeatureReference(name="item_id", missing_rate=0.0, unknown_rate=0.2),
        ),
        scores=tuple(
            ScoreReference(name=name, mean=float(values.mean()), quantiles=tuple(np.quantile(values, tenths).tolist()))
            for name, values in scores.items()
        ),
    )


def drift_of(bundle: Path, prices: list[float], items: list[str]) -> Samples:
    """What two workers say of this traffic."""
    with ServiceProcess(bundle, "--workers", "2", "--admin-port", "0", drift_every=1) as service:
        send(service, prices, items)
        return scraped(service)


def send(service: ServiceProcess, prices: list[float], items: list[str]) -> None:
    """This traffic, 20 candidates a request, over four connections."""
    bodies = [
        {"candidates": {"price": prices[at : at + 20], "item_id": items[at : at + 20]}}
        for at in range(0, len(prices), 20)
    ]

    def client(number: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", trust_env=False) as session:
            for body in bodies[number::4]:
                session.post("/v1/predict", json=body).raise_for_status()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_drift_moves_when_the_traffic_is_shifted_and_not_when_it_is_not(toy: Path, tmp_path: Path) -> None:
    publish_toy(tmp_path / "toy", manifest=toy_manifest(reference=usual_reference(toy)))
    usual = drift_of(tmp_path / "toy", *traffic(seed=1))
    features, scores = usual["fullfunnel_feature_psi"], usual["fullfunnel_score_psi"]
    assert {dict(key)["feature"] for key in features} == {"price", "item_id"}
    assert {dict(key)["output"] for key in scores} == {"pctr", "pcvr", "pctcvr"}
    assert max([*features.values(), *scores.values()]) < 0.1
    shifted = drift_of(tmp_path / "toy", *traffic(seed=1, cheapest=15.0, strangers=0.7))
    assert min(shifted["fullfunnel_feature_psi"].values()) > 0.25
    assert max(shifted["fullfunnel_score_psi"].values()) > 0.25
    only_items = drift_of(tmp_path / "toy", *traffic(seed=1, strangers=0.7))["fullfunnel_feature_psi"]
    assert only_items[("feature", "price"),] < 0.1 and only_items[("feature", "item_id"),] > 0.25
