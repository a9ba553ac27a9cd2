from typing import final

from service.scoring.request import Feature, Plain

Side = tuple[bytearray, bytearray, list[str]]
Sequence = tuple[bytearray | list[str], int]

def deeper(body: bytes, levels: int, /) -> bool: ...

@final
class Table:
    def __new__(cls, words: dict[str, int], /) -> Table: ...

@final
class Reader:
    def __new__(cls, names: Table, features: tuple[Feature, ...], outputs: Table, max_bytes: int, /) -> Reader: ...
    def read(self, body: bytes, most: int, /) -> Plain | None: ...
    def tensors(self, body: bytes, length: int, most: int, /) -> tuple[Plain, bytes] | None: ...
    def join(
        self, requests: list[Plain], most: int, /
    ) -> tuple[tuple[Side, Side], tuple[Sequence, ...], bytearray] | None: ...
