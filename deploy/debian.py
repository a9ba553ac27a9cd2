"""Programs of Debian, from the path or from its packages: `python -m deploy.debian promtool` prints how to call one.

Packages are unpacked into build/, not installed, so that no root is needed and no service starts. Knows apt, dpkg, and
in which packages a program is. Does not know what it is for.
"""

import shutil
import subprocess
import sys
from pathlib import Path

BUILD = Path(__file__).parents[1] / "build" / "debian"
PACKAGES = {"promtool": ["prometheus"], "prometheus": ["prometheus"], "strace": ["strace", "libunwind8"]}


class NotAvailable(Exception):
    """The program is not to be had here; says why."""


def command(name: str, folder: Path = BUILD) -> list[str]:
    """What a call of the program begins with; it is fetched first, if need be. Raises: NotAvailable."""
    if found := shutil.which(name):
        return [found]
    place = folder / name
    program = place / "usr" / "bin" / name
    if not program.exists():
        place.mkdir(parents=True, exist_ok=True)
        try:
            if not _run(place, "apt-get", "download", *PACKAGES[name]):
                _run(place, "apt-get", "update")  # a bare machine has no lists yet; this needs root
                _run(place, "apt-get", "download", *PACKAGES[name])
            packages = sorted(place.glob("*.deb"))
            if not packages or not all(_run(place, "dpkg", "-x", package.name, ".") for package in packages):
                raise NotAvailable(f"no {name} in the path, and apt-get cannot download Debian's {PACKAGES[name][0]}")
        except FileNotFoundError:
            raise NotAvailable(f"no {name} in the path, and this is no Debian to download it from") from None
    libraries = [str(library) for library in place.glob("usr/lib/*-linux-gnu*")]
    return ["env", f"LD_LIBRARY_PATH={':'.join(libraries)}", str(program)] if libraries else [str(program)]


def _run(folder: Path, *arguments: str) -> bool:
    return subprocess.run(arguments, cwd=folder, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    print(*command(sys.argv[1]))
