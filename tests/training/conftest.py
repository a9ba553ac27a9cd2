"""What several tests of the trainer look at, made once: a simulated log, a bundle trained on it, a prepared log."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from contract.bundle import Bundle, Calibration
from models.ranker import Ranker
from tests.training import small
from training.encoders import Fitted
from training.export import Served, export_graph
from training.parity import Check
from training.pipeline import train
from training.run import Run, parse_run
from training.simulator import LOG, TRUTH, simulate
from training.simulator.population import Items, Users, make_items, make_users


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small products gain nothing from several threads, and workers share the processors."""
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Trained:
    """A published bundle, where it lies, and the run that made it."""

    bundle: Bundle
    directory: Path
    run: Run


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a simulated log and its truth."""
    directory = tmp_path_factory.mktemp("simulated")
    simulate(directory, rows=6000, seed=1, days=4)
    return directory


@pytest.fixture(scope="session")
def simulated_run(simulated: Path) -> small.Document:
    """The keys of a run on the simulated log."""
    return {
        "name": "simulated",
        "seed": 1,
        "data": {"path": str(simulated / LOG)},
        "split": {"by": "time", "column": "timestamp", "validation": 0.2, "test": 0.2},
        "features": [
            {"kind": "categorical", "name": "city", "side": "user", "dim": 4},
            {"kind": "numeric", "name": "age", "side": "user", "scale": "piecewise", "bins": 4},
            {"kind": "sequence", "name": "recent_items", "side": "user", "dim": 4, "max_length": 5, "share": "item_id"},
            {"kind": "categorical", "name": "item_id", "side": "item", "dim": 4},
            {"kind": "categorical", "name": "position", "side": "item", "dim": 4, "buckets": 32},
            {"kind": "numeric", "name": "price", "side": "item", "scale": "log1p"},
        ],
        "model": {"architecture": "separate_towers", "tower": [8]},
        "training": {"batch_rows": 256, "threads": 1},
        "evaluation": {
            "group": "user_id",
            "slices": ["scene"],
            "resamples": 20,
            "truth": {
                "path": str(simulated / TRUTH),
                "key": "impression_id",
                "columns": {"pctr": "true_pctr", "pcvr": "true_pcvr"},
            },
        },
    }


@pytest.fixture(scope="session")
def trained(simulated_run: small.Document, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A bundle published by a whole run."""
    directory, run = tmp_path_factory.mktemp("bundles") / "simulated", parse_run(simulated_run)
    with contextlib.chdir(directory.parent):  # outside the repository, whose state may change between two runs
        return Trained(train(run, directory), directory, run)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> small.Prepared:
    """The small log, up to the arrays that training reads."""
    directory = tmp_path_factory.mktemp("prepared")
    log = small.write(directory / "log.parquet", small.columns())
    return small.prepare(small.document(log), directory)


@dataclass(frozen=True)
class Exported:
    """The graph of a network on the prepared log: not trained, but with weights so wide that scores differ."""

    prepared: small.Prepared
    ranker: Ranker
    calibration: tuple[Calibration, ...]
    model: bytes

    def check(self, model: bytes | None = None, calibration: tuple[Calibration, ...] | None = None) -> Check:
        """This graph, or another, beside this network."""
        run, fitted = self.prepared.run, self.prepared.fitted
        served = Served(self.ranker, fitted.features, run.tasks, calibration or self.calibration, flat=False)
        return Check(model or self.model, served, fitted)


def wide_ranker(fitted: Fitted, run: Run) -> Ranker:
    """A network whose scores differ from row to row."""
    torch.manual_seed(0)
    ranker = Ranker(fitted.inputs, run.model, len(run.tasks))
    with torch.no_grad():
        for table in ranker.embeddings.tables.values():
            table.normal_(std=3.0)
    return ranker


@pytest.fixture(scope="session")
def exported(prepared: small.Prepared) -> Exported:
    """The one export that the tests of the graph share."""
    ranker = wide_ranker(prepared.fitted, prepared.run)
    calibration = (
        Calibration(task="click", slope=1.5, intercept=-0.5),
        Calibration(task="conversion", slope=0.7, intercept=0.3),
    )
    model = export_graph(ranker, prepared.fitted, prepared.run.tasks, calibration)
    return Exported(prepared, ranker, calibration, model)


@pytest.fixture(scope="module")
def users() -> Users:
    """Of the simulator, a few."""
    return make_users(np.random.default_rng(1), 200, 14)


@pytest.fixture(scope="module")
def items() -> Items:
    """Of the simulator, a few."""
    return make_items(np.random.default_rng(2), 800, 14)
