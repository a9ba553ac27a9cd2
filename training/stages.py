"""What a person sees of a training run: one line a stage, a bar while it works, its time when it is done.

Knows the terminal. Does not know what the stages do.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn


class Stages:
    """Announces stages on a console."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def __call__(self, title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Run a stage; the block reports how many of `total` rows are done."""
        started = time.perf_counter()
        columns = [
            SpinnerColumn(),
            TextColumn("{task.description:<10}"),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        ]
        quiet = not self.console.is_terminal  # a log file wants no bars
        with Progress(*columns, console=self.console, transient=True, disable=quiet) as progress:
            bar = progress.add_task(title, total=total, rate="")
            shown = 0.0
            done = 0

            def report(rows: int) -> None:
                nonlocal shown, done
                done, now = rows, time.perf_counter()
                if now - shown > 0.1:
                    shown = now
                    progress.update(bar, completed=rows, rate=f"{rows / (now - started):,.0f} rows/s")

            yield report
        seconds = time.perf_counter() - started
        rate = f"  {done:>11,} rows  {done / seconds:>9,.0f} rows/s" if done else ""
        self.console.print(f"  {title:<10} {seconds:6.1f} s{rate}", highlight=False)
