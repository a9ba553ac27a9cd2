"""What model.onnx may hold."""

import contextlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from contract.errors import BundleCorrupt
from service.scoring.graph import check_graph
from tests.service.toy_bundle import toy_model

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])


def model_of(*nodes: onnx.NodeProto, initializers: tuple[TensorProto, ...] = (), domain: str = "") -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 20), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(helper.make_graph(nodes, "g", [X], [Y], initializers), opset_imports=opsets, ir_version=10)


def external_tensor(name: str = "w") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="elsewhere.bin")
    return tensor


def refusal(model: onnx.ModelProto) -> str:
    with pytest.raises(BundleCorrupt) as caught:
        check_graph(model.SerializeToString())
    return caught.value.fact


def test_an_ordinary_model_passes() -> None:
    check_graph(toy_model().SerializeToString())


def test_a_custom_operator_is_refused() -> None:
    model = model_of(helper.make_node("Evil", ["x"], ["y"], domain="com.example"), domain="com.example")
    assert "an operator of a domain other than" in refusal(model)


def test_an_operator_that_reads_files_is_refused() -> None:
    model = model_of(helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft"), domain="com.microsoft")
    assert refusal(model) == "an operator that reads files"


def test_external_data_is_refused_in_an_initializer() -> None:
    model = model_of(helper.make_node("Add", ["x", "w"], ["y"]), initializers=(external_tensor(),))
    assert "outside the file" in refusal(model)


def test_external_data_is_refused_in_an_attribute() -> None:
    model = model_of(helper.make_node("Constant", [], ["y"], value=external_tensor()))
    assert "outside the file" in refusal(model)


def test_external_data_is_refused_in_a_sparse_tensor() -> None:
    model = model_of(helper.make_node("Identity", ["x"], ["y"]))
    model.graph.sparse_initializer.add().values.CopyFrom(external_tensor())
    assert "outside the file" in refusal(model)


def test_a_location_that_is_external_without_entries_is_refused() -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    assert "outside the file" in refusal(model_of(helper.make_node("Add", ["x", "w"], ["y"]), initializers=(tensor,)))


def test_what_a_subgraph_holds_is_checked_too() -> None:
    evil = helper.make_graph([helper.make_node("Evil", ["x"], ["z"], domain="com.example")], "branch", [], [Y])
    branch = helper.make_node("If", ["x"], ["y"], then_branch=evil, else_branch=evil)
    assert "domain" in refusal(model_of(branch))


def test_what_a_function_holds_is_checked_too() -> None:
    model = model_of(helper.make_node("Identity", ["x"], ["y"]))
    body = [helper.make_node("Evil", ["x"], ["y"], domain="com.example")]
    model.functions.append(helper.make_function("ai.onnx", "F", ["x"], ["y"], body, [helper.make_opsetid("", 20)]))
    assert "domain" in refusal(model)


def test_a_second_graph_message_does_not_hide_the_first() -> None:
    """Protobuf merges repeated messages; a reader that looks at the last one only would miss this."""
    evil = model_of(helper.make_node("Evil", ["x"], ["y"], domain="com.example")).SerializeToString()
    plain = model_of(helper.make_node("Identity", ["x"], ["y"])).SerializeToString()
    with pytest.raises(BundleCorrupt):
        check_graph(evil + plain)


def test_names_and_strings_that_look_like_external_data_pass() -> None:
    labels = helper.make_node(
        "LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", keys_strings=["location", "a" * 300], values_int64s=[1, 2]
    )
    tensor = numpy_helper.from_array(np.frombuffer(b"j\x08location", dtype=np.uint8), "location")
    check_graph(model_of(labels, initializers=(tensor,), domain="ai.onnx.ml").SerializeToString())


@pytest.mark.parametrize("content", [b"\xff" * 20, b"\x0a\xff\x01", b"\x3a\x05ab", b"\x0b", b"\x39\x01", b"\x80"])
def test_bytes_that_are_no_protobuf_are_refused(content: bytes) -> None:
    with pytest.raises(BundleCorrupt, match="not a protobuf message"):
        check_graph(content)


def test_no_damaged_copy_breaks_the_reader() -> None:
    content = toy_model().SerializeToString()
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        for at in random.integers(0, len(content), 3):
            damaged[at] = random.integers(256)
        with contextlib.suppress(BundleCorrupt):
            check_graph(bytes(damaged))


def test_nesting_without_end_is_refused() -> None:
    """Each graph holds a node that holds a graph; built from bytes, as protobuf itself would refuse to."""
    content = b""
    for _ in range(200):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # Attribute.g, Node.attribute, Graph.node
            size = len(content)
            length = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
            content = tag + length + content
    with pytest.raises(BundleCorrupt, match="nested deeper"):
        check_graph(
            b"\x3a" + bytes([len(content) & 0x7F | 0x80, len(content) >> 7 & 0x7F | 0x80, len(content) >> 14]) + content
        )


def test_external_data_would_be_read_if_it_were_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: onnxruntime itself reads a file of the working directory for a model given as bytes."""
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere.bin").write_bytes(np.float32(41).tobytes())
    model = model_of(helper.make_node("Add", ["x", "w"], ["y"]), initializers=(external_tensor(),)).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options)
    assert session.run(None, {"x": np.ones(1, dtype=np.float32)})[0] == 42
    with pytest.raises(BundleCorrupt):
        check_graph(model)
