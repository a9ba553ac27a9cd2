"""The metrics as a table for the terminal.

Knows metrics and their intervals. Does not know how they were measured.
"""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from contract.bundle import Metric
from training.evaluation import TITLES, decimals


def metrics_table(metrics: tuple[Metric, ...], *, title: str = "Test split") -> Table:
    """A table for the terminal: a line per output and kind of rows, below each value half its interval's width."""
    table = Table(
        title=title, caption="± half the width of the 95 % bootstrap interval", box=SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("output", style="bold")
    table.add_column("rows")
    by_key = {(metric.output, metric.rows, metric.name): metric for metric in metrics}
    shown = [(name, heading) for name, heading in TITLES if any(metric.name == name for metric in metrics)]
    for _, heading in shown:
        table.add_column(heading, justify="right", no_wrap=True)
    for output, rows in dict.fromkeys((metric.output, metric.rows) for metric in metrics):
        cells = []
        for name, _ in shown:
            metric = by_key.get((output, rows, name))
            cells.append("" if metric is None else _cell(metric))
        table.add_row(output, rows, *cells)
    return table


def _cell(metric: Metric) -> str:
    places, half = decimals(metric), (metric.high - metric.low) / 2
    return f"{metric.value:.{places}f}\n[dim]±{f'{half:.{places}f}'.removeprefix('0')}[/dim]"
