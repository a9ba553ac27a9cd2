"""Medians over repetitions, and the Markdown tables.

Knows figures by name. Does not know how they were measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.records import Figures

HEADER = (
    "system", "requests/s", "lowest to highest", "p50, ms", "p99, ms", "CPU s per 1,000", "memory, MiB",
    "of the graph alone", "refused or late",
)  # fmt: skip


@dataclass(frozen=True)
class Load:
    """So many candidates a request; a closed loop of connections, or an open one at a rate."""

    candidates: int
    connections: int
    rate: float | None = None

    def __str__(self) -> str:
        rows = f"{self.candidates} candidate" + ("s" if self.candidates > 1 else "")
        return (
            f"{rows}, {self.connections} connections" if self.rate is None else f"{rows}, {self.rate:g} requests/s due"
        )


@dataclass(frozen=True)
class Line:
    """A system under one load: the figures of each repetition, and requests/s of the graph alone, if measured."""

    title: str
    repetitions: Sequence[Figures]
    graph_alone: float | None

    @property
    def median(self) -> Figures:
        """Each figure's median."""
        return median(self.repetitions)

    def cells(self) -> tuple[str, ...]:
        """As HEADER says."""
        x, rates = self.median, [figures["requests_per_second"] for figures in self.repetitions]
        lost = sum(figures.get("refused", 0) + figures.get("unanswered", 0) for figures in self.repetitions)
        return (
            self.title,
            f"{x['requests_per_second']:,.0f}",
            f"{min(rates):,.0f} to {max(rates):,.0f}",
            *(f"{x[name]:.2f}" if name in x else "" for name in ("p50_ms", "p99_ms", "cpu_s_per_1000")),
            f"{x['memory_mib']:,.0f}" if "memory_mib" in x else "",
            f"{x['requests_per_second'] / self.graph_alone:.2f}" if self.graph_alone else "",
            f"{lost:,.0f}",
        )


def median(repetitions: Sequence[Figures]) -> Figures:
    """Each figure's median over the repetitions that have it.

    >>> median([{"a": 1.0}, {"a": 9.0}, {"a": 2.0, "b": 5.0}])
    {'a': 2.0, 'b': 5.0}
    """
    names = dict.fromkeys(name for figures in repetitions for name in figures)
    return {name: float(np.median([figures[name] for figures in repetitions if name in figures])) for name in names}


def markdown(lines: Sequence[Line]) -> str:
    """A table, the fastest first."""
    ordered = sorted(lines, key=lambda line: -line.median["requests_per_second"])
    rows = [HEADER, ("---",) + ("---:",) * (len(HEADER) - 1), *(line.cells() for line in ordered)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def tables(measured: Mapping[Load, Sequence[Line]]) -> str:
    """A table for each load, under a heading of its own."""
    return "\n\n".join(f"#### {load}\n\n{markdown(lines)}" for load, lines in measured.items() if lines)
