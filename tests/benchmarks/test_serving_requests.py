"""Requests of the serving benchmark: equal values in every format, equal scores from both graphs."""

import json
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from benchmarks import sharing
from benchmarks.serving.graphs import flat_graph
from benchmarks.serving.plan import Plan
from benchmarks.serving.server import ROOT
from benchmarks.serving.systems import ONNX, PEERS
from benchmarks.serving.wire import Wire, decode, difference, encode, json_bytes
from contract.manifest import ROW_USER
from models.separate_towers import SeparateTowersOptions
from training.encoders import Fitted

OUTPUTS = ["a", "b"]


@pytest.fixture(scope="module")
def fit() -> Fitted:
    return sharing.fitted(sharing.features((2, 2), (1, 1)), ids=50, values=10)


@pytest.fixture(scope="module")
def models(fit: Fitted) -> tuple[bytes, bytes]:
    return sharing.export(SeparateTowersOptions(tower=(8,)), fit)


@pytest.mark.parametrize("wire", ["columns", "wrapped", "rows", "v2"])
def test_a_body_holds_every_value_once_or_once_a_candidate(wire: Wire) -> None:
    feeds = {
        "age": np.array([np.nan], np.float32),
        "recent": np.array([["x", "y"]], object),
        "item": np.array(["i", "j", "k"], object),
        "position": np.array([1, 2, -(2**63)], np.int64),
    }
    body = json.loads(encode(wire, feeds, ["age", "recent"]))
    columns: dict[str, list[Any]] = {
        "age": [None],
        "recent": [["x", "y"]],
        "item": ["i", "j", "k"],
        "position": [1, 2, -(2**63)],
    }
    if wire == "rows":
        candidates = [{"item": i, "position": j} for i, j in zip(columns["item"], columns["position"], strict=True)]
        assert body == {"user": {"age": None, "recent": ["x", "y"]}, "candidates": candidates}
    elif wire == "v2":
        tensors = {tensor["name"]: tensor for tensor in body["inputs"]}
        assert {name: np.reshape(t["data"], t["shape"]).tolist() for name, t in tensors.items()} == columns
        assert [tensors[name]["datatype"] for name in feeds] == ["FP32", "BYTES", "BYTES", "INT64"]
    else:
        assert body == ({"columns": columns} if wire == "wrapped" else columns)


def test_scores_are_read_from_every_format_and_what_holds_none_is_infinitely_far() -> None:
    expected = np.array([[0.1, 0.2], [0.3, 0.4]])
    v2 = {"outputs": [{"name": name, "data": row.tolist()} for name, row in zip(OUTPUTS, expected, strict=True)]}
    columns = {"model": {}, "b": [0.3, 0.4], "a": [0.1, 0.2]}
    answers: list[tuple[Wire, Any]] = [
        ("fullfunnel", columns), ("columns", columns), ("wrapped", columns), ("v2", v2),
        ("rows", [{"a": 0.1, "b": 0.3}, {"a": 0.2, "b": 0.4}]),
    ]  # fmt: skip
    for wire, answer in answers:
        assert (decode(wire, json.dumps(answer).encode(), OUTPUTS) == expected).all()
    for nothing in (b"", b"{}", b"[1]", b'{"a": [0.1], "b": [0.3]}', b'{"a": [0.1, null], "b": [0.3, 0.4]}'):
        assert difference("columns", nothing, OUTPUTS, expected) == float("inf")


def test_a_binary_body_holds_the_tensors_behind_its_json_and_so_does_its_answer() -> None:
    feeds = {"item": np.array(["i", "jé"], object), "price": np.array([1.5, np.nan], np.float32)}
    body = encode("binary", feeds, [])
    asked = json.loads(body[: json_bytes(body)])
    assert [(t["name"], t["shape"], t["datatype"]) for t in asked["inputs"]] == [
        ("item", [2], "BYTES"),
        ("price", [2], "FP32"),
    ]
    tail = b"\1\0\0\0i\3\0\0\0j\xc3\xa9" + feeds["price"].tobytes()
    assert body[json_bytes(body) :] == tail
    assert sum(t["parameters"]["binary_data_size"] for t in asked["inputs"]) == len(tail)
    plan = Plan("binary", "/infer", OUTPUTS, [body], [])
    assert f"Inference-Header-Content-Length: {json_bytes(body)}\r\n\r\n".encode() in plan.requests(80)[0]
    expected = np.array([[0.25, 0.5], [0.75, 1.0]])
    head = json.dumps({"outputs": [{"name": "b"}, {"name": "a"}]}).encode()
    answer = head + expected[::-1].astype(np.float32).tobytes()
    assert difference("binary", answer, OUTPUTS, expected) == 0
    assert difference("binary", head, OUTPUTS, expected) == float("inf")


def test_the_flat_form_of_a_graph_is_the_flat_export_of_its_network(models: tuple[bytes, bytes], fit: Fitted) -> None:
    shared, exported = models
    flat = onnxruntime.InferenceSession(flat_graph(shared))
    reference = onnxruntime.InferenceSession(exported)
    inputs = {port.name: port.shape for port in flat.get_inputs()}
    assert inputs == {port.name: port.shape for port in reference.get_inputs()} and ROW_USER not in inputs
    feeds = sharing.flat(sharing.request(fit, 9), fit)
    for mine, other in zip(flat.run(sharing.NAMES, feeds), reference.run(sharing.NAMES, feeds), strict=True):
        assert (mine == other).all()


def test_a_graph_that_does_more_with_row_user_has_no_flat_form(models: tuple[bytes, bytes]) -> None:
    proto = onnx.load_model_from_string(models[0])
    proto.graph.node.append(onnx.helper.make_node("Neg", [ROW_USER], ["negative"]))
    with pytest.raises(SystemExit, match="Neg reads row_user"):
        flat_graph(proto.SerializeToString())


def test_peers_run_the_onnxruntime_that_the_service_is_locked_to() -> None:
    lock = (ROOT / "requirements" / "serve.lock").read_text().splitlines()
    assert all(any(line.split(" ")[0] == pin for line in lock) for pin in ONNX)
    for peer in PEERS:
        assert all("==" in requirement for requirement in peer.requirements)
        assert (ROOT / "benchmarks" / "serving" / "peers" / f"{peer.name}.py").exists()
