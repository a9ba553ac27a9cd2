"""The check before publishing passes what is right and catches each fault that is planted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from contract.bundle import Input
from contract.errors import ParityBroken
from contract.features import INT64_MISSING, Categorical, Feature, Numeric
from contract.features import Sequence as SequenceFeature
from tests.training import small
from tests.training.conftest import Exported, wide_ranker
from training.calibration import identity
from training.export import Served, export_graph
from training.parity import (
    EDGE_ROWS,
    NEVER_SEEN,
    TOLERANCE,
    Check,
    as_input,
    check_parity,
    columns_of,
    difference,
    edges,
    encode_values,
    kept_steps,
    plain_values,
)
from training.split import TEST

STEPS = SequenceFeature(name="x", side="user", dtype="string", max_length=2)
ALONG = SequenceFeature(name="y", side="user", dtype="int64", max_length=2, along="x")


def raw_rows(found: small.Prepared) -> dict[str, list[Any]]:
    return {f.name: plain_values(found.staged.held_out.column(f.name), f) for f in found.fitted.features}


def test_right_graph_passes_and_gives_golden_rows(exported: Exported) -> None:
    found, check = exported.prepared, exported.check()
    golden = check_parity(check, found.staged.held_out, found.tensors[TEST], seed=0)
    assert 0 < check.worst <= TOLERANCE
    rows = golden.rows
    assert rows.row_user == list(range(64))
    assert list(golden.scores) == ["pctr", "pcvr", "pctcvr"]
    assert all(len(values) == 64 for values in golden.scores.values())
    assert {*rows.user, *rows.candidates} == {feature.name for feature in found.run.features}
    assert list(rows.user) == [feature.name for feature in found.run.features if feature.side == "user"]
    assert any(None in column for column in rows.user.values())
    assert max(len(steps) for steps in rows.user["recent"]) > 3  # as a client would send them, not cut


def swap_vocabulary_rows(model: ModelProto) -> None:
    """Two items change places, as when a vocabulary is sorted anew."""
    node = next(node for node in model.graph.node if node.op_type == "LabelEncoder" and node.input[0] == "item_id")
    keys = next(attribute for attribute in node.attribute if attribute.name == "keys_strings")
    keys.strings[0], keys.strings[1] = keys.strings[1], keys.strings[0]


def unknown_as_missing(model: ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "LabelEncoder" and node.input[0] == "user_id")
    default = next(attribute for attribute in node.attribute if attribute.name == "default_int64")
    default.i -= 1


def seed_of_hash(model: ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "MurmurHash3")
    next(attribute for attribute in node.attribute if attribute.name == "seed").i = 1


def drop_missing_key(model: ModelProto) -> None:
    """The empty string becomes just another unknown value."""
    node = next(node for node in model.graph.node if node.op_type == "LabelEncoder" and node.input[0] == "city")
    for attribute in node.attribute:
        del attribute.strings[-1:]
        del attribute.ints[-1:]


def nudge_weight(model: ModelProto) -> None:
    """One number of the largest matrix moves by a thousandth."""
    largest = max(model.graph.initializer, key=lambda entry: len(entry.raw_data))
    values = numpy_helper.to_array(largest).copy()
    values.flat[:] += np.float32(1e-3)
    largest.CopyFrom(numpy_helper.from_array(values, largest.name))


def swap_outputs(model: ModelProto) -> None:
    first, second = model.graph.output[0].name, model.graph.output[1].name
    renamed = {first: second, second: first}
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = renamed.get(name, name)


@pytest.mark.parametrize(
    "plant", [swap_vocabulary_rows, unknown_as_missing, seed_of_hash, drop_missing_key, nudge_weight, swap_outputs]
)
def test_fault_in_the_graph_is_caught(plant: Callable[[ModelProto], None], exported: Exported) -> None:
    model = onnx.load_from_string(exported.model)
    plant(model)
    check, found = exported.check(model.SerializeToString()), exported.prepared
    with pytest.raises(ParityBroken, match=r"the graph differs from the network by [\d.]+e") as caught:
        check_parity(check, found.staged.held_out, found.tensors[TEST], seed=0)
    assert caught.value.place.startswith("output 'p")
    assert "bug of the export" in caught.value.remedy


@pytest.mark.parametrize(("part", "value"), [("slope", 1.5001), ("intercept", -0.4999)])
def test_wrong_calibration_is_caught(part: str, value: float, exported: Exported) -> None:
    click, conversion = exported.calibration
    check, found = exported.check(calibration=(click.model_copy(update={part: value}), conversion)), exported.prepared
    with pytest.raises(ParityBroken):
        check_parity(check, found.staged.held_out, found.tensors[TEST], seed=0)


def test_rows_that_training_encoded_otherwise_are_caught(exported: Exported) -> None:
    found = exported.prepared
    tensors = found.tensors[TEST].take(slice(None))
    tensors.ids[4][7, 0] += 1
    with pytest.raises(ParityBroken):
        check_parity(exported.check(), found.staged.held_out, tensors, seed=0)


def test_difference_is_the_largest_one() -> None:
    left = np.array([0.5, 0.25], np.float32)
    assert difference(left, left, "here") == 0.0
    assert difference(left, left + np.float32(5e-7), "here") == pytest.approx(5e-7, rel=0.2)
    with pytest.raises(ParityBroken, match=r"by 1\.\de-05, which is more than 1e-06") as caught:
        difference(left, left + np.float32(1.1e-5), "here")
    assert caught.value.place == "here"


@pytest.mark.parametrize("right", [[0.5], [0.5, float("nan")], [0.5, float("inf")]])
def test_other_shapes_and_scores_that_are_no_numbers_are_caught(right: list[float]) -> None:
    with pytest.raises(ParityBroken, match="the shapes differ, or a score is not finite"):
        difference(np.array([0.5, 0.25], np.float32), np.array(right, np.float32), "here")


def test_training_columns_come_apart_by_feature(prepared: small.Prepared) -> None:
    columns, tensors = columns_of(prepared.fitted, prepared.tensors[TEST]), prepared.tensors[TEST]
    assert set(columns) == {feature.name for feature in prepared.run.features}
    assert columns["recent"].shape == (len(tensors), 3)
    assert columns["item_id"].shape == columns["price"].shape == (len(tensors),)
    price = np.array(small.columns()["price"].to_pylist(), np.float32)[tensors.row]
    assert np.array_equal(columns["price"], price)


def test_values_are_encoded_like_training_encoded_them(prepared: small.Prepared) -> None:
    features = prepared.fitted.features
    raw, columns = kept_steps(raw_rows(prepared), features), columns_of(prepared.fitted, prepared.tensors[TEST])
    for feature in features:
        found = encode_values(raw[feature.name], feature, prepared.fitted)
        assert np.array_equal(found, columns[feature.name], equal_nan=True), feature.name


@pytest.mark.parametrize(
    ("column", "feature", "values"),
    [
        (pa.array([1.5, None, float("nan")]), Numeric(name="x", side="user"), [1.5, None, None]),
        (pa.array([0.1], pa.float64()), Numeric(name="x", side="user"), [float(np.float32(0.1))]),
        (pa.array([True, None]), Numeric(name="x", side="user"), [1.0, None]),
        (pa.array(["a", "", None]), Categorical(name="x", side="user", dtype="string"), ["a", None, None]),
        (pa.array([True, None]), Categorical(name="x", side="user", dtype="string"), ["true", None]),
        (pa.array([5.0, None]), Categorical(name="x", side="user", dtype="string"), ["5", None]),
        (pa.array([5.0, float("nan")]), Categorical(name="x", side="user", dtype="int64"), [5, None]),
        (pa.array([INT64_MISSING, 1]), Categorical(name="x", side="user", dtype="int64"), [None, 1]),
        (pa.array([["a", None, ""], None, []]), STEPS, [["a", None, None], [], []]),
        (pa.array([[True], [False]]), STEPS, [["true"], ["false"]]),
        (pa.array([[1.0, float("nan")]]), ALONG, [[1, None]]),
    ],
)
def test_raw_values_are_what_a_request_would_hold(column: pa.Array, feature: Feature, values: list[Any]) -> None:
    found = plain_values(pa.chunked_array([column.slice(0, 1), column.slice(1)]), feature)
    assert found == values
    assert [type(x) for x in found] == [type(x) for x in values]


def test_last_steps_that_are_there_are_kept_and_those_along_with_them() -> None:
    raw = {"x": [["a", None, "b", "c"], [], [None]], "y": [[1, 2, None, 4], [], [5]]}
    assert kept_steps(raw, (STEPS, ALONG)) == {"x": [["b", "c"], [], []], "y": [[None, 4], [], []]}


@pytest.mark.parametrize(
    ("entry", "values", "expected"),
    [
        (("string", ("users",)), ["a", None], np.array(["a", ""], object)),
        (("int64", ("users",)), [3, None], np.array([3, INT64_MISSING])),
        (("float32", ("users",)), [3.0, None], np.array([3, np.nan], np.float32)),
        (("string", ("users", "length")), [["a", "b"], []], np.array([["a", "b"], ["", ""]], object)),
        (("int64", ("users", "length")), [[], []], np.full((2, 1), INT64_MISSING)),
        (("int64", ("users", "length")), [[1, None, 3]], np.array([[1, INT64_MISSING, 3]])),
    ],
)
def test_missing_values_and_padding_are_the_sentinels(
    entry: tuple[str, tuple[str, ...]], values: list[Any], expected: NDArray[Any]
) -> None:
    dtype, shape = entry
    found = as_input(values, Input.model_validate({"name": "x", "dtype": dtype, "side": "user", "shape": shape}))
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected, equal_nan=dtype == "float32")


def test_edge_rows_hold_missing_unknown_empty_and_full_values(prepared: small.Prepared) -> None:
    features = prepared.fitted.features
    found = edges(raw_rows(prepared), features, np.random.default_rng(0))
    for feature in features:
        column = found[feature.name]
        assert len(column) == EDGE_ROWS
        if isinstance(feature, SequenceFeature):
            lengths = [len(steps) for steps in column]
            assert min(lengths) == 0
            assert max(lengths) > feature.max_length
            assert any(NEVER_SEEN[feature.dtype or ""] in steps for steps in column)
        else:
            unknown = NEVER_SEEN.get("" if isinstance(feature, Numeric) else feature.dtype or "", max)
            assert 100 < column.count(None) < 500
            assert isinstance(feature, Numeric) or 100 < column.count(unknown) < 250
    assert [len(steps) for steps in found["recent"]] == [len(steps) for steps in found["actions"]]


def test_network_that_reads_a_sequence_step_by_step_passes_with_empty_and_full_ones(tmp_path: Path) -> None:
    keys = small.document(small.write(tmp_path / "log.parquet", small.columns()))
    keys["model"] = {"architecture": "dupn", "sequence": "recent", "hidden": 8, "tower": [8]}
    found = small.prepare(keys, tmp_path)
    ranker, tasks = wide_ranker(found.fitted, found.run), found.run.tasks
    model = export_graph(ranker, found.fitted, tasks, identity(tasks))
    check = Check(model, Served(ranker, found.fitted.features, tasks, identity(tasks), flat=False), found.fitted)
    check_parity(check, found.staged.held_out, found.tensors[TEST], seed=0)
    assert 0 < check.worst <= TOLERANCE
    assert [node.op_type for node in onnx.load_from_string(model).graph.node].count("LSTM") == 1
