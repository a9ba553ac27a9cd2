"""mosec: its Rust front hands each request to one of the Python workers.

JSON is read and written by orjson, in the hooks its documentation names. No batching: requests differ in size.

Knows mosec. Does not know how the graph is run.
"""

from typing import Any

import orjson
from mosec import Server, Worker

from benchmarks.serving.peers.onnx_graph import Graph, workers


class Ranker(Worker):
    """One process with a session."""

    def __init__(self) -> None:
        super().__init__()
        self.graph = Graph()

    def deserialize(self, data: bytes) -> Any:
        """The body, as JSON."""
        return orjson.loads(data)

    def serialize(self, data: Any) -> bytes:
        """The scores, as JSON."""
        return orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)

    def forward(self, data: Any) -> Any:
        """Columns -> scores."""
        return self.graph.score(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Ranker, num=workers())
    server.run()
