"""The serve image: small, without torch, compilers and installers, listed, and the same whenever it is built."""

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.engine import ROOT, TAG, build, docker, inspect, python_in

MAX_BYTES = 350_000_000
NONE_OF = re.compile(
    r"(cc|gcc|g\+\+|c\+\+|cpp|clang|ld|as|make|rustc|go|git|curl|wget|pip|easy_install|conda)(-?[\d.]+)?"
    r"|cc1(plus)?|(x86_64|aarch64)-linux-gnu-(gcc|g\+\+|ld|as)(-\d+)?"
)
TRACES = re.compile(r"libtorch|/cc1|/(pip|ensurepip|setuptools)/__init__\.py$")
FILES = """
import json, os
print(json.dumps([os.path.join(folder, name) for top in ("/usr", "/bin", "/opt", "/lib", "/sbin")
                  for folder, folders, names in os.walk(top) for name in names]))
"""
MODULES = """
import importlib.util, json
names = ("torch", "onnx", "onnxscript", "pip", "setuptools", "wheel", "ensurepip", "onnxruntime", "service")
print(json.dumps([name for name in names if importlib.util.find_spec(name)]))
"""
INSTALLED = """
import importlib.metadata, json
print(json.dumps({d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}))
"""
SIZES = """
import json, os
root = "/opt/venv/lib/python3.11/site-packages"
def size(path):
    return sum(os.lstat(os.path.join(f, n)).st_size for f, _, names in os.walk(path) for n in names)
print(json.dumps({name: size(os.path.join(root, name)) for name in os.listdir(root)}))
"""
STALE = """
import json, pathlib
found = [path for path in pathlib.Path("/opt").rglob("*.pyc") if path.read_bytes()[4:8] != bytes([1, 0, 0, 0])]
print(json.dumps([len(list(pathlib.Path("/opt").rglob("*.pyc"))), [str(path) for path in found]]))
"""


def test_the_serve_image_is_small_and_says_what_is_in_it(serve_image: str, capsys: pytest.CaptureFixture[str]) -> None:
    base = inspect(_base())["Size"]
    size = inspect(serve_image)["Size"]
    packages = sorted(python_in(serve_image, SIZES).items(), key=lambda item: -item[1])
    lines = (
        f"{serve_image}: {size / 1e6:.0f} MB, of which {_base()} is {base / 1e6:.0f} MB",
        ", ".join(f"{name} {size / 1e6:.1f}" for name, size in packages if size >= 1e6) + " MB",
        ", ".join(f"{name} {version}" for name, version in sorted(_listed(serve_image).items())),
    )
    with capsys.disabled():
        sys.stdout.write("\n" + "\n  ".join(lines) + "\n")
    assert base < size <= MAX_BYTES


def test_the_serve_image_has_neither_torch_nor_a_compiler_nor_an_installer(serve_image: str) -> None:
    assert python_in(serve_image, MODULES) == ["onnxruntime", "service"]
    names = [Path(path).name for path in python_in(serve_image, FILES) if "/bin/" in path or "/sbin/" in path]
    assert {"python", "fullfunnel"} <= set(names)
    assert [name for name in names if NONE_OF.fullmatch(name)] == []
    assert [path for path in python_in(serve_image, FILES) if TRACES.search(path)] == []


def test_the_serve_image_reads_with_compiled_code(serve_image: str) -> None:
    assert python_in(serve_image, "from service.scoring import _plain, _request; print('true')") is True


def test_what_looks_for_installers_finds_those_of_the_base(serve_image: str) -> None:
    assert "pip" in python_in(_base(), MODULES.replace('"onnxruntime", "service"', '"json"'))
    paths = python_in(_base(), FILES)
    assert "pip3" in [Path(path).name for path in paths if NONE_OF.fullmatch(Path(path).name)]
    assert [path for path in paths if TRACES.search(path)]


def test_the_serve_image_says_who_it_runs_as_and_how_it_is_asked(serve_image: str) -> None:
    image = inspect(serve_image)["Config"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image["User"])
    assert image["Healthcheck"]["Test"] == ["CMD", "python", "/opt/healthcheck.py"]
    assert image["Entrypoint"] == ["fullfunnel"] and image["Cmd"] == ["serve", "/bundle"]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in image["Labels"].items()}
    assert labels["title"] == "Fullfunnel" and labels["description"] and labels["revision"]
    assert labels["version"] == project["version"] and labels["licenses"] == project["license"]


def test_torch_is_the_version_that_the_project_pins() -> None:
    pinned = re.findall(r'"torch==([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert re.findall(r"^ARG TORCH_VERSION=(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE) == pinned


def test_the_list_of_packages_is_what_is_installed(serve_image: str) -> None:
    installed = python_in(serve_image, INSTALLED)
    assert _listed(serve_image) == {_normal(name): version for name, version in installed.items()}
    lock = (ROOT / "requirements" / "serve.lock").read_text()
    assert set(_listed(serve_image).items()) - set(re.findall(r"^([a-z0-9._-]+)==(\S+)", lock, re.MULTILINE)) == {
        ("fullfunnel", "0.1.0")
    }
    assert "pkg:deb/debian/libc6@" in docker("run", "--rm", "--entrypoint", "cat", serve_image, SBOM)


def test_no_bytecode_in_the_serve_image_depends_on_a_time(serve_image: str) -> None:
    count, stale = python_in(serve_image, STALE)
    assert count > 1000 and stale == []


@pytest.fixture(scope="module")
def built_again(serve_image: str) -> Iterator[str]:
    """The serve image from the same sources, nothing of it from the cache."""
    yield build("serve", f"fullfunnel-again:{TAG}", "--no-cache")
    docker("image", "rm", "--force", f"fullfunnel-again:{TAG}")


def test_the_same_sources_give_the_same_layers_whenever_they_are_built(serve_image: str, built_again: str) -> None:
    """But for the one that takes pip away: an engine stamps removals with the time."""
    base = len(inspect(_base())["RootFS"]["Layers"])
    first, second = (inspect(image)["RootFS"]["Layers"][base:] for image in (serve_image, built_again))
    assert first[1:] == second[1:] and len(first) == 5


def test_without_insecure_the_image_refuses_to_be_reached_by_others(serve_image: str) -> None:
    options = ("--env", "FULLFUNNEL_WORKERS=1", "--name", f"fullfunnel-refusing-{TAG}")
    try:
        with pytest.raises(AssertionError, match="asks nobody for a key"):
            docker("run", "--rm", *options, serve_image)
    finally:
        docker("rm", "--force", f"fullfunnel-refusing-{TAG}")


SBOM = "/usr/share/sbom/fullfunnel.cdx.json"


def _listed(image: str) -> dict[str, str]:
    """Name and version of every Python package in the image's own list, with the project itself."""
    document = json.loads(docker("run", "--rm", "--entrypoint", "cat", image, SBOM))
    found = [one for one in document["components"] if one.get("purl", "").startswith("pkg:pypi/")]
    return {_normal(one["name"]): one["version"] for one in (*found, document["metadata"]["component"])}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _base() -> str:
    (base,) = re.findall(r"^ARG BASE_IMAGE=(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return str(base)
