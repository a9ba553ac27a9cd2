"""`fullfunnel score BUNDLE INPUT OUTPUT`: the scores of every row of a table, each exactly once."""

import argparse
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from service.batch.run import Watch

TERMINATED = 143
ALARMING_PSI = 0.2  # the usual mark for a shift that should be looked into


def configure(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("bundle", help="directory of the bundle that scores")
    parser.add_argument(
        "input", help="file, folder or glob of Parquet, CSV, NDJSON or Arrow; or a URL such as s3://bucket/folder"
    )
    parser.add_argument(
        "output",
        help="with an ending (.parquet, .csv, .ndjson, .arrow) one file, else a folder of parts; or such a URL",
    )
    parser.add_argument(
        "--keep", default="", metavar="A,B", help="columns of the input to have beside the scores; `all` for every one"
    )
    parser.add_argument("--max-bad", type=int, default=0, metavar="N", help="rows that may be refused (%(default)s)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes (one for each core)")
    parser.add_argument("--on", choices=("here", "ray"), default="here", help="this machine, or a Ray cluster")
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="of a Ray cluster (RAY_ADDRESS, else one is started on this machine)"
    )
    parser.add_argument("--input-format", choices=FORMATS, help="of an input whose ending does not tell")
    parser.add_argument("--format", choices=FORMATS, help="of the output (as its ending says, or as the input)")
    parser.add_argument("--restart", action="store_true", help="discard what an earlier run wrote there")
    parser.add_argument("--quiet", action="store_true", help="no progress and no summary")


def run(args: argparse.Namespace) -> int:
    """Score.

    Raises: BundleInvalid, DataInvalid, JobInvalid, ScoreInvalid, SettingInvalid.
    """
    from service.batch.cluster import Cluster
    from service.batch.job import ALL, Job
    from service.batch.run import run_job

    keep = (ALL,) if args.keep == "all" else tuple(name for name in args.keep.split(",") if name)
    job = Job(str(args.bundle), args.input, args.output, keep, args.input_format, args.format, max(0, args.max_bad))
    console = Console(quiet=args.quiet, highlight=False, stderr=True)
    signal.signal(signal.SIGTERM, _terminated)
    started = time.perf_counter()
    with _progress(console) as watch:
        cluster = Cluster(args.address, args.workers) if args.on == "ray" else None
        result = run_job(job, workers=args.workers or _cores(), on=cluster, restart=args.restart, watch=watch)
    seconds = time.perf_counter() - started
    if result.was_done:
        already = "was scored before, and is sent now" if result.sent else "is finished already"
        console.print(f"{args.output} {already}: {result.rows:,} rows. --restart scores again", soft_wrap=True)
    else:
        refused = f", {result.refused:,} of them refused" if result.refused else ""
        console.print(f"{result.rows:,} rows{refused} in {seconds:.1f} s to {args.output}", soft_wrap=True)
        for table in (_quality(result.summary), _drift(result.summary)):
            if table.row_count:
                console.print(table)
    return 0


def _quality(summary: Mapping[str, Any]) -> Table:
    """What the scores are worth, where there were labels."""
    table = _table("against the labels", "output", "rows", "count", "positives", "AUC", "log-loss", "PCOC")
    for one in summary.get("quality", ()):
        figures = (_shown(one[name]) for name in ("auc", "log_loss", "pcoc"))
        table.add_row(one["output"], one["rows"], f"{one['count']:,}", f"{one['positives']:,}", *figures)
    return table


def _drift(summary: Mapping[str, Any]) -> Table:
    """What is far from what the model was validated on."""
    table = _table("unlike the reference rows", "", "PSI", "missing", "was", "unknown", "was")
    names = ("missing_rate", "reference_missing_rate", "unknown_rate", "reference_unknown_rate")
    for name, one in (*summary.get("features", {}).items(), *summary.get("scores", {}).items()):
        if (one.get("psi") or 0) > ALARMING_PSI:
            table.add_row(name, _shown(one["psi"]), *(_shown(one.get(rate), ".2%") for rate in names))
    return table


def _table(title: str, *header: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")
    return table


def _shown(value: float | None, how: str = ".4f") -> str:
    return "" if value is None else format(value, how)


def _terminated(*_: Any) -> None:
    raise SystemExit(TERMINATED)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _progress(console: Console) -> Iterator["Watch"]:
    """A bar with rows a second and the time that is left, where someone looks at it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from service.batch.run import Watch

    columns = (
        TextColumn("scoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    bar = progress.add_task("scoring", total=None, rate="")
    state = {"done": 0, "here": 0, "since": time.perf_counter()}

    def begin(rows: int, done: int) -> None:
        state.update(done=done, here=0, since=time.perf_counter())
        progress.update(bar, total=rows, completed=done)
        progress.start()

    def rows(count: int) -> None:
        state["here"] += count
        rate = state["here"] / max(1e-9, time.perf_counter() - state["since"])
        progress.update(bar, completed=state["done"] + state["here"], rate=f"{rate:,.0f} rows/s")

    try:
        yield Watch(begin, rows)
    finally:
        progress.stop()


FORMATS = ("parquet", "csv", "ndjson", "arrow")
