"""LitServe, with its ZMQ queue and an API process for each worker, as its documentation advises for small models.

Knows LitServe. Does not know how the graph is run.
"""

from typing import Any

from litserve import LitAPI, LitServer

from benchmarks.serving.peers.onnx_graph import Graph, port, workers


class Ranker(LitAPI):
    """One process with a session."""

    def setup(self, device: str) -> None:
        """Load the graph."""
        self.graph = Graph()

    def predict(self, x: Any) -> Any:
        """Columns -> scores."""
        return {name: values.tolist() for name, values in self.graph.score(x).items()}


if __name__ == "__main__":
    server = LitServer(Ranker(), accelerator="cpu", workers_per_device=workers(), fast_queue=True)
    server.run(
        host="127.0.0.1", port=port(), num_api_servers=workers(), generate_client_file=False, log_level="warning"
    )
