"""A swap in real services: under load, refused, taken back, shadowed, and seen by Prometheus."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.scoring.scorer import Scorer
from tests.service.api.metrics.test_exposition import scraped, send, traffic, usual_reference
from tests.service.api.swap.conftest import digest_of, operator, publish_version
from tests.service.process import ServiceProcess, children, until

BODY: dict[str, Any] = {
    "user": {"user_id": "u1", "city": "Berlin"},
    "candidates": {"item_id": ["i1", "i2", "i3"], "price": [1, 2, 3]},
}
Answered = Counter[str]


def expected(path: Path) -> list[float]:
    scores = Scorer.load(path).score({"user_id": ["u1"], "city": ["Berlin"]}, BODY["candidates"])
    return [round(float(score), 5) for score in scores["pctcvr"]]


@contextmanager
def load(service: ServiceProcess, by_digest: dict[str, list[float]], clients: int = 4) -> Iterator[Answered]:
    """Clients that ask until the block ends: answers by digest; each must hold the scores of the model it names."""
    answered: Answered = Counter()
    wrong: list[str] = []
    stop, lock = threading.Event(), threading.Lock()

    def client(path: str) -> None:
        body: Any = {"requests": [BODY]} if path.endswith("batch") else BODY
        with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", trust_env=False, timeout=30) as session:
            while not stop.is_set():
                response = session.post(path, json=body)
                if response.status_code != 200:
                    wrong.append(response.text)
                    return
                answer = response.json()
                result = answer["results"][0] if "results" in answer else answer
                digest = answer["model"]["digest"]
                if [round(score, 5) for score in result["pctcvr"]] != by_digest[digest]:
                    wrong.append(f"{digest} {result}")
                with lock:
                    answered[digest] += 1

    threads = [
        threading.Thread(target=client, args=("/v1/predict:batch" if n % 2 else "/v1/predict",)) for n in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong, wrong[:3]


@pytest.mark.parametrize(
    ("workers", "settings"), [("1", {}), ("2", {}), ("2", {"batch_wait_ms": 1}), ("2", {"overlap": True})]
)
def test_swaps_under_load_lose_nothing_and_each_answer_is_of_the_model_it_names(
    versions: Path, workers: str, settings: dict[str, object]
) -> None:
    by_digest = {digest_of(versions / v): expected(versions / v) for v in "123"}
    swaps = 12
    with ServiceProcess(versions / "1", "--workers", workers, "--admin-port", "0", trial_s=0, **settings) as service:
        ask = operator(service)
        with load(service, by_digest) as answered:
            for turn in range(swaps):
                version = "231"[turn % 3]
                swapped = ask("POST", "/swap", {"bundle": version})
                assert swapped.status_code == 200 and swapped.json()["current"]["version"] == version
                # over now, in every worker: whoever asks is told so
                for _ in range(4):
                    answer = httpx.post(f"http://127.0.0.1:{service.port}/v1/predict", json=BODY, trust_env=False)
                    assert answer.json()["model"]["digest"] == digest_of(versions / version)
            assert ask("POST", "/swap/back", {}).json()["current"]["version"] == "3"
            assert ask("GET", "/models").json()["previous"]["version"] == "1"
        assert set(answered) == set(by_digest)
        found = scraped(service)
        assert found["fullfunnel_swaps_total"][("result", "done"),] == swaps
        assert found["fullfunnel_swaps_total"][("result", "back"),] == 1
        ok = {
            dict(key)["route"]: n for key, n in found["fullfunnel_requests_total"].items() if ("outcome", "ok") in key
        }
        assert ok["/v1/predict"] + ok["/v1/predict:batch"] == sum(answered.values()) + 4 * swaps
        (model,) = found["fullfunnel_model"]
        assert dict(model)["digest"] == digest_of(versions / "3")
        assert "Traceback" not in str(service.log)


def test_many_who_ask_at_once_are_served_one_after_the_other_or_told_to_wait(versions: Path) -> None:
    by_digest = {digest_of(versions / v): expected(versions / v) for v in "123"}
    statuses: Counter[int] = Counter()
    with ServiceProcess(versions / "1", "--workers", "2", "--admin-port", "0", trial_s=0) as service:
        ask = operator(service)

        def swap(number: int) -> None:
            for turn in range(8):
                statuses[ask("POST", "/swap", {"bundle": "123"[(number + turn) % 3]}).status_code] += 1

        threads = [threading.Thread(target=swap, args=(number,)) for number in range(8)]
        with load(service, by_digest, clients=2):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert set(statuses) <= {200, 409} and statuses[200] >= 8 and sum(statuses.values()) == 64
        found = scraped(service)["fullfunnel_swaps_total"]
        assert found[("result", "refused"),] == statuses[409]
        current = {ask("GET", "/models").json()["current"]["digest"] for _ in range(8)}
        assert len(current) == 1, "all workers agree"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_bundle_that_cannot_be_served_changes_nothing(versions: Path, tmp_path: Path, workers: str) -> None:
    for name in ("1", "2"):
        (tmp_path / name).symlink_to(versions / name)
    broken = publish_version(tmp_path, "broken")
    content = bytearray((broken / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (broken / "model.onnx").write_bytes(content)
    with ServiceProcess(tmp_path / "1", "--workers", workers, "--admin-port", "0") as service:
        ask = operator(service)
        statuses = {
            name: ask("POST", "/swap", {"bundle": name}) for name in ("broken", "absent", "..", "a/b", "../1", "", "\0")
        }
        assert [answer.status_code for answer in statuses.values()] == [422] * 7
        assert statuses["broken"].json()["errors"][0]["place"] == "broken/model.onnx"
        assert not any(str(tmp_path) in answer.text for answer in statuses.values()), "no paths are told"
        bodies: list[Any] = [[], {"bundle": 1}, {"bundle": "2", "more": 1}, "text"]
        assert [ask("POST", "/swap", body).status_code for body in bodies] == [422] * 4
        url = f"http://127.0.0.1:{service.admin_port}/swap"
        assert httpx.post(url, content=b"{}", trust_env=False).status_code == 415, "as a web page could send it"
        for content_, status in ((b"{", 400), (b"{" + b" " * 2000, 413)):
            headers = {"content-type": "application/json"}
            assert httpx.post(url, content=content_, headers=headers, trust_env=False).status_code == status
        assert ask("POST", "/swap/back", {}).status_code == 409
        assert ask("POST", "/shadow", {}).status_code == 422
        assert ask("GET", "/models").json()["current"]["version"] == "1"
        assert ask("POST", "/swap", {"bundle": "2"}).status_code == 200, "nothing is in the way of the next"


def all_ready(service: ServiceProcess, starts: int) -> bool:
    """Whether so many workers have been started by now, and none is without a model."""
    found = scraped(service)
    return sum(found["fullfunnel_worker_starts_total"].values()) == starts and all(
        found["fullfunnel_worker_ready"].values()
    )


def test_a_worker_that_is_started_later_begins_with_what_answers_by_then(versions: Path) -> None:
    by_digest = {digest_of(versions / v): expected(versions / v) for v in "12"}
    with ServiceProcess(versions / "1", "--workers", "2", "--admin-port", "0", trial_s=0) as service:
        ask = operator(service)
        assert ask("POST", "/swap", {"bundle": "2"}).status_code == 200
        for starts, pid in enumerate(children(service), 3):
            os.kill(pid, signal.SIGKILL)
            until(lambda starts=starts: all_ready(service, starts))  # type: ignore[misc]
        with load(service, by_digest) as answered:
            until(lambda: answered.total() > 50)
        assert set(answered) == {digest_of(versions / "2")}
        assert ask("POST", "/swap/back", {}).json()["current"]["version"] == "1", "which they had to load first"


def test_sighup_reads_the_path_again(versions: Path, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(versions / "1")
    for workers in ("1", "2"):
        with ServiceProcess(link, "--workers", workers, "--admin-port", "0") as service:
            ask = operator(service)
            link.unlink()
            link.symlink_to(versions / "2")
            service.process.send_signal(signal.SIGHUP)
            until(lambda: ask("GET", "/models").json()["current"]["version"] == "2")  # noqa: B023
        link.unlink()
        link.symlink_to(versions / "1")


def test_a_new_model_that_fails_is_taken_back_by_itself(versions: Path) -> None:
    bad = {"user": {"user_id": "bad"}, "candidates": {"item_id": ["i1"]}}
    with ServiceProcess(versions / "1", "--workers", "2", "--admin-port", "0") as service:
        ask = operator(service)
        assert service.client.post("/v1/predict", json=bad).status_code == 200
        assert ask("POST", "/swap", {"bundle": "nan"}).status_code == 200
        assert service.client.post("/v1/predict", json=BODY).json()["model"]["version"] == "nan"
        assert service.client.post("/v1/predict", json=bad).status_code == 500
        until(lambda: ask("GET", "/models").json()["current"]["version"] == "1")
        assert ask("GET", "/models").json()["previous"] is None, "what is at fault is not kept"
        assert service.client.post("/v1/predict", json=bad).status_code == 200
        until(lambda: scraped(service)["fullfunnel_swaps_total"][("result", "fell-back"),] == 1)


@pytest.mark.parametrize(("bias", "stays"), [(0.0, "2"), (2.0, "1")], ids=["as before", "shifted"])
def test_a_new_model_whose_scores_shift_is_taken_back_by_itself(
    toy: Path, tmp_path: Path, bias: float, stays: str
) -> None:
    reference = usual_reference(toy)
    for version, by in (("1", 0.0), ("2", bias)):
        publish_version(tmp_path, version, by, reference=reference)
    with ServiceProcess(tmp_path / "1", "--workers", "2", "--admin-port", "0", drift_every=2, trial_s=5) as service:
        ask = operator(service)
        send(service, *traffic(seed=1))
        assert ask("POST", "/swap", {"bundle": "2"}).status_code == 200
        send(service, *traffic(seed=2))
        service.wait_for(b"the new model stays" if stays == "2" else b"have shifted")
        until(lambda: scraped(service)["fullfunnel_swaps_total"][("result", "fell-back"),] == (stays == "1"))
        assert ask("GET", "/models").json()["current"]["version"] == stays


def test_what_the_shadow_scores_is_compared_and_counted(versions: Path) -> None:
    by_digest = {digest_of(versions / "1"): expected(versions / "1")}
    settings = {"shadow_every": 1, "overlap": False}
    with ServiceProcess(versions / "1", "--workers", "2", "--admin-port", "0", **settings) as service:
        ask = operator(service)
        assert ask("POST", "/shadow", {"bundle": "2"}).json()["shadow"]["version"] == "2"
        with load(service, by_digest) as answered:
            until(lambda: answered.total() > 200)
        found = scraped(service)
        runs = {dict(key)["result"]: value for key, value in found["fullfunnel_shadow_runs_total"].items()}
        assert runs["failed"] == 0 and runs["compared"] > 0
        # a run of requests that came together is chosen and compared once
        assert runs["compared"] + runs["dropped"] == found["fullfunnel_run_seconds_count"][()]
        count = found["fullfunnel_shadow_difference_count"][("output", "pctcvr"),]
        assert count >= 3 * runs["compared"]
        difference = np.abs(np.array(expected(versions / "2")) - expected(versions / "1")).mean()
        mean = found["fullfunnel_shadow_difference_sum"][("output", "pctcvr"),] / count
        assert mean == pytest.approx(difference, abs=1e-4)
        (shadow,) = found["fullfunnel_shadow_model"]
        assert dict(shadow)["digest"] == digest_of(versions / "2")
        assert ask("DELETE", "/shadow").json()["shadow"] is None
        assert "fullfunnel_shadow_model" not in scraped(service)
