"""What model.onnx may hold: no external data, and operators of known domains only.

Knows the few field numbers of onnx.proto that lead to nodes and tensors. Does not know what an operator computes.
"""

from contract.bundle import MODEL
from contract.errors import BundleCorrupt
from service.scoring.protobuf import BYTES, VARINT, Malformed, fields, varint

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
TOLD = {"Node": {NODE_OPERATOR, NODE_DOMAIN}, "Tensor": {TENSOR_EXTERNAL_DATA, TENSOR_DATA_LOCATION}}
LOOKED_AT = {message: frozenset({*nested, *TOLD.get(message, ())}) for message, nested in NESTED.items()}


def check_graph(model: bytes) -> None:
    """Refuse a model that reaches outside its own bytes, or needs code that onnxruntime does not bring along.

    Raises: BundleCorrupt.
    """
    try:
        _check(model, 0, len(model), "Model", 0)
    except (IndexError, UnicodeDecodeError, Malformed):
        raise _corrupt("not a protobuf message") from None


def _check(data: bytes, start: int, end: int, message: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _corrupt(f"graphs nested deeper than {MAX_DEPTH}")
    nested = NESTED[message]
    for number, wire, _, at, stop in fields(data, start, end, LOOKED_AT[message]):
        if wire == VARINT:
            if message == "Tensor" and number == TENSOR_DATA_LOCATION and varint(data, at)[0]:
                raise _corrupt("a tensor whose data lie outside the file")
        elif wire != BYTES:
            continue
        elif number in nested:
            _check(data, at, stop, nested[number], depth + 1)
        elif message == "Node" and number == NODE_DOMAIN and data[at:stop].decode() not in DOMAINS:
            raise _corrupt("an operator of a domain other than ai.onnx, ai.onnx.ml and com.microsoft")
        elif message == "Node" and number == NODE_OPERATOR and data[at:stop].decode() in REFUSED_OPERATORS:
            raise _corrupt("an operator that reads files")
        elif message == "Tensor" and number in (TENSOR_EXTERNAL_DATA, TENSOR_DATA_LOCATION):
            raise _corrupt("a tensor whose data lie outside the file")


def _corrupt(fact: str) -> BundleCorrupt:
    return BundleCorrupt(fact, place=MODEL, remedy="export the bundle again with `fullfunnel train`")
