from typing import TypeVar

T = TypeVar("T", bound=tuple[int, ...])

def fields(kind: type[T], data: bytes, start: int, stop: int, wanted: int, most: int, found: list[T], /) -> int: ...
