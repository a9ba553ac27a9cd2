"""`python -m benchmarks.entire_space`: does training over the entire space pay, where the truth is known?

For each seed a log is simulated, and three models of the same features, widths and splits are trained on it through
the whole pipeline, calibration included:

* clicked rows only: a conversion model of its own, with embeddings of its own, on the clicked rows;
* shared embeddings: both tasks on shared embeddings, conversion still on clicked rows (`independent`);
* entire space: the same network by the joint probabilities over all impressions (`entire_space`, that is ESMM).

Each predicts pCVR for all test impressions, clicked or not, the last in time; AUC and PCOC are taken against the true
pCVR, which no training sees (a row is a positive of weight p and a negative of weight 1 - p). The ceiling is the AUC
of the true pCVR itself. The model of clicked rows gets batches and epochs that suit its few rows.

Knows the simulator, runs and the pipeline. Does not know what a network looks like.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.bundle import Bundle
from contract.tasks import Task
from training.metrics import auc
from training.pipeline import read_log, train
from training.run import DataOptions, EvaluationOptions, Run, TruthOptions, load_run
from training.simulator import LOG, TRUTH, simulate
from training.split import SPLITS, TEST

RUN = Path("runs/demo-esmm.toml")
CLICKED_BATCH_ROWS, CLICKED_EPOCHS, CLICKED_PATIENCE = 512, 20, 4
SYSTEMS = ("clicked rows only", "shared embeddings", "entire space")


@dataclass(frozen=True)
class Figures:
    """AUC and PCOC of pCVR over all test impressions, with the AUC's 95 % interval."""

    auc: float
    low: float
    high: float
    pcoc: float

    @classmethod
    def of(cls, bundle: Bundle, output: str) -> "Figures":
        """From the metrics of a bundle."""
        found = {m.name: m for m in bundle.manifest.metrics if (m.output, m.rows) == (output, "truth")}
        return cls(found["auc"].value, found["auc"].low, found["auc"].high, found["pcoc"].value)


@dataclass(frozen=True)
class Outcome:
    """One seed: each system's figures in the order of SYSTEMS, and the AUC of the truth itself."""

    seed: int
    systems: tuple[Figures, ...]
    ceiling: float

    @property
    def better_auc(self) -> bool:
        """Whether entire space ranks better than clicked rows only."""
        return self.systems[-1].auc > self.systems[0].auc

    @property
    def better_pcoc(self) -> bool:
        """Whether entire space is nearer to a PCOC of 1 than clicked rows only."""
        return abs(self.systems[-1].pcoc - 1) < abs(self.systems[0].pcoc - 1)


def measure(run: Run, directory: Path, rows: int, seed: int) -> Outcome:
    """Simulate a log in `directory`, train the three models, and compare."""
    simulate(directory, rows=rows, seed=seed)
    whole = on_log(run, directory, seed)
    systems = (
        Figures.of(train(clicked_rows_only(whole, directory), directory / "clicked"), "p_conversion"),
        Figures.of(train(with_objective(whole, "independent"), directory / "independent"), "pcvr"),
        Figures.of(train(with_objective(whole, "entire_space"), directory / "entire_space"), "pcvr"),
    )
    return Outcome(seed, systems, ceiling(whole, directory))


def on_log(run: Run, directory: Path, seed: int) -> Run:
    """The run on the simulated log in `directory`, evaluated against its truth."""
    truth = TruthOptions(path=str(directory / TRUTH), key="impression_id", columns={"pcvr": "true_pcvr"})
    return run.model_copy(
        update={
            "seed": seed,
            "data": DataOptions(path=str(directory / LOG)),
            "evaluation": EvaluationOptions(truth=truth, group=run.evaluation.group),
        }
    )


def with_objective(run: Run, objective: str) -> Run:
    """The same run with another objective."""
    return run.model_copy(update={"training": run.training.model_copy(update={"objective": objective})})


def clicked_rows_only(run: Run, directory: Path) -> Run:
    """A run of conversion alone: trained and validated on the clicked rows of the same splits, tested on all."""
    table, split = pq.read_table(directory / LOG), pa.array(read_log(run).split)
    for code, name in enumerate(SPLITS):
        rows = table.filter(pc.equal(split, code))
        pq.write_table(rows if code == TEST else rows.filter(pc.equal(rows["click"], 1)), directory / f"{name}.parquet")
    training = {"batch_rows": CLICKED_BATCH_ROWS, "epochs": CLICKED_EPOCHS, "patience": CLICKED_PATIENCE}
    train_path, validation_path, test_path = (str(directory / f"{name}.parquet") for name in SPLITS)
    truth = run.evaluation.truth
    assert truth is not None
    columns = {"p_conversion": "true_pcvr"}
    return run.model_copy(
        update={
            "data": DataOptions(path=train_path, validation_path=validation_path, test_path=test_path),
            "tasks": (Task(name="conversion", label="conversion"),),
            "training": run.training.model_copy(update={**training, "evaluations_per_epoch": 1}),
            "evaluation": run.evaluation.model_copy(update={"truth": truth.model_copy(update={"columns": columns})}),
        }
    )


def ceiling(run: Run, directory: Path) -> float:
    """AUC of the true pCVR on the test rows: nobody ranks better."""
    pcvr = pq.read_table(directory / TRUTH, columns=["true_pcvr"])["true_pcvr"].to_numpy()[read_log(run).split == TEST]
    return auc(pcvr, pcvr)


def table(outcomes: Sequence[Outcome]) -> str:
    """A Markdown table with a line per seed and one of means, and a sentence of how often entire space is ahead."""
    heads = ("seed", *(f"AUC, {name}" for name in SYSTEMS), "AUC of the truth", *(f"PCOC, {name}" for name in SYSTEMS))
    lines = [heads, ("---", *["---:"] * (len(heads) - 1))]
    for one in outcomes:
        aucs = (f"{it.auc:.4f} ({it.low:.4f} to {it.high:.4f})" for it in one.systems)
        lines.append((str(one.seed), *aucs, f"{one.ceiling:.4f}", *(f"{it.pcoc:.3f}" for it in one.systems)))
    mean_auc, mean_pcoc = (
        [fmean(getattr(one.systems[i], name) for one in outcomes) for i in range(len(SYSTEMS))]
        for name in ("auc", "pcoc")
    )
    middle = f"{fmean(one.ceiling for one in outcomes):.4f}"
    lines.append(("mean", *(f"{x:.4f}" for x in mean_auc), middle, *(f"{x:.3f}" for x in mean_pcoc)))
    ahead, nearer = sum(one.better_auc for one in outcomes), sum(one.better_pcoc for one in outcomes)
    verdict = (
        f"Entire space against clicked rows only: higher AUC in {ahead} of {len(outcomes)} seeds, "
        f"PCOC nearer 1 in {nearer} of {len(outcomes)}."
    )
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", verdict])


def main(argv: list[str] | None = None) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.entire_space", description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000, help="impressions a seed (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--run", type=Path, default=RUN, help="features, widths and optimisation (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the run")
    options = parser.parse_args(argv)
    run, outcomes = load_run(options.run, options.set), []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as directory:
            outcomes.append(measure(run, Path(directory), options.rows, seed))
        print(f"seed {seed} done", file=sys.stderr)
    print(table(outcomes))


if __name__ == "__main__":
    main()
