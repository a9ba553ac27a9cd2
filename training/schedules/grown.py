"""A tree grown from the towers down while it is trained (Lu et al. 2017, arXiv 1611.05377, section 3).

Knows in which order the parts are trained and split. Does not know how branches are chosen (`grouping`) or units
(`somp`), nor how a layer is split (`models/branching.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import numpy as np
from pydantic import Field

from contract.errors import RunInvalid
from models.architecture import Architecture, Growing, Particular, Partition
from training.schedules.grouping import Matrix, affinity, branch_affinity, cheapest, cost, merged
from training.schedules.schedule import Schedule, ScheduleOptions
from training.schedules.somp import somp

if TYPE_CHECKING:
    from training.loop import Trainer

MOST_TASKS = 9  # 21,147 partitions


class GrownOptions(ScheduleOptions):
    """`alpha`: weight of the separation. `branch_cost`: L_0, of a branch in the topmost layer.

    `depth`: how many layers are split at most, from the top. `wide`: how many times as wide the net is from which the
    trunk's first weights are chosen, after `wide_epochs` (0: the trunk starts at random). `epochs_per_layer`: epochs
    before each choice of branches.
    """

    kind: Literal["grown"] = "grown"
    alpha: float = Field(default=1.0, ge=0.0)
    branch_cost: float = Field(default=0.2, ge=0.0)
    depth: int = Field(default=2, ge=1, le=16)
    wide: int = Field(default=2, ge=1, le=16)
    wide_epochs: int = Field(default=1, ge=0)
    epochs_per_layer: int = Field(default=1, ge=1)

    def epochs(self, epochs: int, tasks: int) -> int:
        """At most: the wide net's, those of each layer, and the run's own on the finished tree."""
        return self.wide_epochs + self.depth * self.epochs_per_layer + epochs


class Step(NamedTuple):
    """A choice of branches: the layer, the affinities of the tasks, and the costs of one branch and of the chosen."""

    layer: int
    affinities: Matrix
    branches: Partition
    cost_of_one: float
    cost: float


class Grown(Schedule):
    """Thin start, then layer by layer: train, choose branches, split; then train on.

    NOTE[DIFF]: the wide net is trained here, on the run's own rows, since there is none to be had pretrained; the
    embeddings it has trained are kept. NOTE[DIFF]: a split starts from the network of the least validation loss so far,
    and that network is what the evaluations after it have to beat; the paper trains for a fixed number of steps.
    """

    options_type = GrownOptions
    options: GrownOptions
    needs = Growing
    because = "only a tree can be branched"

    def __init__(self, options: GrownOptions) -> None:
        super().__init__(options)
        self.steps: list[Step] = []
        self.tasks: list[str] = []

    def run(self, trainer: Trainer) -> None:
        """Grow the tree, then epochs until patience runs out. Raises: RunInvalid for too many tasks."""
        tree = cast(Growing, trainer.ranker.architecture)
        if tree.tasks > MOST_TASKS:
            raise RunInvalid(
                f"{tree.tasks} tasks have too many partitions to try each",
                place="[training.schedule]",
                remedy=f"have at most {MOST_TASKS} tasks, or another schedule",
            )
        self.tasks = trainer.tasks
        if self.options.wide_epochs:
            self._start_thin(trainer, tree)
        for layer in reversed(range(max(0, tree.layers() - self.options.depth), tree.layers())):
            epochs(trainer, self.options.epochs_per_layer)
            history = trainer.keeper.restore()
            step = self.choose(tree, layer, hardness(trainer))
            self.steps.append(step)
            if len(step.branches) == 1:
                break
            tree.branch(layer, step.branches)
            trainer.restart()
            trainer.keeper.add(history.evaluations[history.best])  # still true: a split changes no output
        epochs(trainer, trainer.options.epochs)

    def choose(self, tree: Growing, layer: int, affinities: Matrix) -> Step:
        """The branches of a layer, each a group of those above it.

        NOTE[DIFF]: p_l of the cost L_0 2^(p_l) counts the pooling layers above, each of which makes a branch below it
        dearer. There are none here: it counts the trunk's layers above, which narrow as pooled ones do.
        """
        above = tree.branches(layer + 1) if layer + 1 < tree.layers() else tuple((t,) for t in range(tree.tasks))
        found = branch_affinity(affinities, above)
        price = self.options.branch_cost * 2.0 ** (tree.layers() - 1 - layer)
        groups = cheapest(found, branch=price, alpha=self.options.alpha)
        one, chosen = (
            cost(found, x, branch=price, alpha=self.options.alpha) for x in ((tuple(range(len(above))),), groups)
        )
        return Step(layer, affinities, merged(above, groups), one, chosen)

    def _start_thin(self, trainer: Trainer, tree: Growing) -> None:
        wide = tree.wide(self.options.wide)
        trainer.ranker.architecture = cast(Architecture, wide)
        trainer.restart()
        epochs(trainer, self.options.wide_epochs)
        trainer.keeper.restore()
        tree.thin_from(wide, lambda weight, kept: somp(weight.numpy(), kept))
        trainer.ranker.architecture = cast(Architecture, tree)
        trainer.restart()

    def tell(self) -> tuple[Particular, ...]:
        """What was chosen in each layer and at which cost, and the affinities it was chosen by."""

        def named(branches: Partition) -> str:
            return " | ".join(", ".join(self.tasks[task] for task in group) for group in branches)

        choices = tuple((f"layer {x.layer + 1}", x.cost_of_one, x.cost, named(x.branches)) for x in self.steps)
        text = "Cost of leaving the layer whole and of the branches chosen: creation of branches plus alpha separation."
        grown = Particular("How the tree grew", text, ("", "one branch", "chosen", "branches"), choices)
        text = "Share of validation rows that are hard for both tasks or for neither; .5 is what coins would agree by."
        return grown, *(
            Particular(
                f"Task affinity before layer {step.layer + 1} was split",
                text,
                ("", *self.tasks),
                tuple((task, *map(float, row)) for task, row in zip(self.tasks, step.affinities, strict=True)),
                shaded=True,
            )
            for step in self.steps
        )


def epochs(trainer: Trainer, count: int) -> None:
    """That many epochs of all tasks, or fewer if patience runs out."""
    for _ in range(count):
        if trainer.epoch(trainer.visits):
            return


def hardness(trainer: Trainer) -> Matrix:
    """The tasks' affinities [T, T] on the validation rows, by the errors of P(task | given)."""
    from training.loop import predict_logits  # the loop knows the schedules

    labels = trainer.validation.labels.astype(np.float64)
    logits = predict_logits(trainer.ranker, trainer.validation).astype(np.float64)
    everywhere = np.ones(len(labels), bool)
    held = [labels[:, chain[-2]] > 0 if len(chain) > 1 else everywhere for chain in trainer.loss.ancestry]
    return affinity(np.abs(labels - 0.5 * (1 + np.tanh(logits / 2))), np.stack(held, axis=1))
