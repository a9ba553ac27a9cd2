"""The formats that servers speak: a request as JSON, and an answer as scores.

Knows JSON and arrays. Does not know HTTP, servers or bundles. Imports no more than numpy and orjson, since the load
generator reads answers with it.

    fullfunnel   the user's values and a column of each candidate feature
    columns      a column of each input of the graph, as the graph takes it
    wrapped      the same, as the value of "columns"
    rows         a JSON object a candidate; for the shared graph, one for the user beside them
    v2           the open inference protocol: shape, datatype and flat data of each input
    binary       the same, with the data as raw bytes behind the JSON, both ways
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

Wire = Literal["fullfunnel", "columns", "wrapped", "rows", "v2", "binary"]
Array = NDArray[Any]
V2_TYPES = {"O": "BYTES", "i": "INT64", "f": "FP32"}


def encode(wire: Wire, feeds: Mapping[str, Array], users: Sequence[str]) -> bytes:
    """The body of a request, of arrays that the graph takes; `users` names inputs with one row for all candidates."""
    columns = {name: array.tolist() for name, array in feeds.items()}  # NaN becomes null
    if wire == "columns":
        return orjson.dumps(columns)
    if wire == "wrapped":
        return orjson.dumps({"columns": columns})
    if wire == "v2":
        return orjson.dumps({"id": "0", "inputs": [_tensor(name, array) for name, array in feeds.items()]})
    if wire == "binary":
        tensors = [_raw(array) for array in feeds.values()]
        inputs = [
            {**_described(name, array), "parameters": {"binary_data_size": len(raw)}}
            for (name, array), raw in zip(feeds.items(), tensors, strict=True)
        ]
        asked = {"id": "0", "inputs": inputs, "parameters": {"binary_data_output": True}}
        return b"".join([orjson.dumps(asked), *tensors])
    if wire == "rows":
        of_candidates = [name for name in columns if name not in users]
        values = zip(*(columns[name] for name in of_candidates), strict=True)
        candidates = [dict(zip(of_candidates, row, strict=True)) for row in values]
        user = {name: columns[name][0] for name in users}
        return orjson.dumps({"user": user, "candidates": candidates} if users else {"candidates": candidates})
    raise ValueError(f"{wire} is not made of the graph's arrays")


def json_bytes(body: bytes) -> int:
    """How many bytes of a body in the binary form are JSON."""
    return json.JSONDecoder().raw_decode(body.decode("latin-1"))[1]


def _tensor(name: str, array: Array) -> dict[str, Any]:
    return {**_described(name, array), "data": array.ravel().tolist()}


def _described(name: str, array: Array) -> dict[str, Any]:
    return {"name": name, "shape": list(array.shape), "datatype": V2_TYPES[array.dtype.kind]}


def _raw(array: Array) -> bytes:
    if array.dtype.kind != "O":
        return array.tobytes()
    words = [str(word).encode() for word in array.ravel()]
    return b"".join(len(word).to_bytes(4, "little") + word for word in words)


def decode(wire: Wire, body: bytes, outputs: Sequence[str]) -> Array:
    """The scores in an answer: an array [outputs, candidates]. Raises: ValueError, LookupError or TypeError."""
    if wire == "binary":
        start = json_bytes(body)
        names = [tensor["name"] for tensor in orjson.loads(body[:start])["outputs"]]
        found = np.frombuffer(body, np.float32, offset=start).reshape(len(names), -1)
        return found[[names.index(name) for name in outputs]].astype(np.float64)
    answer = orjson.loads(body)
    if wire == "v2":
        tensors = {tensor["name"]: tensor["data"] for tensor in answer["outputs"]}
        return np.array([tensors[name] for name in outputs], np.float64)
    if wire == "rows":
        return np.array([[row[name] for row in answer] for name in outputs], np.float64)
    return np.array([answer[name] for name in outputs], np.float64)


def difference(wire: Wire, body: bytes, outputs: Sequence[str], expected: Array) -> float:
    """The largest distance between the scores of an answer and those expected; infinite where it holds none."""
    try:
        found = decode(wire, body, outputs)
    except (ValueError, LookupError, TypeError):
        return float("inf")
    if found.shape != expected.shape:
        return float("inf")
    largest = float(np.abs(found - expected).max(initial=0.0))
    return largest if largest == largest else float("inf")
