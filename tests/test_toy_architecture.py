"""docs/architecture.md: the architecture written there needs one file and one line, and goes the whole way."""

import asyncio
import contextlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contract.bundle import Bundle
from models import registry
from models.architecture import Architecture
from service.api.settings import Limits, Settings
from service.scoring.scorer import Scorer
from tests.models import test_architecture as every
from tests.service.conftest import Api
from tests.training import small
from training import choices
from training.pipeline import train
from training.run import Run, parse_run

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
FEATURES = ("user_id", "member", "recent", "item_id", "price")
USER = {"user_id": "u7", "member": "true", "recent": ["i1", "i2"]}
CANDIDATES = {"item_id": ["i1", "i30", "never seen"], "price": [3.0, 40.0, None]}


@dataclass(frozen=True)
class Toy:
    """The page's architecture, and what a run with it has published."""

    architecture: type[Architecture]
    run: Run
    bundle: Bundle
    directory: Path


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    """The one file, taken from the page, and the one line; both gone afterwards."""
    directory = tmp_path_factory.mktemp("toy")
    with pytest.MonkeyPatch.context() as patch:
        architecture = written(directory / "toy.py", patch)
        listed = (*registry.ARCHITECTURES, architecture)
        for module in (registry, choices):
            patch.setattr(module, "ARCHITECTURES", listed)
        patch.setitem(choices.CHOICES, "model", (listed, "architecture"))
        keys = small.document(small.write(directory / "log.parquet", small.columns(4000)))
        keys["features"] = [small.feature(keys, name) for name in FEATURES]
        keys["model"] = {"architecture": "toy", "hidden": 8}
        keys["training"] |= {"epochs": 3, "learning_rate": 0.01, "embedding_learning_rate": 0.2}
        run = parse_run(keys)
        torch.manual_seed(0)
        with contextlib.chdir(directory):
            bundle = train(run, directory / "bundle")
        yield Toy(architecture, run, bundle, directory / "bundle")


def written(path: Path, patch: pytest.MonkeyPatch) -> type[Architecture]:
    """The architecture of the page's only Python, imported from a file of its own."""
    (source,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("models.toy", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    patch.setitem(sys.modules, "models.toy", module)
    spec.loader.exec_module(module)
    found: type[Architecture] = module.Toy
    return found


def test_it_is_no_longer_than_a_screen() -> None:
    (source,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len([line for line in source.splitlines() if line.strip()]) <= 25


def test_it_keeps_what_every_architecture_keeps(toy: Toy) -> None:
    every.test_sharing_the_user_scores_like_repeating_it(toy.architecture, 2, 7)
    every.test_the_user_is_multiplied_once_and_not_once_per_candidate(toy.architecture)
    every.test_dropout_is_on_in_training_and_off_in_evaluation(toy.architecture)
    every.test_gradient_reaches_every_parameter_of_every_member(toy.architecture)
    every.test_options_refuse_what_they_do_not_know(toy.architecture)


def test_a_run_trains_it_and_publishes_a_bundle_that_says_so(toy: Toy) -> None:
    manifest = toy.bundle.manifest
    assert manifest.architecture == "toy"
    assert 0 < manifest.parity <= 1e-6
    assert parse_run(manifest.provenance.run) == toy.run
    auc = {metric.output: metric.value for metric in manifest.metrics if metric.name == "auc"}
    assert auc["pctr"] > 0.6


def test_the_service_scores_with_it(toy: Toy) -> None:
    scorer = Scorer.load(toy.directory)
    found = scorer.score({name: [value] for name, value in USER.items()}, CANDIDATES)
    assert found.keys() == {"pctr", "pcvr", "pctcvr"}
    assert np.allclose(found["pctcvr"], found["pctr"] * found["pcvr"], atol=1e-7)
    assert found["pctr"][0] > found["pctr"][1], "the small log's first items are clicked more"


def test_the_service_answers_over_http(toy: Toy) -> None:
    scorer, body = Scorer.load(toy.directory), {"user": USER, "candidates": CANDIDATES}
    expected = scorer.score({name: [value] for name, value in USER.items()}, CANDIDATES)
    with asyncio.Runner() as runner:
        answer: Any = Api(runner, Settings(limits=Limits()), lambda: scorer).start().post("/v1/predict", body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"]["digest"] == toy.bundle.digest
    for name, values in expected.items():
        np.testing.assert_array_equal(np.array(answer.json()[name], dtype=np.float32), values)
