"""`fullfunnel VERB ...`: finds the verb, runs it, and turns an error into one message and an exit code.

Knows the verbs' names and exit codes. Does not know what a verb does, and imports only the one that is called.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from contract.errors import FullfunnelError

# name, what it does in one line, module with `configure(parser)` and `run(args) -> int`
VERBS = (
    ("simulate", "make an impression log whose true probabilities are known", "cli.simulate"),
    ("dataset", "turn a public data set into an impression log", "cli.dataset"),
    ("train", "train a model as a run file says, and publish it as a bundle", "cli.train"),
    ("inspect", "show what a bundle takes, answers, and is worth", "cli.inspect"),
    ("predict", "answer one request from a bundle, without a server", "cli.predict"),
    ("score", "score the rows of tables, exactly once", "cli.score"),
    ("serve", "serve a bundle over HTTP", "cli.serve"),
    ("key", "make a key for those who may ask a service", "cli.key"),
)
FAILED, USAGE, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the answer is the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    verb = next((row for row in VERBS if given and row[0] == given[0]), None)
    if verb is None:
        return _without_verb(given)
    name, summary, module_name = verb
    try:
        module = importlib.import_module(module_name)
        parser = argparse.ArgumentParser(prog=f"fullfunnel {name}", description=f"{summary.capitalize()}.")
        module.configure(parser)
        code: int = module.run(parser.parse_args(given[1:]))
        sys.stdout.flush()
    except FullfunnelError as error:
        return _say(f"fullfunnel {name}: {error}", FAILED)
    except KeyboardInterrupt:
        return _say(f"fullfunnel {name}: interrupted", INTERRUPTED)
    except BrokenPipeError:
        # who read our output has left; nothing more can be said there, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


def _without_verb(given: list[str]) -> int:
    """Help, the version, or a usage error."""
    width = max(len(name) for name, _, _ in VERBS)
    parser = argparse.ArgumentParser(
        prog="fullfunnel",
        usage="fullfunnel VERB ...",
        description="Train, export and serve models of the whole funnel of an impression.",
        epilog="\n".join(["verbs:", *(f"  {name:<{width}}  {summary}" for name, summary, _ in VERBS)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fullfunnel {version('fullfunnel')}")
    parser.add_argument("verb", choices=[name for name, _, _ in VERBS], metavar="VERB", help="one of those below")
    parser.parse_args(given)
    return USAGE


def _say(message: str, code: int) -> int:
    sys.stderr.write(f"{message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
