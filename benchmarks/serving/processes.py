"""What a process and its descendants cost: seconds on the processor, and memory.

Knows /proc. Does not know what runs.
"""

import contextlib
import os
import signal
import time
from collections import defaultdict
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """A process, all that descend from it, and all of its session: a process whose parent is gone is still counted."""
    children: dict[int, list[int]] = defaultdict(list)
    members: list[int] = []
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children[int(fields[1])].append(int(entry.name))
            if int(fields[3]) == pid:
                members.append(int(entry.name))
    found: set[int] = set()
    waiting = [pid, *members]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting.extend(children[one])
    return sorted(found)


def cpu_seconds(pid: int) -> dict[int, float]:
    """User and system time of each process of the tree so far."""
    fields = {one: _stat(one) for one in tree(pid)}
    return {one: (int(stat[11]) + int(stat[12])) / TICKS for one, stat in fields.items() if stat}


def spent(before: dict[int, float], after: dict[int, float]) -> float:
    """Seconds between two readings; what began in between counts whole."""
    return sum(seconds - before.get(one, 0.0) for one, seconds in after.items())


def memory_mib(pid: int) -> float:
    """Resident memory of the tree; a page that several share counts once."""
    kib = 0
    for one in tree(pid):
        try:
            lines = (PROC / str(one) / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # gone, or a zombie
        kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib / 1024


def end(pid: int, patience_s: float = 20.0, afterwards_s: float = 3.0) -> None:
    """Ask a child to end and wait; wait a little more for its descendants, and kill what is left of the tree."""
    members = tree(pid)
    _signal(pid, signal.SIGTERM)
    _wait([pid], patience_s)
    _wait(members, afterwards_s)
    for one in {*filter(_alive, members), *tree(pid)}:
        _signal(one, signal.SIGKILL)
    _wait([pid], afterwards_s)


def _wait(members: list[int], patience_s: float) -> None:
    """Until none lives, or patience ends; what has ended is reaped where it is a child."""
    deadline = time.monotonic() + patience_s
    while any(map(_alive, members)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for one in members:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(one, os.WNOHANG)


def _stat(pid: int) -> list[str] | None:
    """The fields after the name: state, parent, group, session, ..."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _alive(pid: int) -> bool:
    fields = _stat(pid)
    return fields is not None and fields[0] != "Z"


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
