"""A tree grows to the groups of tasks that were planted, layer by layer, and goes the whole way to a bundle."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from contract.bundle import CARD
from contract.errors import RunInvalid
from contract.tasks import Task
from models.architecture import Partition
from models.branching import Branching, BranchingOptions
from models.inputs import Inputs, Number
from models.ranker import Ranker
from tests.training import small
from training import loop
from training.loop import Trainer, predict_logits
from training.pipeline import train
from training.run import TrainingOptions, parse_run
from training.schedules.grown import Grown, GrownOptions, hardness
from training.tensors import Tensors

COLUMNS, TRUNK = 6, (24, 16)
INPUTS = Inputs((), tuple(Number(f"x{i}", "item", "standardise", 0.0, False) for i in range(COLUMNS)), {})
PLANTED = ((0, 2), (1, 3))


def planted(rows: int, seed: int, tasks: int = 4, flips: float = 0.05, shuffle: bool = False) -> Tensors:
    """Even tasks follow one half of the columns, odd ones the other; a task's label differs from its group's in
    the share `flips` of the rows.

    `shuffle`: each task's labels in an order of their own, so that no two tasks have anything in common.
    """
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, COLUMNS))
    groups = [(2 * x[:, half].sum(axis=1) + random.logistic(size=rows)) > 0 for half in (slice(3), slice(3, 6))]
    labels = np.stack([groups[task % 2] ^ (random.random(rows) < flips) for task in range(tasks)], 1)
    if shuffle:
        labels = np.stack([random.permutation(column) for column in labels.T], 1)
    return Tensors({}, x.astype(np.float32), labels.astype(np.uint8), np.arange(rows))


def trainer_of(seed: int, tasks: int = 4, trunk: tuple[int, ...] = TRUNK, **data: Any) -> Trainer:
    torch.manual_seed(seed)
    ranker = Ranker(INPUTS, BranchingOptions(trunk=trunk, tower=(4,)), tasks)
    rows, validation = (planted(n, 2 * seed + i, tasks, **data) for i, n in enumerate((2000, 1000)))
    names = [Task(name=f"task{i}", label=f"label{i}") for i in range(tasks)]
    options = TrainingOptions(objective="independent", batch_rows=50, learning_rate=0.03)
    return Trainer(ranker, rows, validation, names, options, seed=seed, on_progress=small.nothing)


def grown(trainer: Trainer, **options: Any) -> tuple[Branching, Grown]:
    """The tree after training, and the schedule that grew it."""
    schedule = Grown(GrownOptions.model_validate({"wide_epochs": 0, "epochs_per_layer": 2} | options))
    schedule.run(trainer)
    return cast(Branching, trainer.ranker.architecture), schedule


def branches(tree: Branching) -> list[Partition]:
    return [tree.branches(layer) for layer in range(tree.layers())]


def test_two_planted_groups_are_found_in_nine_of_ten_seeds() -> None:
    found = [branches(grown(trainer_of(seed), depth=1)[0])[-1] for seed in range(10)]
    assert found.count(PLANTED) >= 9


def test_shuffled_labels_give_another_tree() -> None:
    for seed in range(3):
        tree, schedule = grown(trainer_of(seed, shuffle=True), depth=1)
        assert branches(tree)[-1] != PLANTED
        between = schedule.steps[0].affinities[~np.eye(4, dtype=bool)]
        assert np.abs(between - 0.5).max() < 0.1


def test_a_larger_alpha_separates_more() -> None:
    alphas = (0.0, 1.0, 30.0)
    counts = [len(branches(grown(trainer_of(0), alpha=alpha, depth=1)[0])[-1]) for alpha in alphas]
    assert counts == [1, 2, 4]


@pytest.mark.parametrize(("branch_cost", "depth"), [(1.0, 0), (0.3, 1), (0.2, 2), (0.02, 3)])
def test_two_tasks_are_split_the_deeper_the_cheaper_branches_are(branch_cost: float, depth: int) -> None:
    """Their affinity is about .5, so that they part where 1 - .5 outweighs a branch, twice as dear in each layer."""
    tree, _ = grown(trainer_of(0, tasks=2, trunk=(24, 16, 12)), branch_cost=branch_cost, depth=3)
    assert [len(found) for found in branches(tree)] == [1] * (3 - depth) + [2] * depth


def test_branches_stay_apart_below_or_join_but_tasks_never_part_there() -> None:
    tree, schedule = grown(trainer_of(1), alpha=3.0, branch_cost=0.1)
    assert [step.layer for step in schedule.steps] == [1, 0]
    lower, upper = branches(tree)
    assert 1 < len(lower) <= len(upper)
    assert all(any(set(group) <= set(stem) for stem in lower) for group in upper)
    assert all(step.cost < step.cost_of_one for step in schedule.steps)


def test_a_split_changes_no_output_and_what_follows_has_to_beat_the_network_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer, told = trainer_of(0), []
    branch = Branching.branch

    def watched(tree: Branching, layer: int, partition: Partition) -> None:
        before = predict_logits(trainer.ranker, trainer.validation)
        branch(tree, layer, partition)
        told.append((before, min(x.validation_loss for x in trainer.keeper.evaluations)))
        assert np.abs(predict_logits(trainer.ranker, trainer.validation) - before).max() <= 1e-6

    monkeypatch.setattr(Branching, "branch", watched)
    grown(trainer, depth=1)
    ((before, best),) = told
    assert trainer.keeper.evaluations[0].validation_loss == best
    after = trainer.keeper.restore()
    assert after.evaluations[after.best].validation_loss <= best
    assert loop.validate(trainer.ranker, trainer.validation, trainer.loss) <= best + 1e-6
    assert not np.allclose(predict_logits(trainer.ranker, trainer.validation), before)


def test_new_branches_are_trained_apart() -> None:
    tree, _ = grown(trainer_of(0), depth=1)
    one, other = cast(Any, tree.trunk[0]).weights[0]
    assert not torch.allclose(one, other, atol=1e-3)


def test_a_thin_start_knows_already_what_the_wide_net_has_learned() -> None:
    """The loss of the first evaluation of the tree, which a random start has only after an epoch more."""
    losses: dict[int, float] = {}
    for wide_epochs in (0, 2):
        trainer = trainer_of(0)
        schedule = Grown(GrownOptions(wide_epochs=wide_epochs))
        if wide_epochs:
            schedule._start_thin(trainer, cast(Branching, trainer.ranker.architecture))
        losses[wide_epochs] = loop.validate(trainer.ranker, trainer.validation, trainer.loss)
        assert cast(Branching, trainer.ranker.architecture).options.trunk == TRUNK
        assert trainer.visits == wide_epochs
        assert trainer.keeper.evaluations == []
    assert losses[2] < losses[0] - 0.1


def test_one_seed_grows_the_same_network_bit_for_bit() -> None:
    one, again = (grown(trainer_of(3), wide_epochs=1) for _ in range(2))
    assert branches(one[0]) == branches(again[0])
    for name, value in one[0].state_dict().items():
        assert torch.equal(value, again[0].state_dict()[name])
    assert one[1].tell() == again[1].tell()


def test_progress_counts_every_visit_of_a_tree_that_grows_to_its_depth() -> None:
    options = {"wide_epochs": 2, "epochs_per_layer": 3, "depth": 2, "branch_cost": 0.001}
    trainer = trainer_of(0)
    trainer.options = trainer.options.model_copy(update={"patience": 99})
    trainer.restart()
    grown(trainer, **options)
    assert trainer.visits == GrownOptions.model_validate(options).epochs(trainer.options.epochs, tasks=4) == 9


def test_tasks_with_a_condition_are_compared_where_it_holds() -> None:
    trainer = trainer_of(0, tasks=2)
    trainer.loss.ancestry = ((0,), (0, 1))
    logits, labels = predict_logits(trainer.ranker, trainer.validation).astype(float), trainer.validation.labels
    errors = np.abs(labels - 1 / (1 + np.exp(-logits)))[labels[:, 0] > 0]
    hard = errors > errors.mean(axis=0)
    assert hardness(trainer)[0, 1] == (hard[:, 0] == hard[:, 1]).mean()
    trainer.loss.ancestry = ((0,), (1,))
    assert hardness(trainer)[0, 1] != (hard[:, 0] == hard[:, 1]).mean()


def test_more_tasks_than_can_be_partitioned_are_refused_before_training() -> None:
    trainer = trainer_of(0, tasks=10)
    with pytest.raises(RunInvalid, match="10 tasks"):
        grown(trainer)
    assert trainer.visits == 0


def test_only_a_tree_can_be_grown() -> None:
    keys = small.document(Path("log.parquet"))
    keys["training"]["schedule"] = {"kind": "grown"}
    with pytest.raises(RunInvalid, match=r"only a tree can be branched .branching"):
        parse_run(keys)


def test_a_grown_tree_becomes_a_bundle_whose_card_tells_how_it_grew(tmp_path: Path) -> None:
    keys = small.document(small.write(tmp_path / "log.parquet", small.columns()))
    keys["bundle"] = {"directory": str(tmp_path / "bundles")}
    keys["model"] = {"architecture": "branching", "trunk": [8, 6], "tower": [4]}
    keys["training"]["schedule"] = {"kind": "grown", "branch_cost": 0.0}
    bundle = train(parse_run(keys))
    assert bundle.manifest.parity <= 1e-6
    card = (tmp_path / "bundles" / "small" / "1" / CARD).read_text()
    for words in ("The tree", "How the tree grew", "Task affinity before layer 1 was split", "click | conversion"):
        assert words in card
