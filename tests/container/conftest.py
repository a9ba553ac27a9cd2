"""An engine, or the reason why there is none; the images; the stack of docker-compose.yml, up once for all tests."""

from collections.abc import Iterator

import pytest

from tests.container.engine import TAG, build, docker, why_no_engine
from tests.container.stack import Stack


@pytest.fixture(scope="session")
def _engine() -> None:
    reason = why_no_engine()
    if reason:
        pytest.skip(f"{reason}: images and docker-compose.yml are not tested")


@pytest.fixture(scope="session")
def serve_image(_engine: None) -> Iterator[str]:
    """The image that serves."""
    yield build("serve", f"fullfunnel-serve:{TAG}")
    docker("image", "rm", "--force", f"fullfunnel-serve:{TAG}")


@pytest.fixture(scope="session")
def stack(_engine: None) -> Iterator[Stack]:
    """What `docker compose up --wait` starts, with a smaller log."""
    stack = Stack()
    try:
        stack.up()
        yield stack
    finally:
        stack.remove()
