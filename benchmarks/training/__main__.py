"""`python -m benchmarks.training`: every system on one log, each in a process of its own, one after another.

Knows the systems by their modules, and what the operating system says of their processes. Imports none of them,
and no array library: a child's peak memory begins with that of the process that started it.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environment import ROOT, interpreter
from benchmarks.training.result import Result
from benchmarks.training.settings import ARCHITECTURES

SYSTEMS = (
    ("loop", "hand-written loop over ready tensors"),
    ("fullfunnel", "Fullfunnel"),
    ("torch-rechub", "torch-rechub 0.9.0"),
)
HEADER = (
    "model", "system", "rows/s", "of the loop", "Parquet to model, s", "faster than torch-rechub",
    "whole process, s", "peak memory, MiB", "AUC click", "AUC click and conversion",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What a system's process said, and what it cost."""

    result: Result
    process_seconds: float
    peak_mib: float

    def best(self, other: "Measured") -> "Measured":
        """The faster of two: what slowed the other one down was not the system."""
        return Measured(
            self.result.best(other.result),
            min(self.process_seconds, other.process_seconds),
            max(self.peak_mib, other.peak_mib),
        )


def measure(system: str, architecture: str, log: Path) -> Measured:
    """Train in a process of its own."""
    python = interpreter("torch-rechub") if system == "torch-rechub" else Path(sys.executable)
    module = f"benchmarks.training.{system.removeprefix('torch-')}"
    print(f"{architecture}: {system}", file=sys.stderr)
    started = time.perf_counter()
    child = subprocess.Popen([python, "-m", module, architecture, log], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout
    with child.stdout as pipe:
        output = pipe.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{module} {architecture} ended with {child.returncode}")
    return Measured(Result.read(output), time.perf_counter() - started, usage.ru_maxrss / 1024)


def table(measured: dict[tuple[str, str], Measured]) -> str:
    """The figures as Markdown, by architecture and system."""
    names = dict(SYSTEMS)
    lines = [HEADER, ("---",) * 2 + ("---:",) * (len(HEADER) - 2)]
    for (architecture, system), cost in measured.items():
        x, loop, rechub = (
            measured[architecture, name].result if (architecture, name) in measured else None
            for name in (system, "loop", "torch-rechub")
        )
        assert x
        lines.append(
            (
                architecture,
                names[system],
                f"{x.rows_per_second:,.0f}",
                f"{x.rows_per_second / loop.rows_per_second:.2f}" if loop else "",
                f"{x.seconds:.1f}" if x.seconds else "",
                f"{rechub.seconds / x.seconds:.1f}x" if x.seconds and rechub and rechub.seconds else "",
                f"{cost.process_seconds:.1f}",
                f"{cost.peak_mib:,.0f}",
                f"{x.auc_click:.4f}",
                f"{x.auc_ctcvr:.4f}",
            )
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv: list[str] | None = None) -> None:
    """Parse, make the log, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    systems = [name for name, _ in SYSTEMS]
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--systems", nargs="+", choices=systems, default=systems)
    parser.add_argument("--models", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--repeats", type=int, default=1, help="the best of each figure counts")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "benchmarks", help="where logs are kept")
    options = parser.parse_args(argv)
    make = [sys.executable, "-m", "benchmarks.training.log", options.data.resolve(), str(options.rows)]
    log = Path(subprocess.run(make, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip())
    measured: dict[tuple[str, str], Measured] = {}
    for _ in range(options.repeats):
        for architecture in options.models:
            for system in options.systems:
                key = architecture, system
                figures = measure(system, architecture, log)
                measured[key] = measured[key].best(figures) if key in measured else figures
    print(table(measured))


if __name__ == "__main__":
    main()
