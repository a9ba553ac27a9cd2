"""The serving benchmark counts what a server did, notices what it did wrong, and says so in its tables."""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.records import Records
from benchmarks.serving import load, processes
from benchmarks.serving.environments import NotInstalled, binaries
from benchmarks.serving.plan import Plan
from benchmarks.serving.rounds import Benchmark
from benchmarks.serving.server import ServerFailed, check, serving
from benchmarks.serving.systems import ENGINE, FULLFUNNEL, SESSION, System
from benchmarks.serving.table import Line, Load, median, tables

OUTPUTS = ["a", "b"]
PLAN = Plan("columns", "/predict", OUTPUTS, [b"[0]", b"[1]", b"[2]"], [np.array([[i / 4], [0.5]]) for i in range(3)])
Answer = Callable[[int, int], tuple[int, Any]]  # number of the call and of the request -> status, JSON


def right(_: int, request: int) -> tuple[int, Any]:
    return 200, {"a": [request / 4], "b": [0.5]}


@contextmanager
def tiny_server(answer: Answer) -> Iterator[tuple[int, list[int]]]:
    """Its port, and the requests it was asked, in order."""
    asked: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            (request,) = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(request)
            status, document = answer(len(asked), request)
            body = json.dumps(document).encode()
            self.wfile.write(f"HTTP/1.1 {status} X\r\nCONTENT-length:{len(body)}\r\n\r\n".encode() + body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """The load generator hangs up in the middle of things."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def drive(port: int, connections: int = 2, **more: Any) -> load.Outcome:
    return load.drive(PLAN.requests(port), port, connections, 0.2, **more)


def test_a_closed_loop_counts_every_answer_and_asks_every_request_in_turn() -> None:
    with tiny_server(right) as (port, asked):
        outcome = drive(port)
    assert len(asked) - 2 <= outcome.answered == len(outcome.latencies) <= len(asked)
    assert set(asked) == {0, 1, 2} and outcome.answered > 10
    assert outcome.seconds == pytest.approx(0.2, abs=0.1)
    assert 0 < min(outcome.latencies) <= sum(outcome.latencies) / outcome.answered < 0.2
    assert outcome.wrong(PLAN) == outcome.refused == outcome.unanswered == 0
    assert {request: len(bodies) for request, bodies in outcome.answers.items()} == {0: 1, 1: 1, 2: 1}


def test_a_warm_up_is_not_counted() -> None:
    edges: list[float] = []
    with tiny_server(right) as (port, asked):
        outcome = drive(port, warm_up=0.2, at_edge=lambda: edges.append(time.perf_counter()))
    assert 0 < outcome.answered < len(asked)
    assert edges[1] - edges[0] == pytest.approx(outcome.seconds, abs=0.05)


def test_one_wrong_answer_among_many_is_noticed() -> None:
    def once_wrong(call: int, request: int) -> tuple[int, Any]:
        return (200, {"a": [request / 4 + 1e-5], "b": [0.5]}) if call == 7 else right(call, request)

    with tiny_server(once_wrong) as (port, _):
        assert drive(port).wrong(PLAN) == 1
    # a server of its own: requests that the load generator hung up on may still be counted by the other
    wrong = lambda call, request: once_wrong(7, request)  # noqa: E731
    with (
        tiny_server(wrong) as (port, _),
        pytest.raises(ServerFailed, match=r"scores differ by 1\.0e-05, more than 1e-06"),
    ):
        check(port, PLAN)


def test_an_open_loop_sends_at_its_rate_whatever_the_answers() -> None:
    with tiny_server(right) as (port, asked):
        outcome = drive(port, rate=200)
    assert len(asked) == outcome.answered == 40
    assert outcome.seconds == pytest.approx(0.2, abs=0.15)


def test_an_open_loop_counts_latency_from_when_a_request_was_due() -> None:
    """One connection, and the first answer comes when all others are due: each has waited for it."""
    gate = threading.Event()

    def late(call: int, request: int) -> tuple[int, Any]:
        if call == 1:
            gate.wait(10)
        return right(call, request)

    timer = threading.Timer(0.15, gate.set)
    with tiny_server(late) as (port, _):
        timer.start()
        outcome = drive(port, connections=1, rate=100)
        timer.join()
    assert outcome.answered == 20 and outcome.unanswered == 0
    assert outcome.latencies[0] >= 0.14 and outcome.latencies[5] >= 0.09


def test_requests_that_are_never_answered_count_with_the_time_they_waited() -> None:
    gate = threading.Event()

    def never(_: int, request: int) -> tuple[int, Any]:
        gate.wait(10)
        return right(_, request)

    with tiny_server(never) as (port, _):
        outcome = drive(port, connections=1, rate=50)
        gate.set()
    assert outcome.answered == 0 and outcome.unanswered == 10 == len(outcome.latencies)
    assert max(outcome.latencies) >= 0.39 and min(outcome.latencies) >= 0.2


def test_refusals_are_counted_apart() -> None:
    with tiny_server(lambda call, request: right(call, request) if call % 2 else (503, {})) as (port, _):
        outcome = drive(port, rate=100)
    assert (outcome.answered, outcome.refused, outcome.wrong(PLAN)) == (10, 10, 0)


def test_answers_that_are_never_the_same_end_the_load() -> None:
    with (
        tiny_server(lambda call, request: (200, {"call": call})) as (port, _),
        pytest.raises(load.LoadFailed, match=f"more than {load.MAX_DISTINCT} different answers to one request"),
    ):
        drive(port)


def test_the_process_prints_figures_with_the_cost_of_another_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    PLAN.write(tmp_path / "plan.json")
    with tiny_server(right) as (port, _):
        options = ["--port", str(port), "--connections", "2", "--seconds", "0.2", "--pid", str(os.getpid())]
        load.main([str(tmp_path / "plan.json"), *options])
    figures = json.loads(capsys.readouterr().out)
    assert figures["wrong"] == figures["refused"] == 0
    assert figures["requests_per_second"] > 50 and 0 < figures["p50_ms"] <= figures["p99_ms"] < 200
    assert figures["cpu_s_per_1000"] > 0 and figures["memory_mib"] > 10


def test_a_server_that_answers_nothing_in_time_has_figures_without_latency(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    PLAN.write(tmp_path / "plan.json")
    gate = threading.Event()

    def never(_: int, request: int) -> tuple[int, Any]:
        gate.wait(10)
        return right(_, request)

    with tiny_server(never) as (port, _):
        load.main([str(tmp_path / "plan.json"), "--port", str(port), "--connections", "3", "--seconds", "0.1"])
        gate.set()
    figures = json.loads(capsys.readouterr().out)
    assert figures["requests_per_second"] == 0 and figures["unanswered"] == 3 and "p50_ms" not in figures


def test_nobody_there_is_said_in_one_line(tmp_path: Path) -> None:
    PLAN.write(tmp_path / "plan.json")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        options = ["--port", str(probe.getsockname()[1]), "--connections", "1", "--seconds", "0.1"]
        with pytest.raises(SystemExit, match=r"load: .*refused"):
            load.main([str(tmp_path / "plan.json"), *options])


FAMILY = """
import subprocess, sys
waits = "print(flush=True); import time; time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", waits], stdout=subprocess.PIPE)
child.stdout.readline()
for _ in range(3_000_000): pass
print(child.pid, flush=True)
child.wait()
"""


def test_a_process_tree_is_measured_and_ended_with_its_children() -> None:
    parent = subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert parent.stdout
    with parent.stdout as pipe:
        child = int(pipe.readline())
    before = processes.cpu_seconds(parent.pid)
    assert {parent.pid, child} <= set(processes.tree(parent.pid)) and os.getpid() not in before
    assert processes.spent({}, before) > 0 and processes.spent(before, before) == 0
    assert processes.memory_mib(parent.pid) > processes.memory_mib(child) > 1
    processes.end(parent.pid, afterwards_s=0.1)
    parent.poll()
    assert not processes.memory_mib(parent.pid) and not processes.memory_mib(child)


def test_a_line_holds_medians_and_every_lost_request() -> None:
    rates = (100.0, 400.0, 200.0)
    one = {"p50_ms": 1.0, "p99_ms": 2.0, "cpu_s_per_1000": 0.5, "memory_mib": 1234.5, "refused": 1.0, "unanswered": 2.0}
    repetitions = [{"requests_per_second": rate, **one} for rate in rates]
    assert median(repetitions)["requests_per_second"] == 200
    line = Line("us", repetitions, 400.0)
    assert line.cells() == ("us", "200", "100 to 400", "1.00", "2.00", "0.50", "1,234", "0.50", "9")
    alone = Line("graph", [{key: repetitions[2][key] for key in list(repetitions[2])[:4]}], None)
    assert alone.cells() == ("graph", "200", "200 to 200", "1.00", "2.00", "0.50", "", "", "0")
    silent = Line("them", [{"requests_per_second": 0.0, "unanswered": 64.0}], None)
    assert silent.cells() == ("them", "0", "0 to 0", "", "", "", "", "", "64")


def test_tables_name_their_load_and_begin_with_the_fastest() -> None:
    def line(title: str, rate: float) -> Line:
        return Line(title, [{"requests_per_second": rate, "p50_ms": 1, "p99_ms": 1, "cpu_s_per_1000": 1}], None)

    text = tables({Load(1, 4): [line("slow", 1), line("fast", 9)], Load(100, 64, 20.0): [line("x", 1)], Load(5, 5): []})
    assert re.findall(r"#### (.*)", text) == ["1 candidate, 4 connections", "100 candidates, 20 requests/s due"]
    assert re.findall(r"^\| (\w+) \|", text, re.MULTILINE) == ["system", "fast", "slow", "system", "x"]
    assert len({line.count("|") for line in text.splitlines() if line} - {0}) == 1


def test_a_server_that_ends_is_told_with_the_last_line_it_said(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no such graph'); raise SystemExit(3)"]
    with (
        pytest.raises(ServerFailed, match="ended with 3: no such graph"),
        serving(command, 1, {}, tmp_path / "x", [PLAN]),
    ):
        pass


def test_a_peer_that_cannot_be_installed_is_told_with_what_pip_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "WARNING: x\nERROR: no matching distribution\n"
    done = [subprocess.CompletedProcess([], code, "", said) for code in (0, 1, 0, 0)]  # venv, pip, venv, pip
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done.pop(0))
    with pytest.raises(NotInstalled, match="no matching distribution"):
        binaries(tmp_path, ("peer==1",))
    for _ in range(2):
        assert binaries(tmp_path, ("peer==1",)) == tmp_path / "bin"
    assert not done, "made again after a failure, and not after a success"


def test_every_system_is_measured_once_and_one_that_fails_is_told_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []
    records = Records(tmp_path / "figures.jsonl")
    options = argparse.Namespace(
        systems=["fullfunnel", "session", "engine", "mosec", "ray"],
        graph=["flat"],
        repetitions=3,
        seconds=1.0,
        workers=2,
    )

    def measure(_: Benchmark, system: System, graph: str, missing: dict[Load, Any]) -> None:
        asked.append((system.name, graph))
        if system.name == "ray":
            raise ServerFailed("no wheel")
        for job in missing.values():
            speed = 50.0 * (1 + len(system.name))
            records.add(job, {"requests_per_second": speed, "p50_ms": 1, "p99_ms": 1, "cpu_s_per_1000": 1})

    monkeypatch.setattr(Benchmark, "measure", measure)
    scorer: Any = SimpleNamespace(digest="d")
    loads = [Load(1, 4), Load(1, 64, 20.0)]
    benchmark = Benchmark(options, scorer, scorer, {}, tmp_path, records, loads, {})
    benchmark.run()
    benchmark.run()
    everyone = {("fullfunnel", "shared"), ("session", "shared"), ("engine", "flat"), ("mosec", "flat")}
    assert {each: asked.count(each) for each in asked} == {**dict.fromkeys(everyone, 3), ("ray", "flat"): 1}
    assert asked[0] != asked[5], "the systems take turns in being first"
    text = benchmark.tables("flat")
    assert "* Ray Serve 2.60.0: no wheel" in text
    closed, opened = text.split("####")[1:]
    lines = {line.split(" | ")[0]: line.split(" | ") for line in closed.splitlines() if line.startswith("| ")}
    assert lines["| Fullfunnel"][7] == f"{11 / 8:.2f}" and lines["| mosec 0.9.8"][7] == f"{6 / 7:.2f}"
    assert lines[f"| {ENGINE.title}"][7] == lines[f"| {SESSION.title}"][7] == "1.00"
    assert ENGINE.title not in opened and FULLFUNNEL.title in opened
