"""`fullfunnel train RUN.toml`: from an impression log to a published bundle, as the run file says."""

import argparse
from pathlib import Path

from rich.console import Console


def configure(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("run", type=Path, metavar="RUN.toml", help="the run file")
    parser.add_argument("--output", type=Path, help="directory of the bundle, instead of the one the run file names")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="set a key of the run file, as in --set optimiser.epochs=3; may be given several times",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress and no summary")


def run(args: argparse.Namespace) -> int:
    """Train and publish.

    Raises: RunInvalid, DataInvalid, BundleInvalid.
    """
    from training.pipeline import train
    from training.run import load_run

    train(load_run(args.run, args.overrides), args.output, Console(quiet=args.quiet))
    return 0
