import tomllib

from benchmarks.environment import LOCKS, ROOT, torch_requirement
from benchmarks.training.__main__ import SYSTEMS


def test_torch_is_the_one_the_project_pins() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert torch_requirement() in extras["train"]


def test_a_lock_pins_hashes_and_leaves_torch_out() -> None:
    for lock in LOCKS.glob("*.lock"):
        text = lock.read_text()
        pins = [line for line in text.splitlines() if line[:1].isalnum()]
        assert pins
        assert not any(line.startswith(("torch==", "nvidia-", "cuda-", "triton==")) for line in pins)
        assert all("==" in line and line.endswith("\\") for line in pins)


def test_the_table_names_the_version_that_is_installed() -> None:
    name = dict(SYSTEMS)["torch-rechub"]
    assert name.replace(" ", "==") in (LOCKS / "torch-rechub.lock").read_text()
