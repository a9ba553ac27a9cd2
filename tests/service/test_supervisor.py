"""Workers under a supervisor: real processes, real signals."""

import os
import signal
import threading
from pathlib import Path

import httpx

from service.api.supervisor import Pulse, Supervisor
from service.api.swap.hub import Hub
from tests.service.process import PATIENCE_S, ServiceProcess, children, until

ONE = {"candidates": {"item_id": ["i1"]}}


def ask(service: ServiceProcess) -> int:
    """A prediction over a new connection."""
    url = f"http://127.0.0.1:{service.port}/v1/predict"
    return httpx.post(url, json=ONE, timeout=PATIENCE_S, trust_env=False).status_code


def test_a_worker_that_is_killed_is_replaced_and_others_answer_meanwhile(workers: ServiceProcess) -> None:
    before = children(workers)
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    for _ in range(20):
        assert ask(workers) == 200
    until(lambda: len(children(workers)) == 2 and before[0] not in children(workers))
    assert before[1] in children(workers)
    for _ in range(20):
        assert ask(workers) == 200


def test_a_worker_that_hangs_is_ended_and_replaced(toy: Path) -> None:
    with ServiceProcess(toy, "--workers", "2", worker_silence_s=2) as service:
        before = children(service)
        os.kill(before[1], signal.SIGSTOP)
        until(lambda: before[1] not in children(service) and len(children(service)) == 2)
        assert ask(service) == 200


def test_sigterm_drains_all_workers_and_nothing_is_left(workers: ServiceProcess) -> None:
    pids = children(workers)
    answered, failures = [0], list[str]()

    def ask_until_refused() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{workers.port}", trust_env=False) as client:
            try:
                while client.get("/readyz").status_code != 503:
                    answered[0] += client.post("/v1/predict", json=ONE).status_code == 200
            except httpx.HTTPError as error:
                failures.append(repr(error))

    clients = [threading.Thread(target=ask_until_refused) for _ in range(3)]
    for client in clients:
        client.start()
    until(lambda: answered[0] > 20)
    workers.terminate()
    for client in clients:
        client.join(PATIENCE_S)
    assert workers.process.wait(PATIENCE_S) == 0
    assert not failures
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_workers_leave_when_the_supervisor_is_killed(workers: ServiceProcess) -> None:
    pids = children(workers)
    workers.process.kill()
    workers.process.wait(PATIENCE_S)
    until(lambda: not any(is_running(pid) for pid in pids))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_ctrl_c_ends_all_without_a_traceback(workers: ServiceProcess) -> None:
    workers.process.send_signal(signal.SIGINT)
    assert workers.process.wait(PATIENCE_S) == 0
    assert workers.process.stderr is not None
    assert b"Traceback" not in workers.process.stderr.read()


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


def test_no_worker_is_started_after_a_signal_even_if_one_was_due() -> None:
    def work(*_: object) -> int:
        raise AssertionError

    supervisor = Supervisor([], work, lambda _: None, Hub("bundle"), silence_s=1, patience_s=1)
    supervisor._stop(signal.SIGTERM)
    supervisor._due[0] = 0.0  # as when the signal comes while a worker that has gone is seen to
    supervisor._start_due()
    assert not supervisor._workers and not supervisor._due
