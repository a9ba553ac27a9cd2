"""The graph is the network: same scores at every size, the inputs the manifest names, and nothing of this machine."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import AttributeProto

from contract.manifest import ROW_USER
from tests.training import small
from tests.training.conftest import Exported, wide_ranker
from training.calibration import identity, probabilities
from training.export import Served, export_graph, graph_inputs
from training.loop import predict_logits
from training.parity import as_input, columns_of, kept_steps, plain_values
from training.split import TEST

Arrays = dict[str, NDArray[np.generic]]


def feed(found: small.Prepared, users: NDArray[np.int64], items: NDArray[np.int64]) -> Arrays:
    """Raw inputs of the graph: user features of some held-out rows, item features of others."""
    features = found.fitted.features
    raw = {f.name: plain_values(found.staged.held_out.column(f.name), f) for f in features}
    rows = {"user": users, "item": items}
    chosen = {f.name: [raw[f.name][i] for i in rows[f.side]] for f in features}
    shaped = kept_steps(chosen, features)
    return {entry.name: as_input(shaped[entry.name], entry) for entry in graph_inputs(features)}


def run(model: bytes, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


@pytest.mark.parametrize("users", [1, 2, 1000])
@pytest.mark.parametrize("candidates", [1, 2, 1000])
def test_graph_scores_like_the_network_at_any_size(users: int, candidates: int, exported: Exported) -> None:
    check, found = exported.check(), exported.prepared
    random = np.random.default_rng(users * candidates)
    encoded = columns_of(found.fitted, found.tensors[TEST])
    raw = {f.name: plain_values(found.staged.held_out.column(f.name), f) for f in found.fitted.features}
    rows = len(found.tensors[TEST])
    chosen = random.integers(rows, size=users), random.integers(rows, size=candidates)
    scores = check.compare(raw, encoded, *chosen, random.integers(users, size=candidates))
    assert 0 <= check.worst <= 1e-6
    assert all(values.shape == (candidates,) for values in scores.values())


def test_scores_are_the_calibrated_logits_of_training(exported: Exported) -> None:
    found = exported.prepared
    tensors, every = found.tensors[TEST], np.arange(len(found.tensors[TEST]))
    answer = run(exported.model, feed(found, every, every) | {ROW_USER: every})
    expected = probabilities(found.run.tasks, predict_logits(exported.ranker, tensors), exported.calibration)
    assert list(answer) == list(expected) == ["pctr", "pcvr", "pctcvr"]
    for name, values in expected.items():
        assert values.std() > 0.05
        assert np.abs(answer[name] - values).max() <= 1e-6


def test_joint_probability_is_the_product(exported: Exported) -> None:
    every = np.arange(len(exported.prepared.tensors[TEST]))
    answer = run(exported.model, feed(exported.prepared, every, every) | {ROW_USER: every})
    assert np.abs(answer["pctcvr"] - answer["pctr"] * answer["pcvr"]).max() <= 1e-7


def test_users_given_once_score_like_users_given_for_each_candidate(exported: Exported) -> None:
    users, items, row_user = np.array([4, 9, 2]), np.arange(50), np.random.default_rng(0).integers(3, size=50)
    once = run(exported.model, feed(exported.prepared, users, items) | {ROW_USER: row_user})
    each = run(exported.model, feed(exported.prepared, users[row_user], items) | {ROW_USER: np.arange(50)})
    for name in once:
        assert np.abs(once[name] - each[name]).max() <= 1e-6
    assert len(np.unique(once["pctr"])) > 40


def test_score_of_a_candidate_does_not_depend_on_the_others(exported: Exported) -> None:
    found, items = exported.prepared, np.arange(40)
    many = run(exported.model, feed(found, np.array([3]), items) | {ROW_USER: np.zeros(40, np.int64)})
    for i in (0, 17, 39):
        one = run(exported.model, feed(found, np.array([3]), items[[i]]) | {ROW_USER: np.zeros(1, np.int64)})
        assert one["pctcvr"][0] == pytest.approx(many["pctcvr"][i], abs=1e-6)


def test_graph_declares_the_inputs_of_the_manifest_and_the_outputs_of_the_tasks(exported: Exported) -> None:
    session = onnxruntime.InferenceSession(exported.model, providers=["CPUExecutionProvider"])
    types = {"string": "tensor(string)", "int64": "tensor(int64)", "float32": "tensor(float)"}
    declared = [
        (entry.name, types[entry.dtype], len(entry.shape)) for entry in graph_inputs(exported.prepared.fitted.features)
    ]
    found = [(entry.name, entry.type, len(entry.shape)) for entry in session.get_inputs()]
    assert found == [*declared, (ROW_USER, "tensor(int64)", 1)]
    assert [(entry.name, entry.type) for entry in session.get_outputs()] == [
        (name, "tensor(float)") for name in ("pctr", "pcvr", "pctcvr")
    ]


def test_inputs_follow_the_features(prepared: small.Prepared) -> None:
    inputs = {entry.name: (entry.dtype, entry.side, entry.shape) for entry in graph_inputs(prepared.fitted.features)}
    assert list(inputs) == [feature.name for feature in prepared.run.features]
    assert inputs["city"] == ("string", "user", ("users",))
    assert inputs["actions"] == ("int64", "user", ("users", "length"))
    assert inputs["shop"] == ("int64", "item", ("candidates",))
    assert inputs["price"] == ("float32", "item", ("candidates",))


def test_graph_is_loadable_by_older_runtimes_and_holds_no_code(exported: Exported) -> None:
    model = onnx.load_from_string(exported.model)
    assert model.ir_version <= 10
    assert {entry.domain: entry.version for entry in model.opset_import} == {
        "": 20,
        "ai.onnx.ml": 3,
        "com.microsoft": 1,
    }
    assert not model.functions
    assert not any(entry.data_location or entry.external_data for entry in model.graph.initializer)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx.ml", "com.microsoft"}
    assert not any(node.op_type in ("Loop", "If", "Scan") for node in model.graph.node)


def texts(message: object) -> Iterator[str]:
    """Every string of a model that is not data."""
    for field, value in message.ListFields():  # type: ignore[attr-defined]
        values = value if field.is_repeated else [value]
        if isinstance(message, AttributeProto) and field.name == "strings":
            continue  # vocabularies
        for part in values:
            if isinstance(part, str):
                yield part
            elif hasattr(part, "ListFields"):
                yield from texts(part)


def test_graph_names_no_path_of_this_machine_and_no_source_line(exported: Exported) -> None:
    project, libraries = Path(__file__).parents[2], Path(torch.__file__).parents[1]
    for forbidden in (str(project), str(libraries), "site-packages", "Traceback", ".py\\", 'File "'):
        assert forbidden.encode() not in exported.model
    found = list(texts(onnx.load_from_string(exported.model)))
    assert len(found) > 50
    assert not [text for text in found if "/" in text or ".py" in text or "\n" in text]
    model = onnx.load_from_string(exported.model)
    assert (model.producer_name, model.producer_version, model.doc_string) == ("fullfunnel", "", "")


def test_embedding_tables_are_in_the_graph_once(exported: Exported) -> None:
    sizes = [len(entry.raw_data) for entry in onnx.load_from_string(exported.model).graph.initializer]
    table = max(parameter.numel() * 4 for parameter in exported.ranker.embeddings.tables.values())
    assert sizes.count(table) == 1


@pytest.mark.parametrize("flat", [False, True])
def test_model_of_items_alone_may_be_flat_or_not(flat: bool, tmp_path: Path) -> None:
    keys = small.document(small.write(tmp_path / "log.parquet", small.columns()))
    keys["features"] = [small.feature(keys, "position"), small.feature(keys, "price")]
    keys["tasks"] = [{"name": "open", "label": "click"}]
    found = small.prepare(keys, tmp_path)
    ranker, tasks = wide_ranker(found.fitted, found.run), found.run.tasks
    model = export_graph(ranker, found.fitted, tasks, identity(tasks), flat=flat)
    every = np.arange(len(found.tensors[TEST]))
    answer = run(model, feed(found, every, every) | ({} if flat else {ROW_USER: np.zeros_like(every)}))
    expected = probabilities(tasks, predict_logits(ranker, found.tensors[TEST]), identity(tasks))
    assert list(answer) == ["p_open"]
    assert np.abs(answer["p_open"] - expected["p_open"]).max() <= 1e-6


def test_served_network_is_flat_or_shared_with_equal_scores(exported: Exported) -> None:
    found = exported.prepared
    encoded = columns_of(found.fitted, found.tensors[TEST])
    inputs = [torch.tensor(encoded[f.name]) for f in found.fitted.features]
    shared, flat = (
        Served(exported.ranker, found.fitted.features, found.run.tasks, exported.calibration, flat=flat).eval()
        for flat in (False, True)
    )
    with torch.no_grad():
        one, other = shared(*inputs, torch.arange(len(inputs[0]))), flat(*inputs)
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(one, other, strict=True))
