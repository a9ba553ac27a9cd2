"""KServe's Python server: a custom model, HTTP only, N uvicorn processes, without a log line for each request.

Knows KServe and the open inference protocol. Does not know how the graph is run.
"""

from typing import Any

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer

from benchmarks.serving.peers.onnx_graph import Graph, port, workers


class Ranker(Model):
    """One process with a session."""

    def __init__(self) -> None:
        super().__init__("ranker")
        self.graph: Graph | None = None
        self.ready = True

    async def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:
        """Tensors -> scores."""
        self.graph = graph = self.graph or Graph()  # in the process that answers, not in the one that forks
        feeds = {
            tensor.name: np.array(tensor.data, graph.dtypes[tensor.name]).reshape(tensor.shape)
            for tensor in payload.inputs
        }
        outputs = []
        for name, scores in graph.run(feeds).items():
            outputs.append(InferOutput(name, list(scores.shape), "FP32"))
            outputs[-1].set_data_from_numpy(scores, binary_data=False)
        return InferResponse(payload.id, "ranker", outputs)


if __name__ == "__main__":
    server = ModelServer(
        http_port=port(), workers=workers(), enable_grpc=False, enable_latency_logging=False, access_log_format=None
    )
    server.start([Ranker()])
