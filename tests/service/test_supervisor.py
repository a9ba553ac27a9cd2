"""Workers under a supervisor: real processes, real signals."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from contract.bundle import GOLDEN
from service.api.supervisor import Pulse
from tests.service.process import PATIENCE_S, ServiceProcess
from tests.service.toy_bundle import publish_toy

ONE = {"candidates": {"item_id": ["i1"]}}


@pytest.fixture
def service(toy: Path) -> Iterator[ServiceProcess]:
    with ServiceProcess(toy, "--workers", "2", "--drain-delay-s", "0.2") as process:
        yield process


def children(service: ServiceProcess) -> list[int]:
    pid = service.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def ask(service: ServiceProcess) -> int:
    """A prediction over a new connection."""
    url = f"http://127.0.0.1:{service.port}/v1/predict"
    return httpx.post(url, json=ONE, timeout=PATIENCE_S, trust_env=False).status_code


def owners(service: ServiceProcess, ports: set[int]) -> list[int]:
    """How many of the connections from these ports each worker holds, fewest first."""
    inodes = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        inodes[fields[9]] = (int(fields[1].split(":")[1], 16), int(fields[2].split(":")[1], 16))
    counts = []
    for child in children(service):
        links = [str(path.readlink()) for path in Path(f"/proc/{child}/fd").iterdir() if path.is_symlink()]
        held = [inodes.get(link.removeprefix("socket:[").removesuffix("]")) for link in links]
        counts.append(sum(pair is not None and pair[0] == service.port and pair[1] in ports for pair in held))
    return sorted(counts)


def test_few_connections_are_spread_evenly_and_all_are_answered(service: ServiceProcess) -> None:
    head = b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 35\r\n\r\n"
    for count, expected in ((2, [1, 1]), (4, [2, 2]), (9, [4, 5])):
        clients = [service.connect() for _ in range(count)]
        ports = {client.getsockname()[1] for client in clients}
        for client in clients:
            client.sendall(head + b'{"candidates": {"item_id": ["i1"]}}')
            assert client.recv(4096).startswith(b"HTTP/1.1 200 OK")
        assert owners(service, ports) == expected
        for client in clients:
            client.close()
        until(lambda: owners(service, ports) == [0, 0])  # noqa: B023


def test_a_worker_that_is_killed_is_replaced_and_others_answer_meanwhile(service: ServiceProcess) -> None:
    before = children(service)
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    for _ in range(20):
        assert ask(service) == 200
    until(lambda: len(children(service)) == 2 and before[0] not in children(service))
    assert before[1] in children(service)
    for _ in range(20):
        assert ask(service) == 200


def test_a_worker_that_hangs_is_ended_and_replaced(toy: Path) -> None:
    with ServiceProcess(toy, "--workers", "2", worker_silence_s=2) as service:
        before = children(service)
        os.kill(before[1], signal.SIGSTOP)
        until(lambda: before[1] not in children(service) and len(children(service)) == 2)
        assert ask(service) == 200


def test_sigterm_drains_all_workers_and_nothing_is_left(service: ServiceProcess) -> None:
    workers = children(service)
    answered, failures = [0], list[str]()

    def ask_until_refused() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", trust_env=False) as client:
            try:
                while client.get("/readyz").status_code != 503:
                    answered[0] += client.post("/v1/predict", json=ONE).status_code == 200
            except httpx.HTTPError as error:
                failures.append(repr(error))

    clients = [threading.Thread(target=ask_until_refused) for _ in range(3)]
    for client in clients:
        client.start()
    until(lambda: answered[0] > 20)
    service.terminate()
    for client in clients:
        client.join(PATIENCE_S)
    assert service.process.wait(PATIENCE_S) == 0
    assert not failures
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_workers_leave_when_the_supervisor_is_killed(service: ServiceProcess) -> None:
    workers = children(service)
    service.process.kill()
    service.process.wait(PATIENCE_S)
    until(lambda: not any(is_running(pid) for pid in workers))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_ctrl_c_ends_all_without_a_traceback(service: ServiceProcess) -> None:
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(PATIENCE_S) == 0
    assert service.process.stderr is not None
    assert b"Traceback" not in service.process.stderr.read()


def test_what_was_loaded_is_in_memory_once(service: ServiceProcess) -> None:
    """A worker's pages are the supervisor's, but for what it has written to."""
    for child in children(service):
        text = Path(f"/proc/{child}/smaps_rollup").read_text()
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
        assert sizes["Pss"] < 0.7 * sizes["Rss"]


def test_a_pulse_beats_once_a_second_and_says_whether_it_is_ready() -> None:
    reading, writing = os.pipe()
    pulse = Pulse(writing, life=0)
    for _ in range(5):
        pulse.beat(ready=False)
    pulse._due = 0.0
    pulse.beat(ready=True)
    assert os.read(reading, 10) == b".r"
    os.close(reading)
    os.close(writing)


def test_workers_that_cannot_load_their_bundle_end_the_service_with_the_reason(tmp_path: Path) -> None:
    publish_toy(tmp_path / "toy")
    (tmp_path / "toy" / GOLDEN).write_bytes(b"{}")
    for threads in ("1", "2"):  # loaded before the workers, and by each
        options = ("--workers", "2", "--port", "0", "--intra-op-threads", threads)
        command = [sys.executable, "-m", "service", str(tmp_path / "toy"), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == 1
        assert "golden.json: size or SHA-256 differs from the manifest" in done.stderr
        assert "Traceback" not in done.stderr


def test_workers_do_not_share_a_port_with_another_service(service: ServiceProcess, toy: Path) -> None:
    command = [sys.executable, "-m", "service", str(toy), "--workers", "2", "--port", str(service.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1 and "Address already in use" in done.stderr
