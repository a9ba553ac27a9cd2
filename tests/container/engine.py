"""Docker, as its command line answers. Every image, container and volume made through it is removed again."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TAG = "test"
BUILD_S, RUN_S = 1800, 300


def why_no_engine() -> str | None:
    """What is missing for these tests, or None."""
    if shutil.which("docker") is None:
        return "there is no docker here"
    for command, what in (
        (["version"], "no Docker engine answers"),
        (["buildx", "version"], "Docker has no buildx"),
        (["compose", "version"], "Docker has no compose"),
    ):
        if subprocess.run(["docker", *command], capture_output=True, timeout=60).returncode:
            return what
    return None


def wheels() -> str | None:
    """A folder that holds a torch wheel, where pip is told of one; else torch comes from PyTorch's index."""
    told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    folders = [os.environ.get("FULLFUNNEL_WHEELS", ""), *re.findall(r"find-links='(.*)'", told)]
    return next((one for line in folders for one in line.split() if list(Path(one).glob("torch-*.whl"))), None)


def docker(*arguments: str, timeout_s: float = RUN_S, **environment: str) -> str:
    """What a command says on its standard output. It must succeed."""
    command = ["docker", *arguments]
    result = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=timeout_s
    )
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout[-5000:]}\n{result.stderr[-5000:]}"
    return result.stdout


def build(target: str, image: str, *options: str) -> str:
    """Build a target of the Dockerfile: the name of the image."""
    docker("build", "--progress", "plain", "--target", target, "--tag", image, *options, ".", timeout_s=BUILD_S)
    return image


def inspect(name: str) -> dict[str, Any]:
    """All that the engine knows about an image or a container."""
    found: dict[str, Any] = json.loads(docker("inspect", name))[0]
    return found


def python_in(image: str, program: str, *options: str) -> Any:
    """What a Python program prints, as JSON, in a new container of an image."""
    return json.loads(docker("run", "--rm", "--entrypoint", "python", *options, image, "-c", program))
