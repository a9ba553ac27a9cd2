"""`fullfunnel dataset NAME SOURCE OUT`: the publisher's files as an impression log that runs can read."""

import argparse
from pathlib import Path

from rich.console import Console


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

    Raises: DataInvalid.
    """
    from training.datasets import DATASETS

    dataset = next(dataset for dataset in DATASETS if dataset.name == args.name)
    Console().print(f"written to {dataset.convert(args.source, args.out)}", highlight=False, soft_wrap=True)
    return 0
