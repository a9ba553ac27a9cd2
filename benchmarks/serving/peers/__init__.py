"""Other model servers, each serving the same graph: one module each, run in an environment of its own.

A module here imports its server, numpy, onnxruntime, orjson and `onnx_graph`. What it is told (where the graph lies,
its port, how many processes) stands in the environment, since most servers start processes of their own.
"""
