"""From raw strings and integers to rows of the tables, as ONNX nodes: what makes a bundle self-contained.

Knows fitted vocabularies and hashes, and the operators that look them up. Does not know the network. Numbers
need no node here: their encodings are part of the network (`models.numbers`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from contract.features import (
    FIRST_ROW,
    INT64_MISSING,
    STRING_MISSING,
    UNKNOWN_ROW,
    Categorical,
    Numeric,
    owner,
)
from contract.features import Sequence as SequenceFeature
from training.encoders import Fitted, Table, default_row

ML_DOMAIN, ORT_DOMAIN = "ai.onnx.ml", "com.microsoft"


class Transforms:
    """Nodes and constants that take each feature's raw input to the core's input of `encoded_name`."""

    def __init__(self, fitted: Fitted) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        for number, feature in enumerate(fitted.features):
            if not isinstance(feature, Numeric):
                self._add(f"encode{number}", feature, fitted.tables[owner(feature)])

    def _add(self, prefix: str, feature: Categorical | SequenceFeature, table: Table) -> None:
        missing = table.offset + default_row(feature, table)
        if table.vocabulary is None:
            self._hash(prefix, feature.name, table, missing)
            return
        unknown = table.offset + UNKNOWN_ROW
        if isinstance(feature, Categorical) and feature.unknown == "missing":
            unknown = missing
        rows = table.offset + FIRST_ROW + np.arange(len(table.vocabulary))
        keys = [*table.vocabulary.to_pylist(), STRING_MISSING if table.dtype == "string" else INT64_MISSING]
        self._look_up(feature.name, encoded_name(feature.name), keys, [*rows.tolist(), missing], unknown)

    def _look_up(self, source: str, target: str, keys: Sequence[object], rows: list[int], default: int) -> None:
        kind = "keys_strings" if isinstance(keys[0], str) else "keys_int64s"
        attributes = {kind: keys, "values_int64s": rows, "default_int64": default}
        self._node("LabelEncoder", [source], target, domain=ML_DOMAIN, **attributes)

    def _hash(self, prefix: str, source: str, table: Table, missing: int) -> None:
        """FIRST_ROW + murmur3(value) mod buckets, where there is a value."""
        sentinel = STRING_MISSING if table.dtype == "string" else INT64_MISSING
        kind = object if table.dtype == "string" else np.int64
        self._node("MurmurHash3", [source], f"{prefix}.hash", domain=ORT_DOMAIN, positive=1, seed=0)
        self._node("Cast", [f"{prefix}.hash"], f"{prefix}.wide", to=TensorProto.INT64)
        buckets = self._constant(f"{prefix}.buckets", table.rows - FIRST_ROW)
        self._node("Mod", [f"{prefix}.wide", buckets], f"{prefix}.bucket")
        first = self._constant(f"{prefix}.first", table.offset + FIRST_ROW)
        self._node("Add", [f"{prefix}.bucket", first], f"{prefix}.row")
        no_value = self._constant(f"{prefix}.no_value", sentinel, kind)
        self._node("Equal", [source, no_value], f"{prefix}.is_missing")
        default = self._constant(f"{prefix}.default", missing)
        self._node("Where", [f"{prefix}.is_missing", default, f"{prefix}.row"], encoded_name(source))

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        domain = str(attributes.pop("domain", ""))
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, domain=domain, **attributes))

    def _constant(self, name: str, value: object, kind: type = np.int64) -> str:
        self.constants.append(numpy_helper.from_array(np.array(value, kind), name))
        return name


def encoded_name(feature: str) -> str:
    """Name of the core's input that takes a feature's table rows."""
    return f"[{feature}]"  # no feature's name holds a bracket
