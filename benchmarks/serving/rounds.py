"""Repetition by repetition, each system in turn: what was asked for, what has been measured, what could not be.

Knows the order of things. Does not know how a server is started, driven or judged.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from benchmarks.records import Figures, Job, Records
from benchmarks.serving.environments import NotInstalled, binaries
from benchmarks.serving.peers import onnx_graph
from benchmarks.serving.plan import Plan
from benchmarks.serving.requests import GRAPHS, GraphKind, Request, make_plan
from benchmarks.serving.server import ROOT, Running, ServerFailed, free_port, serving
from benchmarks.serving.systems import ALONE, ENGINE, ONNX, OURS, SESSION, SYSTEMS, System
from benchmarks.serving.table import Line, Load, median, tables
from service.scoring.scorer import Scorer

ENVIRONMENT = {"ORT_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT)}


@dataclass
class Benchmark:
    """What was asked for, and what has come of it: `failures` by system and graph."""

    options: argparse.Namespace
    scorer: Scorer
    raw: Scorer  # the same bundle, with strings looked up in the graph: it makes the peers' arrays
    graphs: dict[GraphKind, Path]
    plans: Path
    records: Records
    loads: list[Load]
    requests: dict[int, list[Request]]
    failures: dict[tuple[str, GraphKind], str] = field(default_factory=dict)

    def variants(self) -> list[tuple[System, GraphKind]]:
        """Each system with each graph it is to serve."""
        chosen = [system for system in SYSTEMS if system.name in self.options.systems]
        return [
            (system, graph)
            for system in chosen
            for graph in GRAPHS
            if (graph == "shared" if system in OURS else graph in self.options.graph)
        ]

    def job(self, system: System, graph: GraphKind, load: Load, repetition: int) -> Job:
        """What identifies a measurement."""
        settings = {
            "bundle": self.scorer.digest,
            "load": asdict(load),
            "seconds": self.options.seconds,
            "workers": self.options.workers,
            "packages": system.requirements,
            "sources": _sources(system),
        }
        return Job(f"{system.name} {graph}", repetition, json.dumps(settings))

    def loads_of(self, system: System) -> list[Load]:
        """What is put on a system; what is no server knows no connections."""
        return list(dict.fromkeys(map(_unconnected, self.loads))) if system in ALONE else self.loads

    def run(self) -> None:
        """Make what is missing, repetition by repetition; the systems take turns in being first."""
        variants = self.variants()
        for repetition in range(self.options.repetitions):
            turn = repetition % len(variants)
            for system, graph in variants[turn:] + variants[:turn]:
                jobs = {load: self.job(system, graph, load, repetition) for load in self.loads_of(system)}
                missing = {load: job for load, job in jobs.items() if job not in self.records}
                if not missing or (system.name, graph) in self.failures:
                    continue
                print(f"repetition {repetition + 1}: {system.title}, {graph} graph", file=sys.stderr)
                try:
                    self.measure(system, graph, missing)
                except (ServerFailed, NotInstalled) as error:
                    self.failures[system.name, graph] = str(error)
                    print(f"{system.title}, {graph} graph: {error}", file=sys.stderr)

    def measure(self, system: System, graph: GraphKind, missing: dict[Load, Job]) -> None:
        """Start, check, put the loads on, end. Raises: ServerFailed, NotInstalled."""
        plans = {load.candidates: self.plan(system, graph, load.candidates) for load in missing}
        environment = {**ENVIRONMENT, onnx_graph.GRAPH: str(self.graphs[graph].resolve())}
        bundle = self.options.bundle.resolve()
        if system in ALONE:
            for load, job in missing.items():
                arguments: list[str | Path] = ["benchmarks.serving.engine", plans[load.candidates][0]]
                arguments += ["--bundle", bundle] if system is SESSION else []
                self.records.add(job, self.child(arguments, environment))
            return
        directory = self.options.data / "peers" / system.name
        here = Path(sys.executable).parent
        bin_ = binaries(directory, (*ONNX, *system.requirements)).resolve() if system.requirements else here
        port, workers = free_port(), str(self.options.workers)
        environment |= {onnx_graph.PORT: str(port), onnx_graph.WORKERS: workers, **dict(system.environment)}
        names = {"bin": bin_, "python": bin_ / "python", "port": port, "workers": workers}
        command = [part.format(**names, bundle=bundle) for part in system.command]
        log = self.options.data / "serving" / f"{system.name}-{graph}.log"
        with serving(command, port, environment, log, [plan for _, plan in plans.values()]) as server:
            for load, job in missing.items():
                figures = self.child(_load_arguments(load, server, plans[load.candidates][0]), {})
                if figures["wrong"]:
                    raise ServerFailed(f"{load}: {figures['wrong']:.0f} answers were wrong")
                self.records.add(job, figures)

    def child(self, arguments: Sequence[str | Path], environment: dict[str, str]) -> Figures:
        """The figures that a process of its own prints. Raises: ServerFailed."""
        times = ["--seconds", str(self.options.seconds), "--warm-up", str(min(1.0, self.options.seconds))]
        command = [sys.executable, "-m", *map(str, arguments), *times]
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ServerFailed(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no figures")
        found: Figures = json.loads(done.stdout.splitlines()[-1])
        return found

    def plan(self, system: System, graph: GraphKind, candidates: int) -> tuple[Path, Plan]:
        """What to send, in a file and here."""
        file = self.plans / f"{system.wire}-{system.path.replace('/', '.')}-{graph}-{candidates}.json"
        if not file.exists():
            requests = self.requests[candidates]
            make_plan(self.raw, requests, system.wire, system.path, graph).write(file)
        return file, Plan.read(file)

    def tables(self, graph: GraphKind) -> str:
        """What was measured, load by load, and what could not be."""
        measured: dict[Load, list[Line]] = {}
        for load in self.loads:
            lines = measured.setdefault(load, [])
            for system, served in self.variants():
                if (served != graph and system not in OURS) or (system in ALONE and load.rate):
                    continue
                bare = SESSION if system in OURS else ENGINE
                alone = [] if load.rate else self.found(bare, served, _unconnected(load))
                found = alone if system in ALONE else self.found(system, served, load)
                if found:
                    lines.append(Line(system.title, found, median(alone)["requests_per_second"] if alone else None))
        failed = [
            f"* {system.title}: {self.failures[system.name, served]}"
            for system, served in self.variants()
            if (system.name, served) in self.failures and (served == graph or system in OURS)
        ]
        return "\n\n".join([tables(measured), *(["Not measured:\n\n" + "\n".join(failed)] if failed else [])])

    def found(self, system: System, graph: GraphKind, load: Load) -> list[Figures]:
        """The figures of every repetition there is."""
        jobs = [self.job(system, graph, load, repetition) for repetition in range(self.options.repetitions)]
        return [self.records[job] for job in jobs if job in self.records]


def _unconnected(load: Load) -> Load:
    """The load without its connections."""
    return Load(load.candidates, 0)


def _load_arguments(load: Load, server: Running, plan: Path) -> list[str | Path]:
    found: list[str | Path] = ["benchmarks.serving.load", plan]
    found += ["--port", str(server.port), "--pid", str(server.pid), "--connections", str(load.connections)]
    return [*found, "--rate", str(load.rate)] if load.rate else found


@cache
def _sources(system: System) -> str:
    """A digest of what measures and of what is measured: other sources, another measurement."""
    rooms = ["benchmarks/serving", *(["service", "contract"] if system in OURS else [])]
    files = sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
