"""Export: the transforms and the trained network, joined into one ONNX graph.

Knows torch's exporter and the contract's inputs and outputs. Does not know files.
"""

import warnings
from collections.abc import Sequence

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from contract.bundle import Calibration, Input
from contract.features import Feature, Numeric
from contract.features import Sequence as SequenceFeature
from contract.manifest import ROW_USER
from contract.tasks import Task, ancestry, outputs
from models.ranker import Ranker
from training.encoders import Fitted
from training.transforms import ML_DOMAIN, ORT_DOMAIN, Transforms, encoded_name

OPSET = 20
EXAMPLE_USERS, EXAMPLE_CANDIDATES, EXAMPLE_LENGTH = 3, 5, 4  # all different, none 1: nothing may be taken as fixed


class Served(nn.Module):
    """What the bundle computes after the transforms: table rows and numbers in, calibrated probabilities out.

    With `flat`, every candidate brings its own user features, and there is no `row_user`.
    """

    slope: Tensor
    intercept: Tensor

    def __init__(
        self,
        ranker: Ranker,
        features: Sequence[Feature],
        tasks: tuple[Task, ...],
        calibration: Sequence[Calibration],
        flat: bool,
    ) -> None:
        super().__init__()
        self.ranker, self.features, self.flat = ranker, tuple(features), flat
        self.outputs, self.ancestry = outputs(tasks), ancestry(tasks)
        self.index = {task.name: k for k, task in enumerate(tasks)}
        self.register_buffer("slope", torch.tensor([c.slope for c in calibration], dtype=torch.float32)[:, None])
        self.register_buffer(
            "intercept", torch.tensor([c.intercept for c in calibration], dtype=torch.float32)[:, None]
        )

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Each feature's tensor in order, then row_user [N] -> each output [N]."""
        by_name = dict(zip([feature.name for feature in self.features], inputs, strict=False))
        row_user = None if self.flat else inputs[-1]
        numbers = []
        for side in ("user", "item"):
            columns = [by_name[f.name] for f in self.features if isinstance(f, Numeric) and f.side == side]
            numbers.append(torch.cat(columns).view(len(columns), -1).t() if columns else torch.empty(0, 0))
        logits = self.ranker.rank(by_name, numbers[0], numbers[1], row_user)
        # task after task in memory: with rows of two or three, onnxruntime's arithmetic would go row by row
        conditional = torch.sigmoid(logits.t() * self.slope + self.intercept)
        answers = []
        for output in self.outputs:
            chain = self.ancestry[self.index[output.task]]
            answer = conditional[chain[-1]]
            if output.kind == "joint":
                for k in reversed(chain[:-1]):
                    answer = conditional[k] * answer
            answers.append(answer)
        return tuple(answers)


def graph_inputs(features: Sequence[Feature]) -> tuple[Input, ...]:
    """The inputs of the whole graph, in order, `row_user` aside."""
    inputs = []
    for feature in features:
        rows = "users" if feature.side == "user" else "candidates"
        dtype = "float32" if isinstance(feature, Numeric) else feature.dtype
        shape = (rows, "length") if isinstance(feature, SequenceFeature) else (rows,)
        inputs.append(
            Input.model_validate({"name": feature.name, "dtype": dtype, "side": feature.side, "shape": shape})
        )
    return tuple(inputs)


def export_graph(
    ranker: Ranker, fitted: Fitted, tasks: tuple[Task, ...], calibration: Sequence[Calibration], *, flat: bool = False
) -> bytes:
    """The bundle's model.onnx: raw strings and numbers in, probabilities out."""
    served = Served(ranker, fitted.features, tasks, calibration, flat).eval()
    core = _export_core(served)
    transforms = Transforms(fitted)
    graph = core.graph
    nodes = [*transforms.nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(transforms.constants)
    declared = [_declare(entry, flat) for entry in graph_inputs(fitted.features)]
    if not flat:
        declared.append(helper.make_tensor_value_info(ROW_USER, TensorProto.INT64, ["candidates"]))
    del graph.input[:]
    graph.input.extend(declared)
    del graph.value_info[:]
    del core.opset_import[:]
    core.opset_import.extend(
        [helper.make_opsetid("", OPSET), helper.make_opsetid(ML_DOMAIN, 3), helper.make_opsetid(ORT_DOMAIN, 1)]
    )
    core.producer_name, core.producer_version = "fullfunnel", ""
    _forget_origins(core)
    onnx.checker.check_model(core, full_check=False)
    return bytes(core.SerializeToString(deterministic=True))


def _export_core(served: Served) -> onnx.ModelProto:
    """Export the network with every size free: users, candidates, and each sequence's length."""
    rows = {"user": torch.export.Dim("users"), "item": torch.export.Dim("candidates")}
    sizes = {"user": EXAMPLE_USERS, "item": EXAMPLE_CANDIDATES}
    if served.flat:
        rows["user"], sizes["user"] = rows["item"], EXAMPLE_CANDIDATES
    examples: list[Tensor] = []
    names: list[str] = []
    shapes: list[dict[int, object]] = []
    for number, feature in enumerate(served.features):
        size = sizes[feature.side]
        if isinstance(feature, Numeric):
            examples.append(torch.zeros(size))
            names.append(feature.name)
            shapes.append({0: rows[feature.side]})
            continue
        is_sequence = isinstance(feature, SequenceFeature)
        examples.append(torch.zeros((size, EXAMPLE_LENGTH) if is_sequence else (size,), dtype=torch.int64))
        names.append(encoded_name(feature.name))
        length = {1: torch.export.Dim(f"length{number}")} if is_sequence else {}
        shapes.append({0: rows[feature.side], **length})
    if not served.flat:
        examples.append(torch.zeros(EXAMPLE_CANDIDATES, dtype=torch.int64))
        names.append(ROW_USER)
        shapes.append({0: rows["item"]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program = torch.onnx.export(
            served,
            tuple(examples),
            input_names=names,
            output_names=[output.name for output in served.outputs],
            dynamic_shapes=(tuple(shapes),),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    return program.model_proto


def _declare(entry: Input, flat: bool) -> onnx.ValueInfoProto:
    kinds = {"string": TensorProto.STRING, "int64": TensorProto.INT64, "float32": TensorProto.FLOAT}
    shape = [f"{entry.name} {part}" if part == "length" else "candidates" if flat else part for part in entry.shape]
    return helper.make_tensor_value_info(entry.name, kinds[entry.dtype], shape)


def _forget_origins(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes of its own run: source lines with this machine's paths, in every node."""
    del model.metadata_props[:]
    model.doc_string = ""
    for part in (model.graph, *model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
