"""Measurements that outlive an interruption: one JSON line each, appended as soon as it is made.

Knows a file. Does not know what was measured.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Figures = dict[str, float]


@dataclass(frozen=True)
class Job:
    """A measurement to make: a seed of a system, whose `settings` (as JSON) decide whether an old one still counts."""

    system: str
    seed: int
    settings: str

    @property
    def key(self) -> str:
        """What identifies the measurement."""
        digest = hashlib.sha256(self.settings.encode()).hexdigest()[:16]
        return f"{self.system}/{self.seed}/{digest}"


class Records:
    """What was measured so far, by key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._found: dict[str, Figures] = {
            line["key"]: line["figures"] for line in map(json.loads, filter(None, lines))
        }

    def __contains__(self, job: Job) -> bool:
        return job.key in self._found

    def __getitem__(self, job: Job) -> Figures:
        return self._found[job.key]

    def add(self, job: Job, figures: Figures) -> None:
        """Append a line."""
        self._found[job.key] = figures
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a") as file:
            file.write(json.dumps({"key": job.key, "figures": figures}) + "\n")


def complete(records: Records, jobs: Sequence[Job], processes: int, measure: Callable[[Job], Figures]) -> None:
    """Make the measurements that are missing, `processes` at a time; each is kept as soon as it is there."""
    missing = [job for job in jobs if job not in records]
    print(f"{len(jobs) - len(missing)} of {len(jobs)} measured before", file=sys.stderr)
    with ThreadPoolExecutor(processes) as pool:
        for number, (job, figures) in enumerate(zip(missing, pool.map(measure, missing), strict=True), start=1):
            records.add(job, figures)
            print(f"{number} of {len(missing)}: {job.system}, seed {job.seed}", file=sys.stderr)


def in_process(module: str, arguments: Sequence[str | Path | int]) -> Any:
    """What `python -m module arguments` prints on its last line, as JSON. Raises: SystemExit when it fails."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[1:])} ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])
