"""The graph's first nodes take raw values to the very rows of the tables that training read."""

from typing import Any

import mmh3
import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from contract.features import FIRST_ROW, INT64_MISSING, MISSING_ROW, STRING_MISSING, UNKNOWN_ROW, Numeric
from contract.features import Sequence as SequenceFeature
from tests.training import reference, small
from tests.training.test_tensors import columns_of
from training.encoders import Fitted
from training.split import TEST
from training.transforms import ML_DOMAIN, ORT_DOMAIN, Transforms, encoded_name

Raw = dict[str, NDArray[Any]]


class Nodes:
    """A graph of nothing but the transforms."""

    def __init__(self, fitted: Fitted) -> None:
        transforms = Transforms(fitted)
        self.features = [f for f in fitted.features if not isinstance(f, Numeric)]
        inputs = []
        for feature in self.features:
            kind = TensorProto.STRING if feature.dtype == "string" else TensorProto.INT64
            shape = ["rows", "length"] if isinstance(feature, SequenceFeature) else ["rows"]
            inputs.append(helper.make_tensor_value_info(feature.name, kind, shape))
        outputs = [helper.make_tensor_value_info(encoded_name(f.name), TensorProto.INT64, None) for f in self.features]
        graph = helper.make_graph(transforms.nodes, "transforms", inputs, outputs, transforms.constants)
        domains = [helper.make_opsetid("", 20), helper.make_opsetid(ML_DOMAIN, 3), helper.make_opsetid(ORT_DOMAIN, 1)]
        model = helper.make_model(graph, opset_imports=domains, ir_version=10)
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def __call__(self, raw: Raw) -> Raw:
        """Each feature's table rows."""
        found = self.session.run(None, raw)
        return {feature.name: rows for feature, rows in zip(self.features, found, strict=True)}

    def raw(self, log: small.Columns, rows: list[int]) -> Raw:
        """Raw values of some rows as the graph takes them."""
        plain = {name: column.to_pylist() for name, column in log.items()}
        found: Raw = {}
        for feature in self.features:
            missing = STRING_MISSING if feature.dtype == "string" else INT64_MISSING
            cells = [[missing if x is None else x for x in reference.cells(plain, feature, row)] for row in rows]
            width = max(1, *map(len, cells)) if isinstance(feature, SequenceFeature) else 1
            padded = np.array([cell + [missing] * (width - len(cell)) for cell in cells])
            values = padded.astype(object) if feature.dtype == "string" else padded
            found[feature.name] = values if isinstance(feature, SequenceFeature) else values[:, 0]
        return found


def assert_equal_to_training(prepared: small.Prepared) -> None:
    """Of all test rows."""
    nodes, tensors = Nodes(prepared.fitted), prepared.tensors[TEST]
    found = nodes(nodes.raw(small.columns(), tensors.row.tolist()))
    expected = columns_of(prepared, tensors)
    for feature in nodes.features:
        rows = expected[feature.name]
        answer = found[feature.name].reshape(len(rows), -1)
        offset = prepared.fitted.tables[feature.share or feature.name].offset
        padded = np.full(rows.shape, offset + MISSING_ROW)
        padded[:, : answer.shape[1]] = answer
        assert np.array_equal(padded, rows), feature.name


def test_raw_values_become_the_rows_that_training_read(prepared: small.Prepared) -> None:
    assert_equal_to_training(prepared)


@pytest.mark.parametrize("feature", small.POLICIES, ids=str)
def test_every_policy_is_in_the_graph(feature: small.Document, tmp_path: Any) -> None:
    run = small.document(small.write(tmp_path / "log.parquet", small.columns()))
    run["features"] = [{"kind": "categorical", "side": "user", **feature}]
    assert_equal_to_training(small.prepare(run, tmp_path))


def test_values_never_seen_have_the_row_their_policy_says(prepared: small.Prepared) -> None:
    nodes, tables = Nodes(prepared.fitted), prepared.fitted.tables
    raw = nodes.raw(small.columns(), [0])
    raw |= {"user_id": np.array(["\x7f never"], object), "shop": np.array([2**62]), "actions": np.array([[2**62]])}
    found = nodes(raw)
    assert found["user_id"] == tables["user_id"].offset + UNKNOWN_ROW
    assert found["shop"] == tables["shop"].offset + MISSING_ROW
    assert found["actions"] == tables["actions"].offset + UNKNOWN_ROW


def test_sequences_may_be_of_any_length_down_to_one_missing_step(prepared: small.Prepared) -> None:
    nodes = Nodes(prepared.fitted)
    raw = nodes.raw(small.columns(), [0, 1])
    known = prepared.fitted.tables["item_id"].vocabulary
    assert known is not None
    for length in (1, 2, 50):
        raw["recent"] = np.full((2, length), STRING_MISSING, object)
        raw["recent"][1, : length - 1] = known[3].as_py()
        offset = prepared.fitted.tables["item_id"].offset
        expected = np.full((2, length), offset + MISSING_ROW)
        expected[1, : length - 1] = offset + FIRST_ROW + 3
        assert np.array_equal(nodes(raw)["recent"], expected)


@pytest.fixture(scope="module")
def twenty(prepared: small.Prepared) -> tuple[Nodes, Raw]:
    """The graph, and the raw values of twenty rows."""
    nodes = Nodes(prepared.fitted)
    return nodes, nodes.raw(small.columns(), list(range(20)))


@given(st.lists(st.text(min_size=1), min_size=20, max_size=20))
@settings(max_examples=50)
def test_any_text_is_hashed_like_in_training(
    prepared: small.Prepared, twenty: tuple[Nodes, Raw], texts: list[str]
) -> None:
    (nodes, raw), table = twenty, prepared.fitted.tables["brand"]
    found = nodes(raw | {"brand": np.array(texts, object)})["brand"]
    assert found.tolist() == [table.offset + FIRST_ROW + mmh3.hash(x.encode(), 0, signed=False) % 16 for x in texts]


@given(st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=20, max_size=20))
@settings(max_examples=50)
def test_any_integer_is_hashed_like_in_training(
    prepared: small.Prepared, twenty: tuple[Nodes, Raw], numbers: list[int]
) -> None:
    (nodes, raw), table = twenty, prepared.fitted.tables["position"]
    found = nodes(raw | {"position": np.array(numbers)})["position"]
    keys = [x.to_bytes(8, "little", signed=True) for x in numbers]
    assert found.tolist() == [table.offset + FIRST_ROW + mmh3.hash(x, 0, signed=False) % 64 for x in keys]
