"""Prometheus's own tools, from the path or from Debian's package: `python -m deploy.promtool` prints where promtool is.

The package is unpacked into build/, not installed, so that no root is needed and no service starts. Knows apt and dpkg.
Does not know rules.
"""

import shutil
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "build" / "prometheus"


class NotAvailable(Exception):
    """There is no Prometheus to be had here; says why."""


def promtool(folder: Path = FOLDER, name: str = "promtool") -> Path:
    """Where it is; fetched first, if need be. `name` may also be prometheus. Raises: NotAvailable."""
    if found := shutil.which(name):
        return Path(found)
    tool = folder / "usr" / "bin" / name
    if not tool.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            if not _run(folder, "apt-get", "download", "prometheus"):
                _run(folder, "apt-get", "update")  # a bare machine has no lists yet; this needs root
                _run(folder, "apt-get", "download", "prometheus")
            packages = sorted(folder.glob("prometheus_*.deb"))
            if not packages or not _run(folder, "dpkg", "-x", packages[-1].name, "."):
                raise NotAvailable("no promtool in the path, and apt-get cannot download Debian's prometheus")
        except FileNotFoundError:
            raise NotAvailable("no promtool in the path, and this is no Debian to download it from") from None
    return tool


def _run(folder: Path, *command: str) -> bool:
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    print(promtool())
