"""`python -m benchmarks.census`: the systems on Census-Income, in the setting of the MMoE paper, beside its table.

Group 1 of Ma et al. 2018 (doi 10.1145/3219819.3220007, table 1): income above 50,000 and never married, without
education and marital status among the inputs; official train rows, the official test rows halved at random. `make
census` fetches the data. All systems have the features, epochs, batch, optimiser and widths of one size; a system is
named by what it changes in `runs/census.toml`. Single task is two networks, one a task, of these features and widths.

Figures are the AUC on the test half, of the network whose loss on the validation half was the least: the test rows
are scored once, afterwards. Mean and best are those of the seeds, as the paper's are of 400 runs; "best" there is the
run that is best in income. The rows are encoded once and every network trains on them directly, through
`training.loop`: calibration keeps the order of scores and the bundle would cost more than the training.

ESMM and DUPN do not apply: never married is no later step of income, and there is no sequence of behaviour.

What was measured is kept in data/benchmarks/census.jsonl and not measured again, unless the run or the rows change.
Knows the pipeline's first stages and the loop. Does not know what a network looks like.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from benchmarks.environment import ROOT
from benchmarks.records import Figures, Job, Records, complete
from contract.tasks import Task
from models.inputs import Inputs
from models.ranker import Ranker
from training import loop
from training.encoders import fit
from training.metrics import auc
from training.pipeline import prepare, read_log
from training.run import Run, load_run, parse_run
from training.split import TEST, TRAIN, VALIDATION
from training.staging import stage
from training.tensors import Tensors, encode

RUN = ROOT / "runs" / "census.toml"
DATA = ROOT / "data" / "benchmarks"
TASKS = ("income", "never_married")


@dataclass(frozen=True)
class System:
    """What a system changes in the run. `alone`: a network a task.

    `mmoe_paper`: income best and mean, never married best and mean (Ma et al. 2018, table 1). `ple_paper`: income and
    never married (Tang et al. 2020, table 4), without a spread.
    """

    name: str
    model: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)
    alone: bool = False
    mmoe_paper: tuple[float, float, float, float] | None = None
    ple_paper: tuple[float, float] | None = None


SYSTEMS = (
    System(
        "single task",
        {"architecture": "shared_bottom", "trunk": (256, 64), "tower": (16,)},
        alone=True,
        mmoe_paper=(0.9398, 0.9337, 0.9933, 0.9922),
        ple_paper=(0.9445, 0.9923),
    ),
    System(
        "shared bottom",
        {"architecture": "shared_bottom", "trunk": (512, 64), "tower": (16,)},
        mmoe_paper=(0.9361, 0.9295, 0.9915, 0.9921),
    ),
    System(
        "soft sharing",
        {"architecture": "soft_sharing", "trunk": (256, 64), "tower": (16,)},
        {"regulariser": {"kind": "distance", "strength": 1e-3}},
        mmoe_paper=(0.9389, 0.9359, 0.9922, 0.9918),
    ),
    System(
        "deep relationship",
        {"architecture": "shared_bottom", "trunk": (512, 64), "tower": (16,)},
        {"regulariser": {"kind": "tensor_normal", "strength": 1e-4}},
    ),
    System(
        "uncertainty",
        {"architecture": "shared_bottom", "trunk": (512, 64), "tower": (16,)},
        {"weighting": {"kind": "uncertainty", "learning_rate": 0.01}},
    ),
    System(
        "fully adaptive",
        {"architecture": "branching", "trunk": (512, 64), "tower": (16,)},
        {"schedule": {"kind": "grown", "wide": 2, "depth": 1}},
    ),
    System(
        "cross-stitch",
        {"architecture": "cross_stitch", "trunk": (256, 64), "tower": (16,)},
        mmoe_paper=(0.9406, 0.9361, 0.9917, 0.9922),
    ),
    System(
        "sluice",
        {"architecture": "sluice", "trunk": (176, 176), "tower": (16,)},
        {"regulariser": {"kind": "orthogonality", "strength": 1e-3}},
    ),
    System(
        "joint many-task",
        {"architecture": "joint_many_task", "level": (256, 64), "tower": (16,)},
        {"schedule": {"kind": "staged"}},
    ),
    System(
        "MMoE",
        {"architecture": "mmoe", "experts": 8, "expert": (64, 32), "tower": (16,)},
        mmoe_paper=(0.9410, 0.9359, 0.9926, 0.9927),
        ple_paper=(0.9393, 0.9928),
    ),
    System(
        "PLE",
        {"architecture": "ple", "levels": 1, "private": 1, "shared": 2, "expert": (256, 64), "tower": (16,)},
        ple_paper=(0.9522, 0.9945),
    ),
)
BY_NAME = {system.name: system for system in SYSTEMS}


@dataclass(frozen=True)
class Rows:
    """The encoded splits, in memory, and the inputs they are for."""

    inputs: Inputs
    train: Tensors
    validation: Tensors
    test: Tensors

    def of_task(self, task: int) -> "Rows":
        """The same rows with the labels of one task."""

        def narrow(rows: Tensors) -> Tensors:
            return replace(rows, labels=np.ascontiguousarray(rows.labels[:, task : task + 1]))

        return Rows(self.inputs, narrow(self.train), narrow(self.validation), narrow(self.test))


def read(run: Run) -> Rows:
    """Read, fit and encode, as the pipeline does."""
    with tempfile.TemporaryDirectory() as directory:
        scratch, log = Path(directory), read_log(run)
        staged = stage(log, run.features, run.tasks, [], scratch, _quiet)
        fitted = fit(staged, run.features, log.split)
        tensors = encode(staged, fitted, log.split, scratch, _quiet)
        train, validation, test = (tensors[code].take(slice(None)) for code in (TRAIN, VALIDATION, TEST))
    return Rows(fitted.inputs, train, validation, test)


def run_of(base: Run, system: System, seed: int) -> Run:
    """The base run with the system's network and training. Raises: RunInvalid."""
    document = base.model_dump(mode="json")
    document["model"] = {"dropout": base.model.dropout, **system.model}
    document["training"] |= {**system.training, "threads": 1}
    return parse_run(document | {"seed": seed}, place=f"{base.name}, {system.name}")


def measure(run: Run, rows: Rows, *, alone: bool = False) -> Figures:
    """Train one network for all tasks, or one a task, and take AUC by split and task; seconds are the processor's."""
    if not alone:
        return measure_network(run, run.tasks, rows)
    parts = [measure_network(run, run.tasks[i : i + 1], rows.of_task(i)) for i in range(len(run.tasks))]
    summed = {key: sum(part[key] for part in parts) for key in ("parameters", "training, s")}
    return {key: value for part in parts for key, value in part.items()} | summed


def measure_network(run: Run, tasks: Sequence[Task], rows: Rows) -> Figures:
    """Train a network; the test rows are scored once its evaluation has been chosen on the validation rows."""
    prepare(run)
    ranker = Ranker(rows.inputs, run.model, len(tasks))
    started = time.process_time()
    history = loop.train(ranker, rows.train, rows.validation, tasks, run.training, seed=run.seed, on_progress=_quiet)
    figures = {"training, s": time.process_time() - started}
    for split, part in (("validation", rows.validation), ("test", rows.test)):
        logits = loop.predict_logits(ranker, part)
        for i, task in enumerate(tasks):
            figures[f"auc {task.name} {split}"] = auc(part.labels[:, i], logits[:, i])
    for task in tasks:
        figures[f"evaluation {task.name}"] = float(history.best + 1)
    return figures | {"parameters": float(sum(parameter.numel() for parameter in ranker.parameters()))}


def table(systems: Sequence[System], measured: Mapping[str, Sequence[Figures]]) -> str:
    """A line a system: mean, spread and best of the seeds by task, each beside what the papers published."""
    lines = [("system", *(title for task in TASKS for title in _titles(task)), "parameters", "training, s")]
    lines.append(("---", *["---:"] * (len(lines[0]) - 1)))
    for system in systems:
        cells, found = [system.name], measured[system.name]
        for i, task in enumerate(TASKS):
            values = [figures[f"auc {task} test"] for figures in found]
            spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
            cells += [f"{fmean(values):.4f}{spread}", f"{max(values):.4f}"]
            paper, other = system.mmoe_paper, system.ple_paper
            cells += [f"{paper[2 * i + 1]:.4f}" if paper else "", f"{paper[2 * i]:.4f}" if paper else ""]
            cells += [f"{other[i]:.4f}" if other else ""]
        for key in ("parameters", "training, s"):
            cells.append(f"{fmean(figures[key] for figures in found):,.0f}")
        lines.append(tuple(cells))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def verdict(systems: Sequence[System], measured: Mapping[str, Sequence[Figures]]) -> str:
    """Which published figures the mean of the seeds passes, and which not."""
    passed: list[str] = []
    missed: list[str] = []
    for system in systems:
        for i, task in enumerate(TASKS):
            mean = fmean(figures[f"auc {task} test"] for figures in measured[system.name])
            published = [("MMoE paper's mean", system.mmoe_paper[2 * i + 1])] if system.mmoe_paper else []
            published += [("PLE paper's", system.ple_paper[i])] if system.ple_paper else []
            for whose, value in published:
                said = f"{system.name}, {_words(task)}: {mean:.4f} against the {whose} {value:.4f}"
                (passed if mean > value else missed).append(said)
    return "\n".join([f"{len(passed)} of {len(passed) + len(missed)} published figures are passed.", *missed])


def _titles(task: str) -> list[str]:
    kinds = ("mean", "best", "MMoE paper's mean", "MMoE paper's best", "PLE paper's")
    return [f"{_words(task)}, {kind}" for kind in kinds]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _quiet(rows: int) -> None:
    """Progress is told by system, not by rows."""


class Child:
    """What a process of its own holds: the encoded rows, handed over once."""

    rows: Rows

    @classmethod
    def start(cls, rows: Rows) -> None:
        """Called first in each process."""
        cls.rows = rows

    @classmethod
    def measure(cls, run: Run, alone: bool) -> Figures:
        """Called for each run."""
        return measure(run, cls.rows, alone=alone)


def measure_all(base: Run, systems: Sequence[System], seeds: Sequence[int], processes: int, records: Records) -> None:
    """Measure what `records` lack, `processes` at a time; the rows are read only if something is missing."""
    jobs = {job_of(base, system, seed): (system, seed) for system in systems for seed in seeds}
    if all(job in records for job in jobs):
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # of the children, which are trainings of one thread each
    with ProcessPoolExecutor(processes, get_context("spawn"), Child.start, (read(base),)) as pool:

        def in_child(job: Job) -> Figures:
            system, seed = jobs[job]
            return pool.submit(Child.measure, run_of(base, system, seed), system.alone).result()

        complete(records, list(jobs), processes, in_child)


def job_of(base: Run, system: System, seed: int) -> Job:
    """The measurement of a system's seed; its settings are the run and the sizes of the files."""
    paths = (base.data.path, base.data.validation_path, base.data.test_path)
    sizes = [str(Path(path).stat().st_size) for path in paths if path]
    run = run_of(base, system, seed)
    return Job(f"census {system.name}", seed, " ".join([run.model_dump_json(), str(system.alone), *sizes]))


def main(argv: list[str] | None = None) -> None:
    """Parse, measure what is missing, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.census", description=__doc__)
    parser.add_argument("--systems", nargs="+", choices=list(BY_NAME), default=list(BY_NAME), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--processes", type=int, default=2, help="trainings at a time, of one thread each")
    parser.add_argument("--run", type=Path, default=RUN, help="features and optimisation (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the run")
    parser.add_argument("--figures", type=Path, default=DATA / "census.jsonl", help="where figures are kept")
    options = parser.parse_args(argv)
    base, records = load_run(options.run, options.set), Records(options.figures)
    systems = [BY_NAME[name] for name in options.systems]
    measure_all(base, systems, options.seeds, options.processes, records)
    measured = {s.name: [records[job_of(base, s, seed)] for seed in options.seeds] for s in systems}
    print(table(systems, measured), "", verdict(systems, measured), sep="\n")


if __name__ == "__main__":
    main()
