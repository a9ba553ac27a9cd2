"""Lists what is in an image (an SBOM, CycloneDX 1.6), while it is built: FOLDER/usr/share/sbom/fullfunnel.cdx.json.

    python list_packages.py FOLDER

Knows the packages of /opt/venv, through cyclonedx-py, and of Debian, through dpkg. Does not know other files.
"""

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

TOOL, PROJECT, INTERPRETER = "/opt/tools/bin/cyclonedx-py", "pyproject.toml", "/opt/venv/bin/python"


def main() -> int:
    """Write it."""
    command = [TOOL, "environment", "--pyproject", PROJECT, "--output-reproducible", INTERPRETER]
    listed = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    listed["components"] = sorted([*listed["components"], *debian()], key=lambda one: str(one["bom-ref"]))
    target = Path(sys.argv[1], "usr/share/sbom")
    target.mkdir(parents=True)
    (target / "fullfunnel.cdx.json").write_text(json.dumps(listed, indent=1) + "\n")
    return 0


def debian() -> list[dict[str, str]]:
    """Debian's packages, as components."""
    form = "${Package}\t${Version}\t${Architecture}\n"
    lines = subprocess.run(["dpkg-query", "-W", "-f", form], check=True, capture_output=True, text=True).stdout
    return [_component(*line.split("\t")) for line in lines.splitlines()]


def _component(name: str, version: str, architecture: str) -> dict[str, str]:
    purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


if __name__ == "__main__":
    sys.exit(main())
