"""Environments of other systems: each its own, made from a hash-locked list, with the project's torch.

Knows venv and pip. Does not know what runs inside.

benchmarks/environments/NAME.in names what is wanted and NAME.lock fixes every version but torch's:
`uv pip compile NAME.in --universal --python-version 3.11 --generate-hashes --no-emit-package torch
--excludes requirements/excluded.txt --constraint requirements/dev.lock -o NAME.lock` writes it.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "benchmarks" / "environments"


def interpreter(name: str, torch: bool = True) -> Path:
    """The Python of an environment, made below build/ when it is not there or its lock has changed."""
    directory = ROOT / "build" / "environments" / name
    python, ready, lock = directory / "bin" / "python", directory / "ready", LOCKS / f"{name}.lock"
    wanted = f"{torch_requirement() if torch else ''}\n{lock.read_text()}"
    if ready.exists() and ready.read_text() == wanted:
        return python
    print(f"making the environment of {name} (some minutes)", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
    index = os.environ.get("TORCH_INDEX_URL")  # as `make setup` takes it
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "-qq", "install", "--no-deps"]
    if torch:
        subprocess.run([*pip, *(["--index-url", index] if index else []), torch_requirement()], check=True)
    subprocess.run([*pip, "--require-hashes", "-r", lock], check=True)
    ready.write_text(wanted)
    return python


def torch_requirement() -> str:
    """The torch that pyproject.toml pins.

    >>> torch_requirement().startswith("torch==")
    True
    """
    found = re.search(r'"(torch==[0-9.]+)"', (ROOT / "pyproject.toml").read_text())
    assert found, "pyproject.toml pins torch"
    return found[1]
