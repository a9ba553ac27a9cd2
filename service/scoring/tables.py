"""Large embedding tables taken out of the graph, and given to each run as they lie in memory.

onnxruntime copies an initializer while it loads a model, more than once, and keeps a copy of its own. A table that the
graph only gathers rows from is therefore made an input here: every run takes it by reference where it lies in the bytes
that were read, so that loading copies nothing of it, and forked processes share it. Knows initializers and Gather. Does
not know what a table is of.
"""

import numpy as np
from numpy.typing import NDArray

from service.scoring.parts import INPUT, UNREADABLE, Change, Graph
from service.scoring.protobuf import BYTES, VARINT, Field, message, number

DIMS, TYPE, NAME, RAW_DATA = 1, 2, 8, 9  # of a tensor
INPUT_NAME, INPUT_TYPE, TENSOR_TYPE = 1, 2, 1
FLOAT = 1

Table = NDArray[np.float32]


def without_tables(model: bytes, min_bytes: int) -> tuple[bytes, dict[str, Table]]:
    """The model with inputs for its tables of at least `min_bytes`, and the tables by the names of these inputs.

    A model that is not understood, or that holds graphs within its graph, is answered as it came.
    """
    try:
        graph = Graph.of(model)
        large = [part for part in graph.initializers if part.stop - part.start >= min_bytes]
        tables = dict(found for part in large if (found := _table(graph, part)))
        given = {graph.text(next(f for f in graph.inside(part) if f.number == INPUT_NAME)) for part in graph.inputs}
        read = {name for node in graph.nodes for name in node.inputs[node.operator == "Gather" :]}
        changes = {name: change for name, (change, _) in tables.items() if name not in given | read}
    except UNREADABLE:
        return model, {}
    if not changes:
        return model, {}
    return graph.changed(list(changes.values())), {name: tables[name][1] for name in changes}


def _table(graph: Graph, tensor: Field) -> tuple[str, tuple[Change, Table]] | None:
    """Name, what makes an input of it, and the values where they stand; None if it is no matrix of raw float32."""
    parts = graph.inside(tensor)
    shape = [graph.integer(part) for part in parts if part.number == DIMS and part.wire == VARINT]
    (name,) = (graph.text(part) for part in parts if part.number == NAME)
    (kind,) = (graph.integer(part) for part in parts if part.number == TYPE)
    raw = [part for part in parts if part.number == RAW_DATA and part.wire == BYTES]
    if kind != FLOAT or len(shape) != 2 or [4 * shape[0] * shape[1]] != [part.stop - part.start for part in raw]:
        return None
    values = np.frombuffer(graph.model, np.float32, shape[0] * shape[1], raw[0].start).reshape(shape)
    sizes = b"".join(message(1, b"\x08" + number(size)) for size in shape)
    port = message(INPUT_NAME, name.encode()) + message(
        INPUT_TYPE, message(TENSOR_TYPE, bytes([8, FLOAT]) + message(2, sizes))
    )
    return name, ((tensor.begin, tensor.stop, message(INPUT, port)), values)
