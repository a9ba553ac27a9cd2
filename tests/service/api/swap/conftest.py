"""Versions of the toy bundle beside each other, as a registry keeps them."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from contract.bundle import read_bundle
from contract.manifest import Golden
from service.scoring.scorer import Scorer
from service.scoring.settings import ScoringSettings
from tests.service.api.metrics.test_exposition import scraped
from tests.service.process import PATIENCE_S, ServiceProcess, until
from tests.service.toy_bundle import GOLDEN_ROWS, publish_toy, toy_golden, toy_manifest, toy_model


def model_of(bias: float) -> Any:
    """The toy's graph, whose logits lie higher by `bias`: versions whose scores tell them apart."""
    model = toy_model()
    for index, tensor in enumerate(model.graph.initializer):
        if tensor.name == "c":
            moved = numpy_helper.to_array(tensor) + np.float32(bias)
            model.graph.initializer[index].CopyFrom(numpy_helper.from_array(moved, "c"))
    return model.SerializeToString(deterministic=True)


def failing_model() -> Any:
    """The toy's graph, which answers NaN for whoever is called `bad`, and is right about everybody else."""
    model = toy_model()
    for node in model.graph.node:
        if node.output[0] == "pctr":
            node.output[0] = "pctr_good"
    helper = onnx.helper
    is_bad = helper.make_node(
        "LabelEncoder", ["user_id"], ["is_bad"], domain="ai.onnx.ml",
        keys_strings=["bad"], values_floats=[float("nan")], default_float=0.0,
    )  # fmt: skip
    model.graph.node.extend(
        [
            is_bad,
            helper.make_node("Gather", ["is_bad", "row_user"], ["bad_rows"]),
            helper.make_node("Add", ["pctr_good", "bad_rows"], ["pctr"]),
        ]
    )
    for node in model.graph.node:
        if node.output[0] == "pctcvr":
            node.input[0] = "pctr_good"
    return model.SerializeToString(deterministic=True)


def publish_version(folder: Path, version: str, bias: float = 0.0, model: bytes | None = None, **facts: Any) -> Path:
    """A version of the toy bundle, with golden rows that it scores rightly."""
    model = model_of(bias) if model is None else model
    manifest = toy_manifest(version=version, **facts)
    path = folder / version
    draft = folder / f".{version}.draft"
    publish_toy(draft, model=model, manifest=manifest, golden=Golden(rows=GOLDEN_ROWS, scores=_empty(), tolerance=1.0))
    scores = Scorer(read_bundle(draft), _settings()).score(
        GOLDEN_ROWS.user, GOLDEN_ROWS.candidates, np.array(GOLDEN_ROWS.row_user)
    )
    golden = toy_golden(scores={name: values.astype(float).tolist() for name, values in scores.items()})
    publish_toy(path, model=model, manifest=manifest, golden=golden)
    return path


def _empty() -> dict[str, list[float]]:
    return {name: [0.5] * 6 for name in ("pctr", "pcvr", "pctcvr")}


def _settings() -> ScoringSettings:
    return ScoringSettings()


def digest_of(path: Path) -> str:
    return hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bundles: 1, 2 and 3, whose scores differ, and `nan`, which fails for the user `bad`."""
    folder = tmp_path_factory.mktemp("versions")
    for version, bias in (("1", 0.0), ("2", 0.25), ("3", -0.25)):
        publish_version(folder, version, bias)
    publish_version(folder, "nan", model=failing_model())
    return folder


Ask = Callable[..., httpx.Response]


def operator(service: ServiceProcess) -> Ask:
    """`ask(method, path, body)` at the listener of operators, when every worker has its model."""
    until(lambda: all(scraped(service)["fullfunnel_worker_ready"].values()))
    base = f"http://127.0.0.1:{service.admin_port}"

    def ask(method: str, path: str, body: object = None) -> httpx.Response:
        return httpx.request(method, base + path, json=body, timeout=PATIENCE_S, trust_env=False)

    return ask
