"""What a fitted feature is to the network: which rows of which table, or which numeric encoding.

Knows widths, tables and fitted numbers. Does not know how they were fitted, nor raw values.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from contract.features import Side


@dataclass(frozen=True)
class Lookup:
    """A categorical feature or sequence: `offset` is its table's first row among all tables of width `dim`.

    A sequence has `length` steps, padded with the table's missing row (the row at `offset`). `along` names the
    sequence that it runs parallel to.
    """

    name: str
    side: Side
    dim: int
    offset: int
    length: int | None = None
    along: str | None = None


@dataclass(frozen=True)
class Number:
    """A numeric feature.

    A missing value becomes `fill`, and with `indicator` a 1 beside it. `standardise`: (x - center) / spread, `log1p`
    the same of sign(x) log(1 + |x|). `piecewise` and `quantile` have ascending `edges`.
    """

    name: str
    side: Side
    encoding: Literal["standardise", "log1p", "quantile", "piecewise"]
    fill: float
    indicator: bool
    center: float = 0.0
    spread: float = 1.0
    edges: tuple[float, ...] = ()


@dataclass(frozen=True)
class Inputs:
    """All fitted features. `table_rows` is the number of rows of all tables of a width."""

    lookups: tuple[Lookup, ...]
    numbers: tuple[Number, ...]
    table_rows: dict[int, int]

    def side(self, side: Side) -> "Inputs":
        """The part of one side."""
        return Inputs(
            tuple(x for x in self.lookups if x.side == side),
            tuple(x for x in self.numbers if x.side == side),
            self.table_rows,
        )

    def parallel(self, sequence: str) -> tuple[Lookup, ...]:
        """The sequence of this name, then those that run along it. Raises: KeyError when there is none."""
        main = {x.name: x for x in self.lookups if x.length is not None}[sequence]
        return main, *(x for x in self.lookups if x.along == sequence)

    def ordered(self, dim: int) -> list[Lookup]:
        """The lookups of one width in the order of their columns: user before item, values before sequences."""
        return sorted((x for x in self.lookups if x.dim == dim), key=lambda x: (x.side != "user", x.length is not None))

    def ordered_numbers(self) -> list[Number]:
        """The numbers in the order of their columns: user before item."""
        return sorted(self.numbers, key=lambda x: x.side != "user")

    def columns(self, dim: int) -> int:
        """Width of the matrix of table rows of one embedding width: one column a value, `length` a sequence."""
        return sum(x.length or 1 for x in self.lookups if x.dim == dim)


class Encoded(NamedTuple):
    """Encoded rows of one or both sides.

    ids: for each embedding width, table rows [B, columns]; user columns first, each side's features in order,
    single values before sequences. numbers: [B, F], user first; NaN is missing.
    """

    ids: dict[int, Tensor]
    numbers: Tensor
