"""What holds for every test."""

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported anywhere
settings.register_profile("fullfunnel", deadline=None)  # a busy machine is slow at times; no test times absolutes
settings.load_profile("fullfunnel")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """What a test configures ends with it, whichever test runs next in the process."""
    root = logging.getLogger()
    uvicorn = logging.getLogger("uvicorn.error")
    before = root.handlers[:], root.level, uvicorn.level
    yield
    root.handlers[:], root.level, uvicorn.level = before
