"""`fullfunnel key NAME`: a key for whoever may ask a service, whose file of keys gets a hash of it and nothing more."""

import argparse
import sys
from pathlib import Path

from service.api.keys import PREDICT, SCOPES, add_key, new_key


def configure(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("name", help="whose key it is: letters, digits, dots and dashes")
    parser.add_argument("--file", type=Path, required=True, help="file of keys, made where there is none")
    parser.add_argument("--scopes", nargs="+", choices=SCOPES, default=[PREDICT], help="what it is for (predict)")


def run(args: argparse.Namespace) -> int:
    """Add the key to the file, and print it, for the only time.

    Raises: SettingInvalid.
    """
    secret, key = new_key(args.name, args.scopes)
    add_key(args.file, key)
    sys.stdout.write(f"{secret}\n")
    sys.stderr.write(f"Keep it: {args.file} holds only its hash. To revoke it, remove the line of {key.name}.\n")
    return 0
