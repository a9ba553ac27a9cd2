"""What model.onnx may hold: no external data, and operators of known domains only.

Reads the protobuf wire format itself, because the serving tree holds no `onnx` package. Knows the few field
numbers of onnx.proto that lead to nodes and tensors. Does not know what an operator computes.
"""

from collections.abc import Iterator

from contract.bundle import MODEL
from contract.errors import BundleCorrupt

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
# an operator of com.microsoft that reads a file of its own naming
REFUSED_OPERATORS = frozenset({"EPContext"})
MAX_DEPTH = 64

# message -> field number -> the message it holds. Everything else is skipped unread.
NESTED: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
NODE_OPERATOR, NODE_DOMAIN = 4, 7
TENSOR_EXTERNAL_DATA, TENSOR_DATA_LOCATION = 13, 14


def check_graph(model: bytes) -> None:
    """Refuse a model that reaches outside its own bytes, or needs code that onnxruntime does not bring along.

    Raises: BundleCorrupt.
    """
    try:
        _check(model, 0, len(model), "Model", 0)
    except (IndexError, UnicodeDecodeError):
        raise _corrupt("not a protobuf message") from None


def _check(data: bytes, start: int, end: int, message: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _corrupt(f"graphs nested deeper than {MAX_DEPTH}")
    nested = NESTED[message]
    for number, at, stop in _fields(data, start, end):
        if number in nested:
            _check(data, at, stop, nested[number], depth + 1)
        elif message == "Node" and number == NODE_DOMAIN and data[at:stop].decode() not in DOMAINS:
            raise _corrupt("an operator of a domain other than ai.onnx, ai.onnx.ml and com.microsoft")
        elif message == "Node" and number == NODE_OPERATOR and data[at:stop].decode() in REFUSED_OPERATORS:
            raise _corrupt("an operator that reads files")
        elif message == "Tensor" and number in (TENSOR_EXTERNAL_DATA, TENSOR_DATA_LOCATION):
            raise _corrupt("a tensor whose data lie outside the file")


def _fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of every field that holds bytes, and of every data_location that is not 0."""
    at = start
    while at < end:
        tag, at = _varint(data, at)
        wire, number = tag & 7, tag >> 3
        if wire == 2:
            size, at = _varint(data, at)
            if at + size > end:
                raise _corrupt("not a protobuf message")
            yield number, at, at + size
            at += size
        elif wire == 0:
            value, after = _varint(data, at)
            if value and number == TENSOR_DATA_LOCATION:
                yield number, at, after
            at = after
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise _corrupt("not a protobuf message")
    if at != end:
        raise _corrupt("not a protobuf message")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while byte >= 0x80:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        shift += 7
        if shift > 70:
            raise _corrupt("not a protobuf message")
    return value, at + 1


def _corrupt(fact: str) -> BundleCorrupt:
    return BundleCorrupt(fact, place=MODEL, remedy="export the bundle again with `fullfunnel train`")
