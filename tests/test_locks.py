"""requirements/: locked versions with hashes, and nothing that belongs to one machine or to PyTorch's CUDA build."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
EXTRAS = ("serve", "train", "dev")
IMAGES = ("batch", "serve-gpu", "train-cuda", "image", "ray")  # what only images and a cluster are built from
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _lock(extra: str) -> dict[str, str]:
    """Name and version of every package."""
    text = (ROOT / "requirements" / f"{extra}.lock").read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", text, re.MULTILINE))


def _declared(requirements: list[str]) -> Iterator[Requirement]:
    """What pyproject.toml asks for, with the project's own extras unfolded."""
    for text in requirements:
        requirement = Requirement(text)
        if requirement.name == "fullfunnel":
            for extra in requirement.extras:
                yield from _declared(PROJECT["optional-dependencies"][extra])
        else:
            yield requirement


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_dependency_is_locked_at_a_version_that_pyproject_allows(extra: str) -> None:
    lock = _lock(extra)
    for requirement in _declared([*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra]]):
        if requirement.name != "torch":
            assert requirement.specifier.contains(lock[requirement.name]), f"{requirement}: run make lock"


@pytest.mark.parametrize("extra", [*EXTRAS, *IMAGES])
def test_every_package_has_hashes(extra: str) -> None:
    text = (ROOT / "requirements" / f"{extra}.lock").read_text()
    blocks = re.split(r"\n(?=[a-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip())
    assert len(blocks) == len(_lock(extra)) > 0
    for block in blocks:
        assert re.fullmatch(r"\S+==\S+( ; [^\n]*?)?( \\\n    --hash=sha256:[0-9a-f]{64})+", block), block


@pytest.mark.parametrize("extra", EXTRAS)
def test_torch_and_its_cuda_packages_are_left_to_setup(extra: str) -> None:
    cuda = {name for name in _lock(extra) if re.match(r"(torch|triton|cuda|nvidia)(-|$)", name)}
    assert cuda == set(), "add them to requirements/excluded.txt, and run make lock"


@pytest.mark.parametrize("extra", [*EXTRAS, *IMAGES])
def test_a_lock_names_no_host_and_no_folder(extra: str) -> None:
    text = (ROOT / "requirements" / f"{extra}.lock").read_text()
    assert re.findall(r"://|^-|(?<![\w.])/\w+/", text, re.MULTILINE) == []


def test_what_serves_what_trains_and_what_develops_agree_on_versions() -> None:
    serve, train, dev = (_lock(extra).items() for extra in EXTRAS)
    assert serve <= train <= dev
    assert not {"onnx", "onnxscript", "pyarrow", "sympy"} & _lock("serve").keys()


def test_torch_is_pinned_to_one_version() -> None:
    pins = [r for r in _declared(PROJECT["optional-dependencies"]["dev"]) if r.name == "torch"]
    assert [re.fullmatch(r"==\d+\.\d+\.\d+", str(pin.specifier)) is not None for pin in pins] == [True]


def test_what_an_image_serves_with_is_what_is_tested() -> None:
    serve, gpu = _lock("serve"), _lock("serve-gpu")
    assert serve.items() <= _lock("batch").items() <= _lock("dev").items()
    assert _lock("batch").items() <= _lock("ray").items()
    assert serve.items() - gpu.items() == {("onnxruntime", gpu["onnxruntime-gpu"])}


def test_what_trains_on_cuda_is_what_trains_on_a_cpu_and_the_pinned_torch() -> None:
    assert _lock("train").items() <= _lock("train-cuda").items()
    assert f"torch=={_lock('train-cuda')['torch']}" in {str(one) for one in _declared(["fullfunnel[train]"])}
