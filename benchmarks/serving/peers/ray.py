"""Ray Serve: N replicas behind its HTTP proxy, in the mode that its documentation advises for throughput.

JSON is read and written by orjson, and no log line is written for each request.

Knows Ray. Does not know how the graph is run.
"""

import signal
import tempfile
from typing import Any

import orjson
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.serving.peers.onnx_graph import Graph, port, workers

OBJECT_STORE_BYTES = 100 * 2**20  # it is not used: the least that is sensible


class Ranker:
    """One process with a session."""

    def __init__(self) -> None:
        self.graph = Graph()

    async def __call__(self, request: Request) -> Response:
        """Columns -> scores."""
        scores = self.graph.score(orjson.loads(await request.body()))
        return Response(orjson.dumps(scores, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


def stop(*_: Any) -> None:
    """What SIGTERM does."""
    raise SystemExit(0)


def main() -> None:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGTERM, stop)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=workers(),
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=folder,
        )
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": port()})
            deployment = serve.deployment(
                Ranker,
                num_replicas=workers(),
                max_ongoing_requests=64,
                logging_config={"enable_access_log": False},
            )
            serve.run(deployment.bind(), route_prefix="/predict")
            signal.pause()
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main()
