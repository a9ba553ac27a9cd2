"""What importing the service brings along."""

import subprocess
import sys

EVERYTHING = """
import pkgutil, sys, importlib
LATER = {"service.api.arrow", "service.batch"}  # imported when the first Arrow stream or job comes
def walk(name):
    if name not in LATER:
        for found in pkgutil.iter_modules(getattr(importlib.import_module(name), "__path__", []), name + "."):
            walk(found.name)
walk("service")
heavy = {"torch", "onnx", "onnxscript", "pyarrow", "rich", "sklearn", "training", "models", "pickletools"}
found = heavy & sys.modules.keys()
assert not found, found
assert "onnxruntime" in sys.modules and "fastapi" in sys.modules
"""


def test_the_service_imports_no_torch_onnx_pyarrow_or_rich() -> None:
    subprocess.run([sys.executable, "-c", EVERYTHING], check=True)


def test_scoring_imports_no_http() -> None:
    script = "import sys, service.scoring.scorer; assert not {'fastapi', 'starlette', 'uvicorn'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", script], check=True)
