"""`fullfunnel predict BUNDLE [REQUEST]`: the JSON of /v1/predict, from a file or standard input, without a server."""

import argparse
import sys
from pathlib import Path

from contract.errors import BodyMalformed


def configure(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("bundle", type=Path, help="directory of the bundle that answers")
    parser.add_argument("request", nargs="?", default="-", help="file with the request as JSON; - is standard input")
    parser.add_argument("--example", action="store_true", help="print a request that this bundle answers, and stop")


def run(args: argparse.Namespace) -> int:
    """Print the answer as JSON.

    Raises: BundleInvalid, RequestInvalid, ScoreInvalid, SettingInvalid.
    """
    import orjson

    from service.api.ranking import answer, wire_of
    from service.api.settings import Settings
    from service.api.wire import example_request
    from service.scoring.scorer import Scorer

    settings = Settings.read()
    scorer = Scorer.load(args.bundle, settings.scoring)
    if args.example:
        sys.stdout.write(orjson.dumps(example_request(scorer.golden), option=orjson.OPT_INDENT_2).decode() + "\n")
        return 0
    body = _read(args.request, settings.limits.max_body_bytes)
    request = wire_of(scorer, settings.limits).read_request(body)
    sys.stdout.write(answer(scorer, request).decode() + "\n")
    return 0


def _read(source: str, limit: int) -> bytes:
    """At most one byte more than `limit`: enough to see that there is too much."""
    if source == "-":
        return sys.stdin.buffer.read(limit + 1)
    try:
        with open(source, "rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise BodyMalformed(
            f"cannot be read ({error.strerror})", place=source, remedy="name a file that holds a request as JSON"
        ) from None
