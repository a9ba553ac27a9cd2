"""The registry lists every architecture there is, once."""

import importlib
import inspect
import pkgutil

import pytest

import models
from models.architecture import Architecture
from models.registry import ARCHITECTURES, architecture_name, build_architecture
from tests.models.small import PROPERTIES, STEPS, WIDTHS


def subclasses() -> set[type[Architecture]]:
    modules = [importlib.import_module(f"models.{found.name}") for found in pkgutil.iter_modules(models.__path__)]
    found = {entry for module in modules for _, entry in inspect.getmembers(module, inspect.isclass)}
    return {entry for entry in found if issubclass(entry, Architecture)} - {Architecture}


def test_every_architecture_is_listed_once() -> None:
    assert len(set(ARCHITECTURES)) == len(ARCHITECTURES)
    assert set(ARCHITECTURES) == subclasses()


def test_names_are_unique_and_those_of_the_files() -> None:
    names = [architecture_name(entry) for entry in ARCHITECTURES]
    assert len(set(names)) == len(names)
    assert [entry.__module__ for entry in ARCHITECTURES] == [f"models.{name}" for name in names]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_options_build_their_own_architecture(architecture: type[Architecture]) -> None:
    widths = WIDTHS._replace(steps=STEPS, properties=PROPERTIES)
    assert type(build_architecture(architecture.options_type.model_validate({}), widths, 2)) is architecture
