"""What a load is made of: the requests of one system for one number of candidates, and the scores expected.

Knows the bodies' format and HTTP heads. Does not know bundles: it is read where only numpy and orjson are at hand.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from benchmarks.serving.wire import Array, Wire, difference, json_bytes

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Plan:
    """`expected` holds an array [outputs, candidates] for each body."""

    wire: Wire
    path: str
    outputs: list[str]
    bodies: list[bytes]
    expected: list[Array]

    def write(self, file: Path) -> None:
        """As JSON."""
        bodies, expected = (
            [body.decode("latin-1") for body in self.bodies],
            [scores.tolist() for scores in self.expected],
        )
        file.write_bytes(orjson.dumps({**self.__dict__, "bodies": bodies, "expected": expected}))

    @classmethod
    def read(cls, file: Path) -> "Plan":
        """What `write` wrote."""
        found = orjson.loads(file.read_bytes())
        found["bodies"] = [body.encode("latin-1") for body in found["bodies"]]
        found["expected"] = [np.array(scores, np.float64) for scores in found["expected"]]
        return cls(**found)

    def requests(self, port: int) -> list[bytes]:
        """Each body with its head."""
        first = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        return [first.encode() + self._lines(body) + body for body in self.bodies]

    def headers(self, body: bytes) -> dict[str, str]:
        """What is sent before a body, but for Host."""
        found = {"Content-Type": "application/json", "Accept": "application/json", "Content-Length": str(len(body))}
        if self.wire == "binary":
            found["Inference-Header-Content-Length"] = str(json_bytes(body))
        return found

    def _lines(self, body: bytes) -> bytes:
        lines = [f"{name}: {value}\r\n" for name, value in self.headers(body).items()]
        return "".join([*lines, "\r\n"]).encode()

    def difference(self, request: int, body: bytes) -> float:
        """How far an answer is from the scores expected."""
        return difference(self.wire, body, self.outputs, self.expected[request])

    def is_right(self, request: int, body: bytes) -> bool:
        """Whether an answer holds the scores expected."""
        return self.difference(request, body) <= TOLERANCE
