"""A bundle and raw columns in, probabilities out: the one scorer behind HTTP, files and the command line.

    graph.py     what model.onnx may hold, read off its bytes
    session.py   those bytes as an onnxruntime session
    columns.py   raw columns as the arrays the graph takes
    scorer.py    the three together, checked against the bundle's golden rows

Knows numpy and onnxruntime. Does not know HTTP, nor files beyond `contract.bundle.read_bundle`.
"""

import os

# onnxruntime 1.29 and later report usage from Linux unless told not to before the import
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
