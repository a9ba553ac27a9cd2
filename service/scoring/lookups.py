"""Vocabularies taken out of the graph, so that strings are looked up before they would be copied into onnxruntime.

onnxruntime copies every string it is given, and the copies cost more than the lookups. A `LabelEncoder` over strings
at the very start of the graph is therefore done here, with its own keys: the input takes the numbers that the encoder
would have answered. The bundle stays as it is, and its golden rows are scored this way before it serves. Reads the
protobuf wire format. Knows LabelEncoder and where a graph begins. Does not know features.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from contract.features import STRING_MISSING
from service.scoring.parts import NODE, NODE_INPUT, NODE_OPERATOR, NODE_OUTPUT, UNREADABLE, Change, Graph, Node
from service.scoring.protobuf import VARINT, Field, message

NAME = 1  # of attributes and inputs
ATTRIBUTE_INT, ATTRIBUTE_INTS, ATTRIBUTE_STRINGS = 3, 8, 9
INPUT_TYPE, TENSOR_TYPE, ELEMENT_TYPE = 2, 1, 1
STRING, INT64 = 8, 7


@dataclass(frozen=True)
class Words:
    """What one encoder answers: `rows` by word, `unknown` for all others, `missing` for the empty string."""

    rows: Mapping[str, int]
    unknown: int
    missing: int


def without_lookups(model: bytes, max_words: int) -> tuple[bytes, dict[str, Words]]:
    """The model with rows for strings wherever that can be, and the words of each input that takes rows now.

    A vocabulary of more than `max_words` stays in the graph, and so does everything in a model that is not understood,
    or that holds graphs within its graph.
    """
    try:
        graph = Graph.of(model)
        found, changes = _lookups(graph, max_words)
    except UNREADABLE:
        return model, {}
    return (graph.changed(changes) if found else model), found


def _lookups(graph: Graph, max_words: int) -> tuple[dict[str, Words], list[Change]]:
    found: dict[str, Words] = {}
    changes: list[Change] = []
    known: dict[bytes, Words | None] = {}
    for name, element in _string_inputs(graph):
        readers = [node for node in graph.nodes if name in node.inputs]
        if [node.operator for node in readers] != ["LabelEncoder"]:
            continue
        (node,) = readers
        key = b"".join(graph.model[attribute.start : attribute.stop] for attribute in node.attributes)
        if key not in known:  # features that share a table share their vocabulary
            known[key] = _words(graph, node, max_words)
        if words := known[key]:
            found[name] = words
            changes += [
                (element.start, element.stop, bytes([INT64])),
                (node.field.begin, node.field.stop, _identity(node)),
            ]
    return found, changes


def _string_inputs(graph: Graph) -> Iterator[tuple[str, Field]]:
    """The graph's inputs of strings: name, and where the type of their elements stands."""
    for port in graph.inputs:
        parts = {part.number: part for part in graph.inside(port)}
        tensors = [part for part in graph.inside(parts[INPUT_TYPE]) if part.number == TENSOR_TYPE]
        elements = [part for tensor in tensors for part in graph.inside(tensor) if part.number == ELEMENT_TYPE]
        if len(elements) == 1 and graph.integer(elements[0]) == STRING:
            yield graph.text(parts[NAME]), elements[0]


def _words(graph: Graph, node: Node, max_words: int) -> Words | None:
    """The vocabulary of an encoder from strings to integers that knows the empty string; None for any other."""
    attributes = {}
    for attribute in node.attributes:
        parts = graph.inside(attribute)
        attributes[next(graph.text(part) for part in parts if part.number == NAME)] = parts
    if set(attributes) != {"keys_strings", "values_int64s", "default_int64"}:
        return None
    keys = [graph.text(part) for part in attributes["keys_strings"] if part.number == ATTRIBUTE_STRINGS]
    numbers = [part for part in attributes["values_int64s"] if part.number == ATTRIBUTE_INTS and part.wire == VARINT]
    (unknown,) = [graph.integer(part) for part in attributes["default_int64"] if part.number == ATTRIBUTE_INT] or [0]
    words = dict(zip(keys, map(graph.integer, numbers), strict=True))
    if not 0 < len(words) == len(keys) <= max_words or STRING_MISSING not in words or min(words.values()) < 0:
        return None
    return Words(words, unknown, words[STRING_MISSING])


def _identity(node: Node) -> bytes:
    """A node that passes the encoder's input on; onnxruntime removes it when it loads the model."""
    parts = ((NODE_INPUT, node.inputs[0]), (NODE_OUTPUT, node.outputs[0]), (NODE_OPERATOR, "Identity"))
    return message(NODE, b"".join(message(number, text.encode()) for number, text in parts))
