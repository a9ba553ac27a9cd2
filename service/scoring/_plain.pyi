from typing import Any

from numpy.typing import NDArray

Columns = list[list[Any] | None]

def numbers(columns: Columns, array: NDArray[Any], /) -> bool: ...
def integers(columns: Columns, array: NDArray[Any], missing: int, /) -> bool: ...
def rows(
    columns: Columns,
    array: NDArray[Any],
    tables: tuple[dict[Any, int], ...],
    unknowns: tuple[int, ...],
    max_bytes: int,
    /,
) -> bool: ...
def unlike_before(
    values: NDArray[Any], starts: NDArray[Any], lengths: NDArray[Any], array: NDArray[Any], /
) -> None: ...
def strings(data: memoryview, count: int, /) -> list[str] | None: ...
def probabilities(arrays: list[NDArray[Any]], /) -> bool: ...
