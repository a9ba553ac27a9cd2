"""The graph that every peer serves: columns in, scores out, with the session options that Fullfunnel uses.

Knows onnxruntime and numpy. Does not know servers, nor what the features mean: missing values are in the columns.
"""

import os
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

GRAPH, PORT, WORKERS = (f"PEER_{name}" for name in ("GRAPH", "PORT", "WORKERS"))  # environment variables
ROW_USER = "row_user"
DTYPES: dict[str, Any] = {"tensor(string)": object, "tensor(int64)": np.int64, "tensor(float)": np.float32}


def port() -> int:
    """Where to listen."""
    return int(os.environ[PORT])


def workers() -> int:
    """How many processes are to score."""
    return int(os.environ[WORKERS])


class Graph:
    """A session on the graph that the environment names."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(os.environ[GRAPH], options, providers=["CPUExecutionProvider"])
        self.inputs = self.session.get_inputs()
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.dtypes = {port.name: DTYPES[port.type] for port in self.inputs}
        self.takes_row_user = ROW_USER in self.dtypes
        self.of_candidates = next(port.name for port in self.inputs if port.shape[0] == "candidates")

    def run(self, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Arrays of a request -> scores by output."""
        return dict(zip(self.outputs, self.session.run(self.outputs, self.completed(feeds)), strict=True))

    def completed(self, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """With `row_user` where the graph takes the user once: all candidates are of the first."""
        if self.takes_row_user:
            feeds[ROW_USER] = np.zeros(len(feeds[self.of_candidates]), np.int64)
        return feeds

    def feeds(self, columns: dict[str, list[Any]]) -> dict[str, NDArray[Any]]:
        """Columns -> arrays."""
        return {name: np.array(column, self.dtypes[name]) for name, column in columns.items()}

    def score(self, columns: dict[str, list[Any]]) -> dict[str, NDArray[np.float32]]:
        """Columns -> scores by output."""
        return self.run(self.feeds(columns))
