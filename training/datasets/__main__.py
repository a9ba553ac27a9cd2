"""`python -m training.datasets NAME SOURCE TARGET`: convert a data set's files.

Knows the list of data sets. Does not know what any of them holds.
"""

import argparse
import sys
from pathlib import Path

from contract.errors import FullfunnelError
from training.datasets import DATASETS


def main() -> int:
    """Convert, and print the folder that holds the result."""
    parser = argparse.ArgumentParser(prog="python -m training.datasets", description=__doc__.splitlines()[0])
    names = parser.add_subparsers(dest="name", metavar="NAME", required=True)
    for dataset in DATASETS:
        command = names.add_parser(dataset.name, help=dataset.help, description=dataset.help)
        command.add_argument("source", type=Path, help="the publisher's archive, or a folder with its files")
        command.add_argument("target", type=Path, help="the folder for the Parquet files")
        command.set_defaults(convert=dataset.convert)
    arguments = parser.parse_args()
    try:
        sys.stdout.write(f"{arguments.convert(arguments.source, arguments.target)}\n")
    except FullfunnelError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
