"""The parts of a model's graph, where they stand in its bytes, and the model with some of them replaced.

Knows the field numbers of onnx.proto that the top of a graph is made of. Does not know what is replaced, or why.
"""

from collections.abc import Sequence
from typing import Self

from service.scoring.protobuf import Field, Malformed, fields, head, varint

MODEL_GRAPH = 7
NODE, INITIALIZER, INPUT = 1, 5, 11  # of a graph
NODE_INPUT, NODE_OUTPUT, NODE_OPERATOR, NODE_ATTRIBUTE = 1, 2, 4, 5
ATTRIBUTE_GRAPHS = frozenset({6, 11})
UNREADABLE = (Malformed, LookupError, ValueError, StopIteration)  # what reading a model that is none may raise

Change = tuple[int, int, bytes]  # from, to, and what stands there instead


class Node:
    """One node: its operator, and the names it reads and answers."""

    def __init__(self, graph: "Graph", field: Field) -> None:
        self.field = field
        parts = graph.inside(field)
        self.attributes = [part for part in parts if part.number == NODE_ATTRIBUTE]
        self.inputs = [graph.text(part) for part in parts if part.number == NODE_INPUT]
        self.outputs = [graph.text(part) for part in parts if part.number == NODE_OUTPUT]
        self.operator = "".join(graph.text(part) for part in parts if part.number == NODE_OPERATOR)


class Graph:
    """The graph of a model that holds no graphs within its graph: those could read any name of it."""

    def __init__(self, model: bytes, field: Field) -> None:
        self.model, self._field = model, field
        parts = self.inside(field)
        self.nodes = [Node(self, part) for part in parts if part.number == NODE]
        self.initializers = [part for part in parts if part.number == INITIALIZER]
        self.inputs = [part for part in parts if part.number == INPUT]

    @classmethod
    def of(cls, model: bytes) -> Self:
        """Raises: one of UNREADABLE."""
        (field,) = fields(model, 0, len(model), {MODEL_GRAPH})
        graph = cls(model, field)
        attributes = (attribute for node in graph.nodes for attribute in node.attributes)
        if any(fields(model, attribute.start, attribute.stop, ATTRIBUTE_GRAPHS) for attribute in attributes):
            raise Malformed
        return graph

    def inside(self, field: Field) -> list[Field]:
        """The fields of a field that is a message."""
        return fields(self.model, field.start, field.stop)

    def text(self, field: Field) -> str:
        """The string that a field holds."""
        return self.model[field.start : field.stop].decode()

    def integer(self, field: Field) -> int:
        """The int64 that a field holds."""
        value, _ = varint(self.model, field.start)
        return value - 2**64 if value >= 2**63 else value

    def changed(self, changes: Sequence[Change]) -> bytes:
        """The model with these changes; what is left as it is gets copied once."""
        view, pieces, at = memoryview(self.model), [], self._field.start
        for begin, stop, content in sorted(changes):
            pieces += [view[at:begin], memoryview(content)]
            at = stop
        pieces.append(view[at : self._field.stop])
        size = sum(map(len, pieces))
        return b"".join([view[: self._field.begin], head(MODEL_GRAPH, size), *pieces, view[self._field.stop :]])
