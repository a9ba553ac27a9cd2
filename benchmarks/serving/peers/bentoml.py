"""BentoML: a service of N processes, without metrics and access log.

Run by `bentoml serve benchmarks.serving.peers.bentoml:Ranker`.

Knows BentoML. Does not know how the graph is run.
"""

from typing import Any

import bentoml

from benchmarks.serving.peers.onnx_graph import Graph, workers


@bentoml.service(workers=workers(), metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Ranker:
    """One process with a session."""

    def __init__(self) -> None:
        self.graph = Graph()

    @bentoml.api
    def predict(self, columns: dict[str, list[Any]]) -> dict[str, list[float]]:
        """Columns -> scores."""
        return {name: values.tolist() for name, values in self.graph.score(columns).items()}
