"""`fullfunnel simulate OUT`: an impression log, and the true probabilities of every row beside it."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


def configure(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("out", type=Path, help="directory to write to")
    parser.add_argument("--rows", type=int, default=500_000, help="impressions (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same log (%(default)s)")
    parser.add_argument("--days", type=int, default=14, help="days the log spans (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Simulate and write.

    Raises: RunInvalid, TargetExists, TargetUnwritable.
    """
    from training.simulator import simulate

    columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("simulating", total=args.rows)
        simulate(
            args.out,
            rows=args.rows,
            seed=args.seed,
            days=args.days,
            on_progress=lambda rows: progress.update(bar, completed=rows),
        )
    Console().print(f"{args.rows:,} impressions over {args.days} days in {args.out}", highlight=False, soft_wrap=True)
    return 0
