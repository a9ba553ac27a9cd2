"""The arrows between the rooms, and the rules every source file keeps."""

import ast
import doctest
import importlib
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("contract", "models", "training", "service", "cli")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
SCRIPTS = sorted(path for folder in ("deploy", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
MAX_LINES = 300
EMPTY_WORDS = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}

# What each import-linter contract must catch: a module, and an import that it may not have.
PLANTED = {
    "training -> models -> contract": ("models/ranker.py", "import training.run"),
    "cli -> service -> contract": ("service/api/app.py", "import cli.main"),
    "inside the service: api -> batch -> scoring": ("service/scoring/scorer.py", "import service.api.settings"),
    "training and service never see each other": ("training/export.py", "import service.scoring.scorer"),
    "models and service never see each other": ("models/ranker.py", "import service.scoring.scorer"),
    "the service and the contract hold no torch, and nothing that unpickles": (
        "service/scoring/scorer.py",
        "import pickle",
    ),
    "the contract knows numpy and pydantic only": ("contract/bundle.py", "import rich"),
    "models know no files": ("models/ranker.py", "import pyarrow"),
    "scoring knows no HTTP": ("service/scoring/scorer.py", "import starlette"),
}


def _relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _lint_imports(root: Path) -> dict[str, bool]:
    """For each import-linter contract by name, whether it is kept in the tree at `root`."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    lines = subprocess.run(command, cwd=root, capture_output=True, text=True).stdout.splitlines()
    marks = {" KEPT": True, " BROKEN": False}
    return {line[: -len(mark)]: kept for line in lines for mark, kept in marks.items() if line.endswith(mark)}


def test_the_rooms_see_only_whom_they_may() -> None:
    kept = _lint_imports(ROOT)
    assert kept == dict.fromkeys(_contracts(), True)


def test_every_rule_about_imports_catches_a_planted_import(tmp_path: Path) -> None:
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for module, line in PLANTED.values():
        with open(tmp_path / module, "a") as file:
            file.write(f"\n{line}\n")
    assert _lint_imports(tmp_path) == dict.fromkeys(_contracts(), False)
    assert set(PLANTED) == set(_contracts())


def _contracts() -> list[str]:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [contract["name"] for contract in document["tool"]["importlinter"]["contracts"]]


EVERY_MODULE = """
import importlib, pkgutil, sys
def walk(name):
    module = importlib.import_module(name)
    for found in pkgutil.iter_modules(getattr(module, "__path__", []), name + "."):
        if not found.name.endswith("__main__"):
            walk(found.name)
walk(sys.argv[1])
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize(
    ("room", "absent"),
    [
        ("contract", {"torch", "onnx", "onnxruntime", "fastapi", "pyarrow", "rich", "models", "training", "service"}),
        ("service", {"torch", "onnx", "onnxscript", "training", "models", "cli"}),
        ("service.scoring", {"torch", "fastapi", "starlette", "uvicorn"}),
        ("cli.main", {"torch", "fastapi", "onnxruntime", "onnx", "pyarrow", "rich", "models", "training", "service"}),
    ],
)
def test_importing_a_room_brings_nothing_along_that_it_does_not_know(room: str, absent: set[str]) -> None:
    command = [sys.executable, "-c", EVERY_MODULE, room]
    loaded = set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())
    assert room.split(".")[0] in loaded
    assert loaded & absent == set()


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=_relative)
def test_every_module_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring and docstring.split("\n")[0].strip().endswith((".", "?")), "one sentence on the first line"


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=_relative)
def test_no_file_outgrows_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert [_relative(path) for path in SOURCES if EMPTY_WORDS & set(path.stem.split("_"))] == []


@pytest.mark.parametrize("room", ["contract", "models", "training", "service"])
def test_every_source_has_a_test_of_its_name(room: str) -> None:
    """Its own name, or that of the package it is in: test_simulator.py, test_simulator_memory.py."""
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / room).rglob("test_*.py")}
    sources = [path for path in SOURCES if path.is_relative_to(ROOT / room) and not path.stem.startswith("__")]
    names = {_relative(path): {path.stem, path.parent.name, f"{path.parent.name}_{path.stem}"} for path in sources}
    assert [source for source, possible in names.items() if not possible & tests] == []


@pytest.mark.parametrize("path", [path for path in SOURCES if ">>> " in path.read_text()], ids=_relative)
def test_examples_in_docstrings_are_true(path: Path) -> None:
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    results = doctest.testmod(module)
    assert results.attempted > 0 and results.failed == 0
