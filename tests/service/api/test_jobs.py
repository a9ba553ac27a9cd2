"""Jobs by HTTP, with real services, processes and files."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from service.batch.job import Job
from service.batch.run import run_job
from service.scoring.scorer import Scorer
from tests.service.batch.tables import assert_scored, toy_table, write
from tests.service.conftest import Api
from tests.service.process import ServiceProcess, children, until

ENDED = ("succeeded", "failed", "cancelled")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def start(toy: Path, tmp_path: Path, root: Path) -> Iterator[Callable[..., ServiceProcess]]:
    services: list[ServiceProcess] = []

    def begin(*arguments: str, **settings: object) -> ServiceProcess:
        given = {"job_dir": tmp_path / "jobs", "job_roots": root, **settings}
        service = ServiceProcess(toy, "--drain-delay-s", "0", *arguments, **given)
        services.append(service)
        return service

    yield begin
    for service in services:
        service.__exit__()


def post(service: ServiceProcess, key: str | None = None, **asked: Any) -> httpx.Response:
    return service.client.post("/v1/jobs", json=asked, headers={"idempotency-key": key} if key else {})


def started(service: ServiceProcess, **asked: Any) -> str:
    response = post(service, **asked)
    assert response.status_code == 202, response.text
    assert response.headers["location"] == f"/v1/jobs/{response.json()['id']}"
    return str(response.json()["id"])


def job(service: ServiceProcess, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = service.client.get(f"/v1/jobs/{job_id}").json()
    return found


def ended(service: ServiceProcess, job_id: str) -> dict[str, Any]:
    until(lambda: job(service, job_id)["state"] in ENDED)
    return job(service, job_id)


def slow_input(root: Path, files: int = 150) -> Path:
    """Many files: a job of them takes a while, and its progress shows."""
    write(toy_table(4000), root / "in" / "part-0.parquet")
    for number in range(1, files):
        shutil.copy(root / "in" / "part-0.parquet", root / "in" / f"part-{number}.parquet")
    return root / "in"


def processes_of_jobs() -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if b"service.batch.jobs.work" in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
            except OSError:
                continue
    return found


def of_service(service: ServiceProcess) -> set[int]:
    text = service.process.pid
    own = {text, *children(service)}
    return {pid for pid in processes_of_jobs() if _parent(pid) in own}


def _parent(pid: int) -> int:
    try:
        return int(re.findall(r"PPid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])
    except (OSError, IndexError):
        return 0


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_job_is_started_watched_and_has_the_scores_of_the_scorer(
    start: Callable[..., ServiceProcess], root: Path, scorer: Scorer
) -> None:
    table = toy_table(500)
    write(table, root / "log.parquet")
    service = start()
    asked = {"input": f"{root}/log.parquet", "output": f"{root}/new/scores.parquet", "keep": ["row_id"]}
    job_id = started(service, **asked)
    found = ended(service, job_id)
    assert found["state"] == "succeeded", found
    assert (found["rows"], found["rows_done"], found["refused"], found["runs"]) == (500, 500, 0, 1)
    assert found["model"]["digest"] == scorer.digest
    out = pq.read_table(root / "new" / "scores.parquet")
    assert out["row_id"].to_pylist() == list(range(500))
    assert_scored(out, scorer, table)
    assert service.client.get("/v1/jobs").json()["jobs"] == [found]


def test_a_job_that_fails_says_why(start: Callable[..., ServiceProcess], root: Path) -> None:
    write(toy_table(5).drop_columns(["city"]), root / "log.parquet")
    service = start()
    found = ended(service, started(service, input=f"{root}/log.parquet", output=f"{root}/out"))
    assert found["state"] == "failed"
    assert found["error"]["type"] == "urn:fullfunnel:problem:column-missing"
    assert "'city'" in found["error"]["detail"]
    assert os.listdir(root) == ["log.parquet"]


def test_a_key_makes_one_job_however_often_it_is_sent_to_whichever_worker(
    start: Callable[..., ServiceProcess], root: Path
) -> None:
    write(toy_table(50), root / "log.parquet")
    service = start("--workers", "2")
    asked = {"input": f"{root}/log.parquet", "output": f"{root}/out"}
    answers = []
    for _ in range(8):
        with httpx.Client(base_url=service.client.base_url, trust_env=False, timeout=30) as client:
            answers.append(client.post("/v1/jobs", json=asked, headers={"idempotency-key": "nightly-1"}))
    assert [answer.status_code for answer in answers] == [202] + [200] * 7
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = post(service, "nightly-1", **asked | {"max_bad": 1})
    assert other.status_code == 422 and other.json()["type"].endswith(":key-reused")
    assert ended(service, answers[0].json()["id"])["runs"] == 1
    assert len(service.client.get("/v1/jobs").json()["jobs"]) == 1


def test_a_job_is_cancelled_running_or_waiting(start: Callable[..., ServiceProcess], root: Path) -> None:
    source = slow_input(root)
    service = start()
    first, second = (started(service, input=str(source), output=f"{root}/out{n}") for n in (1, 2))
    until(lambda: job(service, first)["rows_done"] > 0)
    assert job(service, second)["state"] == "waiting"  # one runs at once
    for one in (second, first):
        response = service.client.delete(f"/v1/jobs/{one}")
        assert response.status_code == 202 and response.json()["state"] in ("cancelling", "cancelled")
    assert {ended(service, one)["state"] for one in (first, second)} == {"cancelled"}
    until(lambda: not of_service(service))
    assert not (root / "out1" / "_SUCCESS").exists()
    third = started(service, input=str(source), output=f"{root}/out1")  # goes on with what the first has left
    assert ended(service, third)["state"] == "succeeded"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_killed_service_leaves_no_orphan_and_the_next_goes_on_to_the_same_bytes(
    start: Callable[..., ServiceProcess], root: Path, toy: Path, tmp_path: Path, workers: str
) -> None:
    source = slow_input(root)
    service = start("--workers", workers)
    job_id = started(service, input=str(source), output=f"{root}/out", keep=["row_id"])
    until(lambda: len(list((root / "out").glob("part-*"))) > 1)
    running = of_service(service)
    assert len(running) == 1
    pids = [*children(service), service.process.pid] if workers == "2" else [service.process.pid]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    service.process.wait()
    until(lambda: not running & processes_of_jobs())
    assert not (root / "out" / "_SUCCESS").exists()
    state = json.loads((tmp_path / "jobs" / job_id / "state.json").read_bytes())
    assert state["state"] == "running"

    found = ended(start("--workers", workers), job_id)
    assert (found["state"], found["runs"], found["rows_done"]) == ("succeeded", 2, 600_000)
    run_job(Job(str(toy.resolve()), str(source), str(tmp_path / "direct"), ("row_id",)))
    direct, by_service = contents(tmp_path / "direct"), contents(root / "out")
    assert direct.keys() == by_service.keys()
    assert {name for name in direct if direct[name] != by_service[name]} == set()


def test_a_killed_worker_is_followed_by_another_who_goes_on(start: Callable[..., ServiceProcess], root: Path) -> None:
    source = slow_input(root)
    service = start("--workers", "2")
    job_id = started(service, input=str(source), output=f"{root}/out")
    until(lambda: job(service, job_id)["rows_done"] > 0)
    (process,) = of_service(service)
    os.kill(_parent(process), signal.SIGKILL)

    def went_on() -> bool:
        try:
            return bool(job(service, job_id)["state"] in ENDED)
        except httpx.TransportError:  # the connection was the dead worker's
            return False

    until(went_on)
    assert job(service, job_id)["state"] == "succeeded"
    assert job(service, job_id)["runs"] == 2


def test_a_job_that_needs_too_much_memory_fails_and_predictions_go_on(
    start: Callable[..., ServiceProcess], root: Path
) -> None:
    write(toy_table(50), root / "log.parquet")
    service = start(job_memory_bytes=150 * 2**20)
    found = ended(service, started(service, input=f"{root}/log.parquet", output=f"{root}/out"))
    assert found["state"] == "failed"
    assert found["error"]["type"] == "urn:fullfunnel:problem:worker-lost"
    assert service.client.get("/readyz").status_code == 200
    body = {"user": {"city": "Berlin"}, "candidates": {"item_id": ["i1"]}}
    assert service.client.post("/v1/predict", json=body).status_code == 200


def test_places_outside_are_refused(start: Callable[..., ServiceProcess], root: Path, tmp_path: Path) -> None:
    write(toy_table(5), root / "log.parquet")
    secret = write(toy_table(5), tmp_path / "secret" / "log.parquet")
    service = start()
    inside, out = f"{root}/log.parquet", f"{root}/out"
    for source in (
        str(secret),
        f"{root}/../secret/log.parquet",
        f"{root}/x/../../secret/log.parquet",
        f"{root}/%2e%2e/secret/log.parquet",
        f"{root}%2f..%2fsecret",
        f"{root}\x00/log.parquet",
        f"{root}-other/log.parquet",
        "log.parquet",
        "../secret/log.parquet",
        f"//{secret}",
        f"{root}/\\..\\secret",
        f"file://{secret}",
        "s3://bucket/log.parquet",
        "",
        "/",
    ):
        response = post(service, input=source, output=out)
        assert response.status_code == 403, (source, response.text)
        assert response.json()["type"].endswith(":place-forbidden")
        assert "secret" not in response.text
    for target in (f"{tmp_path}/secret/out", f"{root}/../out", str(root), f"{root}/", "out", f"{root}/%2E%2E/out"):
        assert post(service, input=inside, output=target).status_code == 403, target
    assert service.client.get("/v1/jobs").json() == {"jobs": []}
    assert sorted(os.listdir(tmp_path)) == ["data", "jobs", "secret"]


def test_links_that_lead_out_are_refused_when_they_are_used(
    start: Callable[..., ServiceProcess], root: Path, tmp_path: Path
) -> None:
    secret = write(toy_table(5), tmp_path / "secret" / "log.parquet")
    write(toy_table(5), root / "log.parquet")
    (root / "file.parquet").symlink_to(secret)
    (root / "folder").symlink_to(secret.parent)
    (root / "mixed").mkdir()
    (root / "mixed" / "part.parquet").symlink_to(secret)
    (root / "target").symlink_to(tmp_path / "secret")
    service = start()
    for source in ("file.parquet", "folder/log.parquet", "mixed", "fold*/*.parquet"):
        found = ended(service, started(service, input=f"{root}/{source}", output=f"{root}/out"))
        assert found["state"] == "failed", source
        assert found["error"]["type"].endswith(":place-forbidden"), (source, found)
    for target in ("target/out", "target"):
        found = ended(service, started(service, input=f"{root}/log.parquet", output=f"{root}/{target}"))
        assert found["error"]["type"].endswith(":place-forbidden"), (target, found)
    assert os.listdir(tmp_path / "secret") == ["log.parquet"]


@pytest.mark.parametrize(
    ("asked", "status", "kind"),
    [
        ({"output": "/x"}, 422, "feature-missing"),
        ({"input": 1, "output": "/x"}, 422, "value-invalid"),
        ({"input": "/x", "output": "/x", "max_bad": True}, 422, "value-invalid"),
        ({"input": "/x", "output": "/x", "keep": [1]}, 422, "value-invalid"),
        ({"input": "/x", "output": "/x", "format": "xls"}, 422, "value-invalid"),
        ({"input": "/x", "output": "/x", "bundle": "/y"}, 422, "unknown-field"),
    ],
)
def test_what_is_no_job_is_refused(
    make_api: Callable[..., Api], tmp_path: Path, root: Path, asked: dict[str, Any], status: int, kind: str
) -> None:
    api = make_api(job_dir=str(tmp_path / "jobs"), job_roots=str(root))
    response = api.post("/v1/jobs", asked)
    assert (response.status_code, response.json()["type"].rpartition(":")[2]) == (status, kind)


def test_unknown_jobs_are_not_found(make_api: Callable[..., Api], tmp_path: Path, root: Path) -> None:
    api = make_api(job_dir=str(tmp_path / "jobs"), job_roots=str(root))
    for job_id in ("0" * 32, "x", "..", "%2e%2e", "runner.lock"):
        for method in ("GET", "DELETE"):
            assert api.call(method, f"/v1/jobs/{job_id}").status_code in (404, 405), job_id
    assert api.get("/v1/jobs").json() == {"jobs": []}


def test_no_more_jobs_wait_than_allowed(make_api: Callable[..., Api], tmp_path: Path, root: Path) -> None:
    api = make_api(job_dir=str(tmp_path / "jobs"), job_roots=str(root), max_waiting_jobs=2)
    asked = {"input": f"{root}/in", "output": f"{root}/out"}
    statuses = [api.post("/v1/jobs", asked).status_code for _ in range(3)]
    assert statuses == [202, 202, 503]


def test_without_roots_there_are_no_jobs_and_the_answer_says_what_to_set(api: Api) -> None:
    for response in (api.post("/v1/jobs", {}), api.get("/v1/jobs"), api.get("/v1/jobs/x")):
        assert response.status_code == 403
        assert "FULLFUNNEL_JOB_ROOTS" in response.text


def test_a_job_whose_record_is_damaged_has_failed_and_the_others_are_shown(
    make_api: Callable[..., Api], tmp_path: Path, root: Path
) -> None:
    api = make_api(job_dir=str(tmp_path / "jobs"), job_roots=str(root))
    asked = {"input": f"{root}/in", "output": f"{root}/out"}
    damaged, sound = (api.post("/v1/jobs", asked).json()["id"] for _ in range(2))
    state = tmp_path / "jobs" / damaged / "state.json"
    for content in ("{", '{"runs": "x"}', '{"state": "failed", "error": {"what": "?"}}', '{"started": 1e300}'):
        state.write_text(content)
        response = api.get("/v1/jobs")
        assert response.status_code == 200, content
        assert {job["id"]: job["state"] for job in response.json()["jobs"]} == {sound: "waiting", damaged: "failed"}
        assert api.get(f"/v1/jobs/{damaged}").json()["error"]["type"].startswith("urn:fullfunnel:problem:")
        assert api.post("/v1/jobs", {**asked, "input": content}).status_code == 403
    state.unlink()
    state.mkdir()
    assert [job["id"] for job in api.get("/v1/jobs").json()["jobs"]] == [sound]
    assert api.get(f"/v1/jobs/{damaged}").status_code == 500
    assert api.post("/v1/jobs", asked).status_code == 202
