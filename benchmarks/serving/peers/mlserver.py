"""MLServer: a custom runtime in a pool of N processes behind one for HTTP, without metrics and debug log.

Knows MLServer and the open inference protocol. Does not know how the graph is run.
"""

import asyncio
import socket
import tempfile

import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.serving.peers.onnx_graph import Graph, port, workers

NAME = "benchmarks.serving.peers.mlserver"  # by which its workers import the runtime


class Ranker(MLModel):
    """One process with a session."""

    async def load(self) -> bool:
        """Load the graph."""
        self.graph = Graph()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Tensors -> scores."""
        feeds = {
            tensor.name: np.array(tensor.data.root, self.graph.dtypes[tensor.name]).reshape(tensor.shape)
            for tensor in payload.inputs
        }
        outputs = [NumpyCodec.encode_output(name, scores) for name, scores in self.graph.run(feeds).items()]
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=outputs)


def free_port() -> int:
    """gRPC cannot be left out."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def main() -> None:
    """Serve until SIGTERM."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            debug=False,
            host="127.0.0.1",
            http_port=port(),
            grpc_port=free_port(),
            metrics_endpoint=None,
            metrics_dir=folder,
            environments_dir=folder,
            model_repository_root=folder,
            gzip_enabled=False,
            parallel_workers=workers() if workers() > 1 else 0,  # 0: it scores where it answers
        )
        await MLServer(settings).start([ModelSettings(name="ranker", implementation=f"{NAME}.Ranker")])


if __name__ == "__main__":
    asyncio.run(main())
