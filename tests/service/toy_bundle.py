"""A small real bundle, made without torch: every kind of feature, on both sides, in a graph of a few operators.

`reference` computes the same scores row by row in numpy, so that golden rows and tests do not rest on the scorer.
"""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mmh3
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from contract.bundle import (
    CARD,
    GOLDEN,
    MODEL,
    Bundle,
    Calibration,
    Golden,
    Input,
    Manifest,
    Metric,
    Provenance,
    Reference,
    Rows,
    publish_bundle,
)
from contract.features import INT64_MISSING, Categorical, Feature, Numeric, Sequence
from contract.tasks import CLICK_AND_CONVERSION, outputs

FEATURES: tuple[Feature, ...] = (
    Categorical(name="user_id", side="user", dtype="string", dim=2, buckets=8),
    Categorical(name="city", side="user", dtype="string", dim=2),
    Numeric(name="age", side="user"),
    Sequence(name="recent_items", side="user", dtype="string", dim=3, share="item_id", max_length=4),
    Sequence(name="recent_actions", side="user", dtype="string", dim=1, max_length=4, along="recent_items"),
    Categorical(name="item_id", side="item", dtype="string", dim=3, missing="refuse"),
    Categorical(name="category", side="item", dtype="int64", dim=2),
    Numeric(name="price", side="item", missing="default", default=10.0),
    Sequence(name="tags", side="item", dtype="int64", dim=2, share="category", max_length=3),
)
CITIES, ITEMS, ACTIONS, CATEGORIES = (
    ("Berlin", "Shanghai"),
    ("i1", "i2", "i3", "i4", "i5", "i6"),
    ("view", "buy"),
    (1, 2, 3),
)

_random = np.random.default_rng(7)


def _weights(*shape: int) -> NDArray[np.float32]:
    return _random.normal(0, 0.7, shape).astype(np.float32)


WEIGHTS = {
    "t_user": _weights(10, 2),
    "t_city": _weights(4, 2),
    "t_item": _weights(8, 3),
    "t_action": _weights(4, 1),
    "t_category": _weights(5, 2),
    "w_user": _weights(9, 4),
    "w_item": _weights(8, 4),
    "bias": _weights(4),
    "v": _weights(4, 2),
    "c": np.array([-1.0, -1.5], dtype=np.float32),
}
Table = Mapping[str, Any]


def reference(users: Table, candidates: Table, row_user: list[int]) -> dict[str, list[float]]:
    """Scores of each candidate, one row at a time."""
    scores: dict[str, list[float]] = {"pctr": [], "pcvr": [], "pctcvr": []}
    for row, user in enumerate(row_user):
        person = _user({name: column[user] for name, column in users.items()})
        item = _item({name: column[row] for name, column in candidates.items()})
        hidden = np.tanh(person @ WEIGHTS["w_user"] + item @ WEIGHTS["w_item"] + WEIGHTS["bias"])
        pctr, pcvr = 1 / (1 + np.exp(-(hidden @ WEIGHTS["v"] + WEIGHTS["c"])))
        for name, value in (("pctr", pctr), ("pcvr", pcvr), ("pctcvr", pctr * pcvr)):
            scores[name].append(float(value))
    return scores


def _user(row: Table) -> NDArray[np.float64]:
    user_id, age = row.get("user_id"), row.get("age")
    hashed = mmh3.hash(user_id, 0, signed=False) % 8 + 2 if user_id else 0
    steps = [
        (item, action)
        for item, action in zip(row.get("recent_items") or [], row.get("recent_actions") or [], strict=True)
        if item
    ][-4:]
    pooled = np.zeros(3)
    for item, action in steps:
        pooled += WEIGHTS["t_item"][_row(item, ITEMS)] * (1 + WEIGHTS["t_action"][_row(action, ACTIONS)])
    number = [0.0, 1.0] if age is None else [min(max(age, 0), 100) / 100, 0.0]
    return np.concatenate([WEIGHTS["t_user"][hashed], WEIGHTS["t_city"][_row(row.get("city"), CITIES)], number, pooled])


def _item(row: Table) -> NDArray[np.float64]:
    price = row.get("price")
    tags = [tag for tag in row.get("tags") or [] if tag is not None][-3:]
    pooled = sum((WEIGHTS["t_category"][_row(tag, CATEGORIES)] for tag in tags), np.zeros(2))
    number = [np.log(1 + min(max(10.0 if price is None else price, 0), 1e6))]
    category = WEIGHTS["t_category"][_row(row.get("category"), CATEGORIES)]
    return np.concatenate([WEIGHTS["t_item"][_row(row["item_id"], ITEMS)], category, pooled, number])


def _row(value: Any, vocabulary: tuple[Any, ...]) -> int:
    if value is None or value == "":
        return 0
    return vocabulary.index(value) + 2 if value in vocabulary else 1


GOLDEN_ROWS = Rows(
    user={
        "user_id": ["u1", None, "u3"],
        "city": ["Shanghai", "Atlantis", None],
        "age": [31, None, 77.5],
        "recent_items": [["i4", "i2"], [], ["i1", None, "i9", "i2", "i3", "i5"]],
        "recent_actions": [["view", "buy"], None, ["view", "buy", None, "view", "stare", "buy"]],
    },
    candidates={
        "item_id": ["i1", "i2", "i6", "new", "i3", "i1"],
        "category": [1, 2, None, 9, 3, 1],
        "price": [9.9, 120.0, None, 0, 1e9, 15],
        "tags": [[1, 2], [], None, [3, None, 1, 2, 9], [2], [1]],
    },
    row_user=[0, 0, 0, 1, 2, 2],
)


def toy_model() -> onnx.ModelProto:
    """The graph."""
    nodes = [
        *_user_nodes(),
        *_item_nodes(),
        helper.make_node("Gather", ["user_hidden", "row_user"], ["user_rows"], axis=0),
        helper.make_node("Add", ["user_rows", "item_hidden"], ["joined"]),
        helper.make_node("Tanh", ["joined"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "v", "c"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["p"]),
        helper.make_node("Gather", ["p", "zero"], ["pctr"], axis=1),
        helper.make_node("Gather", ["p", "one"], ["pcvr"], axis=1),
        helper.make_node("Mul", ["pctr", "pcvr"], ["pctcvr"]),
    ]
    constants = {
        "zero": np.int64(0),
        "one": np.int64(1),
        "two": np.int64(2),
        "eight": np.int64(8),
        "last": np.array([-1]),
        "steps": np.array([1]),
        "0f": np.float32(0),
        "1f": np.float32(1),
        "10f": np.float32(10),
        "100f": np.float32(100),
        "1e6f": np.float32(1e6),
    }
    initializers = [
        numpy_helper.from_array(np.asarray(array), name) for name, array in {**WEIGHTS, **constants}.items()
    ]
    types = {"string": TensorProto.STRING, "int64": TensorProto.INT64, "float32": TensorProto.FLOAT}
    graph = helper.make_graph(
        nodes,
        "toy",
        [
            *(helper.make_tensor_value_info(x.name, types[x.dtype], list(x.shape)) for x in toy_inputs()),
            helper.make_tensor_value_info("row_user", TensorProto.INT64, ["candidates"]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["candidates"]) for name in ("pctr", "pcvr", "pctcvr")],
        initializers,
    )
    opsets = [
        helper.make_opsetid("", 20),
        helper.make_opsetid("ai.onnx.ml", 4),
        helper.make_opsetid("com.microsoft", 1),
    ]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _user_nodes() -> list[onnx.NodeProto]:
    return [
        helper.make_node("MurmurHash3", ["user_id"], ["hash32"], domain="com.microsoft", seed=0, positive=1),
        helper.make_node("Cast", ["hash32"], ["hash64"], to=TensorProto.INT64),
        helper.make_node("Mod", ["hash64", "eight"], ["bucket"]),
        helper.make_node("Add", ["bucket", "two"], ["bucket_row"]),
        helper.make_node(
            "LabelEncoder",
            ["user_id"],
            ["has_id"],
            domain="ai.onnx.ml",
            keys_strings=[""],
            values_int64s=[0],
            default_int64=1,
        ),
        helper.make_node("Mul", ["bucket_row", "has_id"], ["user_row"]),
        helper.make_node("Gather", ["t_user", "user_row"], ["user_vector"]),
        _strings("city", CITIES),
        helper.make_node("Gather", ["t_city", "city_row"], ["city_vector"]),
        *_number("age", "0f", "100f"),
        helper.make_node("Div", ["age_clipped", "100f"], ["age_scaled"]),
        helper.make_node("Unsqueeze", ["age_scaled", "last"], ["age_vector"]),
        helper.make_node("Cast", ["age_missing"], ["age_missing_f"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["age_missing_f", "last"], ["age_indicator"]),
        _strings("recent_items", ITEMS),
        _strings("recent_actions", ACTIONS),
        helper.make_node("Gather", ["t_action", "recent_actions_row"], ["action_vectors"]),
        helper.make_node("Add", ["action_vectors", "1f"], ["action_weights"]),
        *_pooled("recent_items", "t_item", "action_weights"),
        helper.make_node(
            "Concat",
            ["user_vector", "city_vector", "age_vector", "age_indicator", "recent_items_vector"],
            ["user"],
            axis=1,
        ),
        helper.make_node("MatMul", ["user", "w_user"], ["user_hidden"]),
    ]


def _item_nodes() -> list[onnx.NodeProto]:
    return [
        _strings("item_id", ITEMS),
        helper.make_node("Gather", ["t_item", "item_id_row"], ["item_vector"]),
        _integers("category"),
        helper.make_node("Gather", ["t_category", "category_row"], ["category_vector"]),
        _integers("tags"),
        *_pooled("tags", "t_category", "1f"),
        *_number("price", "10f", "1e6f"),
        helper.make_node("Add", ["price_clipped", "1f"], ["price_1"]),
        helper.make_node("Log", ["price_1"], ["price_log"]),
        helper.make_node("Unsqueeze", ["price_log", "last"], ["price_vector"]),
        helper.make_node("Concat", ["item_vector", "category_vector", "tags_vector", "price_vector"], ["item"], axis=1),
        helper.make_node("Gemm", ["item", "w_item", "bias"], ["item_hidden"]),
    ]


def _strings(name: str, vocabulary: tuple[str, ...]) -> onnx.NodeProto:
    rows = [0, *range(2, len(vocabulary) + 2)]
    keys = ["", *vocabulary]
    return helper.make_node(
        "LabelEncoder",
        [name],
        [f"{name}_row"],
        domain="ai.onnx.ml",
        keys_strings=keys,
        values_int64s=rows,
        default_int64=1,
    )


def _integers(name: str) -> onnx.NodeProto:
    keys, rows = [INT64_MISSING, *CATEGORIES], [0, 2, 3, 4]
    return helper.make_node(
        "LabelEncoder",
        [name],
        [f"{name}_row"],
        domain="ai.onnx.ml",
        keys_int64s=keys,
        values_int64s=rows,
        default_int64=1,
    )


def _number(name: str, fill: str, largest: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("IsNaN", [name], [f"{name}_missing"]),
        helper.make_node("Where", [f"{name}_missing", fill, name], [f"{name}_filled"]),
        helper.make_node("Clip", [f"{name}_filled", "0f", largest], [f"{name}_clipped"]),
    ]


def _pooled(name: str, table: str, weights: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Greater", [f"{name}_row", "zero"], [f"{name}_real"]),
        helper.make_node("Cast", [f"{name}_real"], [f"{name}_mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", [f"{name}_mask", "last"], [f"{name}_mask_3d"]),
        helper.make_node("Gather", [table, f"{name}_row"], [f"{name}_steps"]),
        helper.make_node("Mul", [f"{name}_steps", weights], [f"{name}_weighted"]),
        helper.make_node("Mul", [f"{name}_weighted", f"{name}_mask_3d"], [f"{name}_masked"]),
        helper.make_node("ReduceSum", [f"{name}_masked", "steps"], [f"{name}_vector"], keepdims=0),
    ]


def toy_inputs() -> tuple[Input, ...]:
    """The graph's inputs but row_user."""
    found = []
    for feature in FEATURES:
        rows = "users" if feature.side == "user" else "candidates"
        dtype = "float32" if isinstance(feature, Numeric) else feature.dtype
        shape = [rows, "length"] if isinstance(feature, Sequence) else [rows]
        found.append(Input.model_validate({"name": feature.name, "dtype": dtype, "side": feature.side, "shape": shape}))
    return tuple(found)


def toy_manifest(**changes: Any) -> Manifest:
    """The manifest, before files are listed."""
    facts: dict[str, Any] = {
        "format_version": 1,
        "name": "toy",
        "version": "1",
        "tasks": CLICK_AND_CONVERSION,
        "features": FEATURES,
        "inputs": toy_inputs(),
        "outputs": outputs(CLICK_AND_CONVERSION),
        "architecture": "shared_bottom",
        "parameters": int(sum(array.size for array in WEIGHTS.values())),
        "calibration": (Calibration(task="click", slope=1.0, intercept=0.0),),
        "reference": Reference(rows=6),
        "metrics": (Metric(name="auc", output="pctr", rows="all", value=0.71, low=0.69, high=0.73),),
        "parity": 1e-7,
        "provenance": Provenance(run={"name": "toy"}, seed=7, libraries={"onnx": "1"}, data_fingerprint="none"),
    }
    return Manifest(**{**facts, **changes})


def toy_golden(**changes: Any) -> Golden:
    """Golden rows with the scores of `reference`."""
    rows = GOLDEN_ROWS
    scores = reference(rows.user, rows.candidates, rows.row_user)
    return Golden(**{"rows": rows, "scores": scores, **changes})


def publish_toy(
    directory: Path, *, model: bytes | None = None, manifest: Manifest | None = None, golden: Golden | None = None
) -> Bundle:
    """Publish the bundle, or one that differs from it in a part."""
    files = {
        MODEL: toy_model().SerializeToString(deterministic=True) if model is None else model,
        GOLDEN: (golden or toy_golden()).model_dump_json().encode(),
        CARD: b"<!doctype html><title>toy</title>",
    }
    return publish_bundle(directory, manifest or toy_manifest(), files)


def damaged(content: bytes, count: int) -> Iterator[bytes]:
    """Copies with up to three bytes changed, cut off anywhere."""
    rng = random.Random(3)
    for _ in range(count):
        copy = bytearray(content)
        for _ in range(rng.randrange(1, 4)):
            copy[rng.randrange(len(copy))] = rng.randrange(256)
        yield bytes(copy[: rng.randrange(1, len(copy) + 1)])
