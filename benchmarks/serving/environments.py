"""An environment for each peer, made once, with nothing of Fullfunnel's in it.

Knows venv and pip. Does not know what is installed.
"""

import subprocess
import sys
from pathlib import Path


class NotInstalled(Exception):
    """pip could not install a peer; says why."""


def binaries(directory: Path, requirements: tuple[str, ...]) -> Path:
    """The bin/ of an environment, made when it is not there or was made of other requirements.

    Raises: NotInstalled.
    """
    ready, wanted = directory / "ready", "\n".join(requirements)
    if ready.exists() and ready.read_text() == wanted:
        return directory / "bin"
    print(f"making the environment {directory.name} (some minutes)", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
    pip = [str(directory / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    done = subprocess.run([*pip, *requirements], capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        raise NotInstalled(said[-1].removeprefix("ERROR: ") if said else f"pip ended with {done.returncode}")
    ready.write_text(wanted)
    return directory / "bin"
