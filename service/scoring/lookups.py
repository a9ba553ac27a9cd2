"""Vocabularies taken out of the graph, so that strings are looked up before they would be copied into onnxruntime.

onnxruntime copies every string it is given, and the copies cost more than the lookups. A `LabelEncoder` over strings
at the very start of the graph is therefore done here, with its own keys: the input takes the numbers that the encoder
would have answered. The bundle stays as it is, and its golden rows are scored this way before it serves. Reads the
protobuf wire format. Knows LabelEncoder and where a graph begins. Does not know features.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from contract.features import STRING_MISSING
from service.scoring.protobuf import VARINT, Field, Malformed, fields, head, varint

GRAPH, NODE, INPUT, NAME = 7, 1, 11, 1  # of a model; of a graph; of nodes, attributes and inputs
NODE_INPUT, NODE_OUTPUT, NODE_OPERATOR, NODE_ATTRIBUTE = 1, 2, 4, 5
ATTRIBUTE_INT, ATTRIBUTE_INTS, ATTRIBUTE_STRINGS = 3, 8, 9
ATTRIBUTE_GRAPHS = frozenset({6, 11})
INPUT_TYPE, TENSOR_TYPE, ELEMENT_TYPE = 2, 1, 1
STRING, INT64 = 8, 7


@dataclass(frozen=True)
class Words:
    """What one encoder answers: `rows` by word, `unknown` for all others, `missing` for the empty string."""

    rows: Mapping[str, int]
    unknown: int
    missing: int


class _Node:
    def __init__(self, model: bytes, field: Field) -> None:
        self.field = field
        self.attributes: list[Field] = []
        self.inputs: list[str] = []
        self.output = self.operator = ""
        for inner in fields(model, field.start, field.stop):
            if inner.number == NODE_ATTRIBUTE:
                self.attributes.append(inner)
            elif inner.number == NODE_INPUT:
                self.inputs.append(_text(model, inner))
            elif inner.number == NODE_OUTPUT:
                self.output = _text(model, inner)
            elif inner.number == NODE_OPERATOR:
                self.operator = _text(model, inner)


def without_lookups(model: bytes, max_words: int) -> tuple[bytes, dict[str, Words]]:
    """The model with rows for strings wherever that can be, and the words of each input that takes rows now.

    A vocabulary of more than `max_words` stays in the graph, and so does everything in a model that is not understood,
    or that holds graphs within its graph.
    """
    try:
        return _without_lookups(model, max_words)
    except (Malformed, LookupError, ValueError, StopIteration):
        return model, {}


def _without_lookups(model: bytes, max_words: int) -> tuple[bytes, dict[str, Words]]:
    graphs = [field for field in fields(model, 0, len(model)) if field.number == GRAPH]
    (graph,) = graphs
    nodes = [_Node(model, field) for field in fields(model, graph.start, graph.stop) if field.number == NODE]
    if any(_has_graph(model, attribute) for node in nodes for attribute in node.attributes):
        return model, {}  # which could read an input too
    found: dict[str, Words] = {}
    known: dict[bytes, Words | None] = {}
    changes: list[tuple[int, int, bytes]] = []
    for name, element in _string_inputs(model, graph):
        readers = [node for node in nodes if name in node.inputs]
        if len(readers) != 1 or readers[0].operator != "LabelEncoder":
            continue
        (node,) = readers
        key = b"".join(model[attribute.start : attribute.stop] for attribute in node.attributes)
        if key not in known:  # features that share a table share their vocabulary
            known[key] = _words(model, node, max_words)
        if words := known[key]:
            found[name] = words
            changes += [
                (element.start, element.stop, bytes([INT64])),
                (node.field.begin, node.field.stop, _identity(node)),
            ]
    return (_changed(model, graph, sorted(changes)) if found else model), found


def _string_inputs(model: bytes, graph: Field) -> Iterator[tuple[str, Field]]:
    """The graph's inputs of strings: name, and where the type of their elements stands."""
    for port in fields(model, graph.start, graph.stop):
        if port.number == INPUT:
            inner = {field.number: field for field in fields(model, port.start, port.stop)}
            tensors = [f for f in _inside(model, inner.get(INPUT_TYPE)) if f.number == TENSOR_TYPE]
            elements = [f for tensor in tensors for f in _inside(model, tensor) if f.number == ELEMENT_TYPE]
            if len(elements) == 1 and model[elements[0].start : elements[0].stop] == bytes([STRING]):
                yield _text(model, inner[NAME]), elements[0]


def _words(model: bytes, node: _Node, max_words: int) -> Words | None:
    """The vocabulary of an encoder from strings to integers that knows the empty string; None for any other."""
    attributes = {}
    for attribute in node.attributes:
        inner = list(fields(model, attribute.start, attribute.stop))
        attributes[next(_text(model, field) for field in inner if field.number == NAME)] = inner
    if set(attributes) != {"keys_strings", "values_int64s", "default_int64"}:
        return None
    keys = [_text(model, field) for field in attributes["keys_strings"] if field.number == ATTRIBUTE_STRINGS]
    rows = [
        _integer(model, field)
        for field in attributes["values_int64s"]
        if field.number == ATTRIBUTE_INTS and field.wire == VARINT
    ]
    (unknown,) = [_integer(model, f) for f in attributes["default_int64"] if f.number == ATTRIBUTE_INT] or [0]
    words = dict(zip(keys, rows, strict=True))
    if not 0 < len(keys) == len(words) <= max_words or STRING_MISSING not in words or min(rows) < 0:
        return None
    return Words(words, unknown, words[STRING_MISSING])


def _identity(node: _Node) -> bytes:
    """A node that passes the encoder's input on; onnxruntime removes it when it loads the model."""
    parts = ((NODE_INPUT, node.inputs[0]), (NODE_OUTPUT, node.output), (NODE_OPERATOR, "Identity"))
    content = b"".join(head(number, len(text.encode())) + text.encode() for number, text in parts)
    return head(NODE, len(content)) + content


def _changed(model: bytes, graph: Field, changes: list[tuple[int, int, bytes]]) -> bytes:
    """The model with some spans of its graph replaced; the tables of the network are copied once."""
    view, pieces, at = memoryview(model), [], graph.start
    for begin, stop, content in changes:
        pieces += [view[at:begin], memoryview(content)]
        at = stop
    pieces.append(view[at : graph.stop])
    size = sum(map(len, pieces))
    return b"".join([view[: graph.begin], head(GRAPH, size), *pieces, view[graph.stop :]])


def _has_graph(model: bytes, attribute: Field) -> bool:
    return any(field.number in ATTRIBUTE_GRAPHS for field in fields(model, attribute.start, attribute.stop))


def _inside(model: bytes, field: Field | None) -> Iterator[Field]:
    return iter(()) if field is None else fields(model, field.start, field.stop)


def _text(model: bytes, field: Field) -> str:
    return model[field.start : field.stop].decode()


def _integer(model: bytes, field: Field) -> int:
    value, _ = varint(model, field.start)
    return value - 2**64 if value >= 2**63 else value
