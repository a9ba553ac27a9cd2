"""`python -m benchmarks.funnel`: every system of runs/systems on one funnel, several seeds each.

The funnel is a simulated log, whose true pCTR and pCVR are known, or (`--email`) the e-mail funnel of runs/email.toml,
of which each seed tests another fold. A system is a run file: its [model] and [training], on the features and the
split of the log. Each goes through the whole pipeline, calibration and export included, in a process of one thread.

Figures are those of the bundle on the test split, the last rows in time (of the e-mails: the fold). "pCVR, truth" is
over ALL impressions, clicked or not, against the true pCVR. Training time is that of the processor, for the training
loop alone; ms are the processor's for one request of one user and 500 candidates, the median of many.

What was measured is kept in data/benchmarks/funnel.jsonl and not measured again, unless run file or rows change.
Knows run files, the simulator, the pipeline and the scorer. Does not know what a network looks like.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.environment import ROOT
from benchmarks.records import Figures, Job, Records, complete, in_process
from contract.bundle import Bundle
from contract.tasks import outputs
from service.scoring.scorer import Scorer
from training import loop, pipeline
from training.run import DataOptions, EvaluationOptions, Run, TruthOptions, load_run
from training.simulator import LOG, TRUTH, simulate

SYSTEMS = ROOT / "runs" / "systems"
EMAIL = ROOT / "runs" / "email.toml"
DATA = ROOT / "data" / "benchmarks"
SINGLE = "single_task"
CANDIDATES, REQUESTS = 500, 40


def system_names() -> list[str]:
    """The systems, the models of single tasks first."""
    return sorted((path.stem for path in SYSTEMS.glob("*.toml")), key=lambda name: (name != SINGLE, name))


def simulated(system: str, seed: int, folder: Path) -> Run:
    """The system's run on the simulated log in `folder`, evaluated against its truth."""
    run = load_run(SYSTEMS / f"{system}.toml", ["training.threads=1"])
    columns = {"pctr": "true_pctr", "pcvr": "true_pcvr"}
    truth = TruthOptions(path=str(folder / TRUTH), key="impression_id", columns=columns)
    evaluation = EvaluationOptions(truth=truth, resamples=10)
    return run.model_copy(update={"seed": seed, "data": DataOptions(path=str(folder / LOG)), "evaluation": evaluation})


def email(system: str, seed: int) -> Run | None:
    """The system's network and training on the e-mail funnel; None for one that reads a sequence, as there is none."""
    run, base = load_run(SYSTEMS / f"{system}.toml"), load_run(EMAIL)
    if "sequence" in type(run.model).model_fields:
        return None
    epochs = {"epochs": base.training.epochs, "patience": base.training.patience, "threads": 1}
    return base.model_copy(
        update={
            "seed": seed,
            "split": base.split.model_copy(update={"fold": seed % (base.split.folds or 1)}),
            "model": run.model,
            "training": run.training.model_copy(update={"batch_rows": base.training.batch_rows, **epochs}),
            "evaluation": base.evaluation.model_copy(update={"resamples": 10}),
        }
    )


class Clock:
    """Stands in for the loop's `train`, which it calls, and notes the processor's seconds that it took."""

    def __init__(self) -> None:
        self.train, self.seconds = loop.train, 0.0

    def __call__(self, *args: Any, **options: Any) -> loop.History:
        """What `training.loop.train` does."""
        started = time.process_time()
        history = self.train(*args, **options)
        self.seconds = time.process_time() - started
        return history


def measure(run: Run) -> Figures:
    """Train, and take the figures from the bundle."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as directory, mock.patch.object(loop, "train", clock):
        bundle = pipeline.train(run, Path(directory) / "bundle")
        ms = milliseconds(Scorer.load(Path(directory) / "bundle"))
    return figures(bundle) | {"training, s": clock.seconds, "ms a request": ms}


def figures(bundle: Bundle) -> Figures:
    """AUC and PCOC of each output, by the rows they are over; and the number of parameters."""
    found = {f"{m.name} {m.output} {m.rows}": m.value for m in bundle.manifest.metrics if m.name in ("auc", "pcoc")}
    return {**found, "parameters": float(bundle.manifest.parameters)}


def milliseconds(scorer: Scorer) -> float:
    """The processor's time for one user and 500 candidates: values of the golden rows, over and over."""
    rows = scorer.golden.rows
    user = {name: [values[0]] for name, values in rows.user.items()}
    repeat = -(-CANDIDATES // len(rows.row_user))
    candidates = {name: (list(values) * repeat)[:CANDIDATES] for name, values in rows.candidates.items()}
    row_user = np.zeros(CANDIDATES, np.int64)
    times = []
    for _ in range(REQUESTS):
        started = time.process_time()
        scorer.score(user, candidates, row_user)
        times.append(time.process_time() - started)
    return 1000 * median(times)


def log_folder(data: Path, rows: int, seed: int) -> Path:
    """The simulated log of a seed, made when it is not there."""
    folder = data / f"funnel-{rows}-{seed}"
    if not (folder / TRUTH).exists():
        simulate(folder, rows=rows, seed=seed)
    return folder


def table(systems: Sequence[str], measured: dict[str, list[Figures]], columns: Sequence[tuple[str, str]]) -> str:
    """A line a system: the mean of each figure over the seeds; the best AUC of a column is bold."""
    means = {s: {key: fmean(f[key] for f in measured[s]) for key, _ in columns} for s in systems}
    lines = [("system", *(title for _, title in columns)), ("---", *["---:"] * len(columns))]
    best = {key: max(means[s][key] for s in systems) for key, _ in columns if key.startswith("auc")}
    for s in systems:
        cells = []
        for key, _ in columns:
            value = means[s][key]
            places = 4 if key.startswith("auc") else 3 if key.startswith("pcoc") else 2 if key == "ms a request" else 0
            text = f"{value:,.{places}f}"
            cells.append(f"**{text}**" if value == best.get(key) else text)
        lines.append((s.replace("_", " "), *cells))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def verdict(systems: Sequence[str], measured: dict[str, list[Figures]], seeds: Sequence[int], key: str) -> str:
    """In how many seeds each multi-task system passes the single-task models, and each seed's best."""
    multi = [s for s in systems if s != SINGLE]
    if SINGLE not in systems or not multi:
        return ""
    ahead = {
        s: sum(ours[key] > single[key] for ours, single in zip(measured[s], measured[SINGLE], strict=True))
        for s in sorted(multi, key=lambda s: -fmean(f[key] for f in measured[s]))
    }
    counts = ", ".join(f"{s} {count}" for s, count in ahead.items())
    lines = [f"{key}: seeds of {len(seeds)} in which a system is above {SINGLE}, the best mean first: {counts}."]
    for i, seed in enumerate(seeds):
        top = max(multi, key=lambda s: measured[s][i][key])
        lines.append(f"seed {seed}: {top} {measured[top][i][key]:.4f}, {SINGLE} {measured[SINGLE][i][key]:.4f}.")
    return "\n".join(lines)


def columns_of(run: Run) -> list[tuple[str, str]]:
    """Keys of the figures and their titles."""
    chosen = [("auc", "all"), ("auc", "given"), ("auc", "truth"), ("pcoc", "given"), ("pcoc", "truth"), ("pcoc", "all")]
    titles = {"all": "", "given": ", given rows", "truth": ", truth"}
    given = {task.name for task in run.tasks if task.given}
    keys = []
    for name, rows in chosen:
        for output in outputs(run.tasks):
            conditional = output.kind == "conditional" and output.task in given
            known = run.evaluation.truth is not None and output.name in run.evaluation.truth.columns
            if {"all": not conditional, "given": conditional, "truth": conditional and known}[rows]:
                keys.append((f"{name} {output.name} {rows}", f"{name.upper()} {output.name}{titles[rows]}"))
    return [*keys, ("training, s", "training, s"), ("parameters", "parameters"), ("ms a request", "ms, 500 candidates")]


def main(argv: list[str] | None = None) -> None:
    """Parse, measure what is missing, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.funnel", description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000, help="impressions a seed (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--systems", nargs="+", choices=system_names(), default=system_names(), metavar="NAME")
    parser.add_argument("--email", action="store_true", help="the e-mail funnel instead of the simulated log")
    parser.add_argument("--processes", type=int, default=2, help="trainings at a time, of one thread each")
    parser.add_argument(
        "--data", type=Path, default=ROOT / "data" / "benchmarks", help="where logs and figures are kept"
    )
    parser.add_argument("--one", action="store_true", help="measure the first system and seed, and print the figures")
    options = parser.parse_args(argv)

    def run_of(system: str, seed: int) -> Run | None:
        if options.email:
            return email(system, seed)
        return simulated(system, seed, log_folder(options.data, options.rows, seed))

    if options.one:
        run = run_of(options.systems[0], options.seeds[0])
        assert run
        print(json.dumps(measure(run)))
        return
    runs = {(s, seed): run for seed in options.seeds for s in options.systems if (run := run_of(s, seed))}
    jobs = {key: Job(f"{'email ' * options.email}{key[0]}", key[1], run.model_dump_json()) for key, run in runs.items()}
    records = Records(options.data / "funnel.jsonl")
    shared = ["--rows", options.rows, "--data", options.data, "--one", *["--email"] * options.email]

    def in_child(job: Job) -> Figures:
        system = job.system.removeprefix("email ")
        found: Figures = in_process("benchmarks.funnel", [*shared, "--systems", system, "--seeds", job.seed])
        return found

    complete(records, list(jobs.values()), options.processes, in_child)
    systems = [s for s in options.systems if (s, options.seeds[0]) in jobs]
    measured = {s: [records[jobs[s, seed]] for seed in options.seeds] for s in systems}
    columns = columns_of(runs[systems[0], options.seeds[0]])
    print(table(systems, measured, columns), "", sep="\n")
    print(verdict(systems, measured, options.seeds, [key for key, _ in columns if key.startswith("auc")][-1]))


if __name__ == "__main__":
    main()
