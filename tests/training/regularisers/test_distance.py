"""Soft sharing: without its pull the tasks train as they would alone, and the more of it, the nearer they end."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from contract.errors import RunInvalid
from contract.tasks import Task
from models.ranker import Ranker
from models.soft_sharing import SoftSharing, SoftSharingOptions
from tests.models.small import build
from tests.training import small
from training import loop
from training.regularisers.distance import Distance, DistanceOptions, frobenius, trace
from training.run import TrainingOptions
from training.split import TRAIN, VALIDATION
from training.tensors import Tensors

TASKS = (Task(name="click", label="click"), Task(name="conversion", label="conversion"))
BATCHES = 6  # of 256 rows; as the widths, multiples of a vector register, beyond which torch rounds otherwise
OPTIONS = SoftSharingOptions(trunk=(32, 16), tower=(16,))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> small.Prepared:
    directory = tmp_path_factory.mktemp("soft")
    return small.prepare(small.document(small.write(directory / "log.parquet", small.columns(3000))), directory)


def trained(log: small.Prepared, ranker: Ranker, tasks: tuple[Task, ...], labels: list[int], **options: Any) -> Ranker:
    keys = {"objective": "independent", "batch_rows": 256, "threads": 1, "weight_decay": 0.01} | options
    rows = [
        Tensors(part.ids, part.numbers, np.ascontiguousarray(part.labels[:, labels]), part.row)
        for part in (log.tensors[TRAIN].take(slice(BATCHES * 256)), log.tensors[VALIDATION])
    ]
    chosen = TrainingOptions.model_validate(keys)
    loop.train(ranker, rows[0], rows[1], tasks, chosen, seed=7, on_progress=small.nothing)
    return ranker


def ranker_of(log: small.Prepared, tasks: int) -> Ranker:
    torch.manual_seed(0)
    return Ranker(log.fitted.inputs, OPTIONS, tasks)


def alone(whole: Ranker, log: small.Prepared, task: int) -> Ranker:
    """A network of one task with the weights that it has among the others."""
    single, given = ranker_of(log, 1), whole.state_dict()
    for name, value in single.state_dict().items():
        source = given[name.replace("first.0", f"first.{task}")]
        rows = len(value)
        part = source if "first.0" in name else source[task * rows : (task + 1) * rows]
        value.copy_(part)
    return single


def test_without_the_pull_training_equals_single_task_runs_bit_for_bit(log: small.Prepared) -> None:
    whole = ranker_of(log, 2)
    singles = [alone(whole, log, task) for task in range(2)]
    pull = {"kind": "distance", "strength": 0.0}
    trained(log, whole, TASKS, [0, 1], regulariser=pull)
    found = loop.predict_logits(whole, log.tensors[VALIDATION])
    for task, single in enumerate(singles):
        before = single.state_dict()["architecture.towers.weight"].clone()
        trained(log, single, (TASKS[task],), [task])
        assert not torch.equal(before, single.state_dict()["architecture.towers.weight"])
        for name, value in single.state_dict().items():
            rows = len(value)
            other = whole.state_dict()[name.replace("first.0", f"first.{task}")]
            assert torch.equal(value, other if "first.0" in name else other[task * rows : (task + 1) * rows]), name
        assert np.array_equal(found[:, task], loop.predict_logits(single, log.tensors[VALIDATION])[:, 0])


@pytest.mark.parametrize("norm", ["frobenius", "trace"])
def test_distance_falls_as_the_pull_grows_to_nothing(log: small.Prepared, norm: str) -> None:
    distances = []
    for strength in (0.0, 0.01, 0.1, 10.0) if norm == "frobenius" else (0.0, 0.001, 0.01, 0.1):
        pull = {"kind": "distance", "strength": strength, "norm": norm}
        ranker = trained(log, ranker_of(log, 2), TASKS, [0, 1], regulariser=pull, epochs=6, learning_rate=0.01)
        weights = ranker.architecture.network_weights()  # type: ignore[operator]
        distances.append(sum(float(frobenius(w.detach())) for w in weights))
    assert all(a > b for a, b in itertools.pairwise(distances)), distances
    if norm == "frobenius":
        assert distances[-1] < 1e-2 * distances[0]


def test_training_that_diverges_under_the_trace_norm_says_so(log: small.Prepared) -> None:
    pull = {"kind": "distance", "norm": "trace"}
    with pytest.raises(RunInvalid, match="validation loss is not a finite number"):
        trained(log, ranker_of(log, 2), TASKS, [0, 1], regulariser=pull, learning_rate=1e30)


def test_penalty_is_the_distance_of_every_layer_but_the_towers() -> None:
    network = build(SoftSharing, trunk=(8, 4), tower=(3,), tasks=2)
    weights = [w.detach().numpy().astype(np.float64) for w in network.network_weights()]  # type: ignore[operator]
    expected = sum(((w[0] - w[1]) ** 2).sum() for w in weights)
    options = DistanceOptions(strength=0.5)
    assert Distance(options, network, ["a", "b"]).penalty().item() == pytest.approx(0.5 * expected, rel=1e-5)
    expected = sum(np.linalg.svd(w.reshape(2, -1), compute_uv=False).sum() for w in weights)
    options = DistanceOptions(strength=0.5, norm="trace")
    assert Distance(options, network, ["a", "b"]).penalty().item() == pytest.approx(0.5 * expected, rel=1e-5)


def test_three_tasks_are_compared_two_by_two() -> None:
    w = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = sum(float(((w[j] - w[k]) ** 2).sum()) for j, k in ((0, 1), (0, 2), (1, 2)))
    assert frobenius(w).item() == pytest.approx(expected, rel=1e-5)
    assert trace(w).item() > 0


def test_card_tells_how_far_every_two_networks_are_apart_in_each_layer() -> None:
    network = build(SoftSharing, trunk=(8, 4), tower=(3,), tasks=3)
    first, second = network.network_weights()  # type: ignore[operator]
    with torch.no_grad():
        second[1], second[2] = second[0], 0.0
    (told,) = Distance(DistanceOptions(), network, ["a", "b", "c"]).tell()
    assert told.columns == ("", "layer 1", "layer 2")
    assert [row[0] for row in told.rows] == ["a and b", "a and c", "b and c"]
    a, b = (w.detach().numpy().astype(np.float64) for w in first[:2])
    expected = np.sqrt(((a - b) ** 2).sum() / ((a**2 + b**2).sum() / 2))
    assert told.rows[0][1:] == pytest.approx((expected, 0.0), rel=1e-5)
    assert [row[2] for row in told.rows[1:]] == pytest.approx([2**0.5] * 2, rel=1e-5)
