"""`fullfunnel dataset NAME SOURCE OUT`: the publisher's files as a log that runs can read, and such a run."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


def configure(parser: argparse.ArgumentParser) -> None:
    """The options; the names are those of `training.datasets.DATASETS`."""
    from training.datasets import DATASETS

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(["data sets:", *(f"  {dataset.name:<12} {dataset.help}" for dataset in DATASETS)])
    parser.add_argument(
        "name", choices=[dataset.name for dataset in DATASETS], metavar="NAME", help="one of those below"
    )
    parser.add_argument("source", type=Path, help="file or directory the publisher gives out")
    parser.add_argument("out", type=Path, help="directory to write to")


def run(args: argparse.Namespace) -> int:
    """Convert.

    Raises: DataInvalid, TargetUnwritable.
    """
    from training.datasets import DATASETS

    dataset = next(dataset for dataset in DATASETS if dataset.name == args.name)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    errors = Console(stderr=True)
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task("reading", total=None)
        out = dataset.convert(
            args.source,
            args.out,
            lambda file, rows: progress.update(bar, description=f"{file}: {rows:,} rows"),
        )
    console = Console()
    console.print(f"written to {out}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"train with: fullfunnel train {out / 'run.toml'}", highlight=False, soft_wrap=True, markup=False)
    return 0
