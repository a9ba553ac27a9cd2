"""Every system of runs/systems goes the whole way: trained, exported, equal to torch in ONNX, and served.

Each file is taken as it stands, but for its sizes: a planted log of few rows and features, about 200 steps.
"""

import contextlib
import itertools
import tomllib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from contract.bundle import Bundle
from service.scoring.scorer import Scorer
from training.pipeline import train
from training.run import Run, parse_run
from training.simulator import LOG, simulate

FOLDER = Path(__file__).parents[1] / "runs" / "systems"
SYSTEMS = sorted(path.stem for path in FOLDER.glob("*.toml"))
every = pytest.mark.parametrize("name", SYSTEMS)

ROWS, EPOCHS, BATCH_ROWS = 6000, 2, 48  # of which 8 in 10 train: 200 steps
WIDEST = 16
TOLERANCE = 1e-6
KEPT = {"city", "age", "recent_items", "recent_actions", "item_id", "price", "position"}
SMALL = {"epochs": EPOCHS, "batch_rows": BATCH_ROWS, "patience": 1000, "threads": 1, "evaluations_per_epoch": 1}


def plant(path: Path) -> None:
    """Clicks that follow the price, and conversions that follow the age, in place of the simulator's rare ones."""
    log, random = pq.read_table(path), np.random.default_rng(0)
    price, age = (log[name].to_numpy() for name in ("price", "age"))
    click = random.random(len(log)) < np.where(price < np.nanmedian(price), 0.6, 0.2)
    conversion = click & (random.random(len(log)) < np.where(age < np.nanmedian(age), 0.7, 0.3))
    for name, label in (("click", click), ("conversion", conversion)):
        log = log.set_column(log.column_names.index(name), name, pa.array(label.astype(np.int8)))
    pq.write_table(log, path)


class Gallery:
    """Each system's bundle, trained when it is first asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory, self._bundles = directory, dict[str, Bundle]()
        simulate(directory, rows=ROWS, seed=1, days=4)
        plant(directory / LOG)

    def run(self, name: str) -> Run:
        """The file's run on the planted log: few features, narrow layers, few steps."""
        keys = tomllib.loads((FOLDER / f"{name}.toml").read_text())
        for key, value in parse_run(keys).model:
            if isinstance(value, tuple) and value and all(isinstance(width, int) for width in value):
                keys["model"][key] = [min(width, WIDEST) for width in value]
        keys["features"] = [feature for feature in keys["features"] if feature["name"] in KEPT]
        keys["training"] |= SMALL
        path = {"path": str(self.directory / LOG)}
        return parse_run(keys | {"seed": 1, "data": path, "evaluation": {"resamples": 10}})

    def bundle(self, name: str) -> Bundle:
        """What its training publishes."""
        if name not in self._bundles:
            with contextlib.chdir(self.directory):
                self._bundles[name] = train(self.run(name), self.path(name))
        return self._bundles[name]

    def path(self, name: str) -> Path:
        """Where its bundle lies."""
        return self.directory / "bundles" / name

    def served(self, name: str) -> Scorer:
        """Its bundle, as the service holds it."""
        self.bundle(name)
        return Scorer.load(self.path(name))


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    """All systems on one log."""
    return Gallery(tmp_path_factory.mktemp("systems"))


def golden(bundle: Bundle) -> dict[str, NDArray[np.float64]]:
    """What torch answered for the golden rows."""
    return {name: np.array(values) for name, values in bundle.golden.scores.items()}


@every
def test_a_system_is_trained_and_its_graph_equals_its_network(name: str, gallery: Gallery) -> None:
    bundle, scorer = gallery.bundle(name), gallery.served(name)
    assert 0 < bundle.manifest.parity <= TOLERANCE, "held-out rows, many sizes, edge values"
    rows, expected = bundle.golden.rows, golden(bundle)
    found = scorer.score(rows.user, rows.candidates, np.array(rows.row_user))
    assert set(found) == set(expected) >= {"pctr", "pcvr", "pctcvr"}
    for output, values in found.items():
        assert np.abs(values - expected[output]).max() <= TOLERANCE
        assert expected[output].std() > 1e-4, "it tells rows apart"


@every
def test_a_joint_probability_is_the_product_of_its_factors(name: str, gallery: Gallery) -> None:
    rows = gallery.bundle(name).golden.rows
    found = gallery.served(name).score(rows.user, rows.candidates, np.array(rows.row_user))
    product = found["pctr"].astype(np.float64) * found["pcvr"]
    assert np.abs(found["pctcvr"] / product - 1).max() <= TOLERANCE


@every
def test_a_user_is_given_once_for_all_its_candidates(name: str, gallery: Gallery) -> None:
    rows, scorer = gallery.bundle(name).golden.rows, gallery.served(name)
    size = len(rows.row_user)
    one = {feature: values[3:4] for feature, values in rows.user.items()}
    repeated = {feature: values * size for feature, values in one.items()}
    shared = scorer.score(one, rows.candidates, np.zeros(size, np.int64))
    own = scorer.score(repeated, rows.candidates, np.arange(size))
    for output, values in shared.items():
        assert np.abs(values - own[output]).max() <= TOLERANCE
        assert values.std() > 1e-5


def test_no_two_systems_give_the_same_output_from_one_seed(gallery: Gallery) -> None:
    scores = {name: golden(gallery.bundle(name)) for name in SYSTEMS}
    for one, other in itertools.combinations(SYSTEMS, 2):
        distance = max(np.abs(scores[one][output] - scores[other][output]).max() for output in ("pctr", "pctcvr"))
        assert distance > 1e-4, f"{one} and {other}"


def test_the_folder_is_not_empty() -> None:
    assert {"hard_sharing", "uncertainty", "esmm", "mmoe", "ple"} <= set(SYSTEMS)
