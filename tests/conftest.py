"""What holds for every test."""

import os

from hypothesis import settings

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported anywhere
settings.register_profile("fullfunnel", deadline=None)  # a busy machine is slow at times; no test times absolutes
settings.load_profile("fullfunnel")
