"""The toy bundle for the command line."""

from pathlib import Path

import pytest

from tests.service.toy_bundle import publish_toy


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bundles") / "toy"
    publish_toy(directory)
    return directory
