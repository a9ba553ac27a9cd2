"""Large tables given to each run: the same scores, and one copy in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from service.scoring.scorer import Scorer
from service.scoring.session import MIN_TABLE_BYTES, Session
from service.scoring.settings import ScoringSettings
from service.scoring.tables import without_tables
from tests.service.toy_bundle import WEIGHTS, damaged, publish_toy, toy_golden, toy_model

TABLES = {"t_user", "t_city", "t_item", "t_action", "t_category"}


def cut(model: onnx.ModelProto, min_bytes: int = 1) -> tuple[onnx.ModelProto, dict[str, Any]]:
    content, tables = without_tables(model.SerializeToString(), min_bytes)
    return onnx.load_from_string(content), tables


def test_tables_become_inputs_and_nothing_else_changes() -> None:
    model, tables = cut(toy_model())
    assert set(tables) == TABLES
    for name, values in tables.items():
        assert np.array_equal(values, WEIGHTS[name]) and not values.flags.owndata
    before = toy_model().graph
    assert [*model.graph.node] == [*before.node]
    assert [*model.graph.initializer] == [t for t in before.initializer if t.name not in TABLES]
    added = {port.name: port.type.tensor_type for port in model.graph.input if port.name in TABLES}
    assert {name: [dim.dim_value for dim in kind.shape.dim] for name, kind in added.items()} == {
        name: [*WEIGHTS[name].shape] for name in TABLES
    }
    assert {port.name for port in model.graph.input} - TABLES == {port.name for port in before.input}
    onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_small_tables_stay() -> None:
    model, tables = cut(toy_model(), min_bytes=2**20)
    assert model == toy_model() and not tables


def also_read_otherwise(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Shape", ["t_city"], ["shape"]))


def also_an_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("t_city", onnx.TensorProto.FLOAT, [4, 2]))


def in_another_field(model: onnx.ModelProto) -> None:
    table = next(t for t in model.graph.initializer if t.name == "t_city")
    values = numpy_helper.to_array(table)
    table.CopyFrom(helper.make_tensor("t_city", onnx.TensorProto.FLOAT, values.shape, values.ravel().tolist()))


def of_doubles(model: onnx.ModelProto) -> None:
    table = next(t for t in model.graph.initializer if t.name == "t_city")
    table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table).astype(np.float64), "t_city"))


@pytest.mark.parametrize("change", [also_read_otherwise, also_an_input, in_another_field, of_doubles])
def test_what_is_more_or_other_than_a_table_stays(change: Any) -> None:
    model = toy_model()
    change(model)
    found, tables = cut(model)
    assert "t_city" not in tables
    assert "t_city" in [tensor.name for tensor in found.graph.initializer]


def test_no_damaged_model_breaks_the_reader() -> None:
    for content in damaged(toy_model().SerializeToString(), 1000):
        found, tables = without_tables(content, 1)
        assert isinstance(found, bytes) and isinstance(tables, dict)


@pytest.mark.parametrize("shift", range(4))
def test_a_service_with_a_large_table_scores_as_before_wherever_it_lies(tmp_path: Path, shift: int) -> None:
    model = toy_model()
    model.doc_string = "x" * (8 + shift)  # stands before the table: one of the four is where processors like a float
    table = next(t for t in model.graph.initializer if t.name == "t_city")
    rows = numpy_helper.to_array(table)
    more = np.zeros((MIN_TABLE_BYTES // rows[0].nbytes + 1, rows.shape[1]), np.float32)
    table.CopyFrom(numpy_helper.from_array(np.concatenate([rows, more]), "t_city"))
    publish_toy(tmp_path / "toy", model=model.SerializeToString())
    scorer = Scorer.load(tmp_path / "toy")  # golden rows and all
    assert set(scorer.session._tables) == {"t_city"} and "t_city" not in scorer.session.inputs
    rows_ = toy_golden().rows
    found = scorer.score(rows_.user, rows_.candidates, np.array(rows_.row_user))
    for name, expected in toy_golden().scores.items():
        assert np.allclose(found[name], expected, atol=1e-6)


def test_a_session_of_small_tables_gives_none_to_its_runs() -> None:
    assert not Session(toy_model().SerializeToString(), ScoringSettings())._tables
