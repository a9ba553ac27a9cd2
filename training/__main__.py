"""`python -m training RUN.toml` trains as `fullfunnel train RUN.toml` does, with nothing but the trainer installed.

Knows arguments and exit codes. Does not know what training is.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from contract.errors import FullfunnelError

FAILED, INTERRUPTED = 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and publish; the answer is the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training", description="Train a model as a run file says, and publish it as a bundle."
    )
    parser.add_argument("run", type=Path, metavar="RUN.toml", help="the run file")
    parser.add_argument("--output", type=Path, help="directory of the bundle, instead of the one the run file names")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="set a key of the run file, as in --set training.epochs=3; may be given several times",
    )
    args = parser.parse_args(arguments)
    try:
        from rich.console import Console

        from training.pipeline import train  # torch takes seconds, in which there may be a ctrl-C already
        from training.run import load_run

        train(load_run(args.run, args.overrides), args.output, Console())
    except FullfunnelError as error:
        sys.stderr.write(f"{error}\n")
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
