"""The flat graph of a bundle: its own network, with every candidate bringing the user's features.

`export_graph(..., flat=True)` needs the network, which a bundle does not hold. But the two graphs differ in one thing
only: the shared one gathers the user's half of each first product to the candidates, along `row_user`. Without these
gathers, and without that input, it is the flat one, with the same weights.

Knows ONNX. Does not know HTTP, nor what the nodes compute.
"""

import os
from pathlib import Path

import onnx

from contract.manifest import ROW_USER

ONLY_MOVED = {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"}  # what may lie between row_user and a gather


def flat_graph(model: bytes) -> bytes:
    """The same network without `row_user`. Raises: SystemExit where something else than a gather reads it."""
    proto = onnx.load_model_from_string(model)
    graph = proto.graph
    rows, replaced, kept = {ROW_USER}, dict[str, str](), []
    for node in graph.node:
        if node.op_type in ONLY_MOVED and node.input[0] in rows:
            rows.add(node.output[0])
        elif (
            node.op_type == "Gather"
            and node.input[1] in rows
            and not any(a.name == "axis" and a.i for a in node.attribute)
        ):
            replaced[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    for node in kept:
        node.input[:] = [replaced.get(name, name) for name in node.input]
        if rows & set(node.input):
            raise SystemExit(f"{node.op_type} reads {ROW_USER}: this graph has no flat form")
    inputs = [entry for entry in graph.input if entry.name != ROW_USER]
    for entry in inputs:
        entry.type.tensor_type.shape.dim[0].dim_param = "candidates"
    del graph.node[:], graph.input[:]
    graph.node.extend(kept)
    graph.input.extend(inputs)
    onnx.checker.check_model(proto, full_check=False)
    return bytes(proto.SerializeToString(deterministic=True))


def saved(model: bytes, path: Path) -> Path:
    """Write a graph once; the file appears whole or not at all."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(f".{os.getpid()}")
        aside.write_bytes(model)
        aside.replace(path)
    return path
