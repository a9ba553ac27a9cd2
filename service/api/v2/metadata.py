"""What the protocol says about the server and the model, as plain dictionaries that JSON and protobuf hold alike.

Knows the manifest. Does not know HTTP or gRPC.
"""

from importlib.metadata import version
from typing import Any

from service.api.v2.tensors import ANNOUNCED
from service.scoring.scorer import Scorer

PLATFORM, BACKEND = "onnxruntime_onnx", "onnxruntime"
EXTENSIONS = ("binary_tensor_data", "model_configuration")
FREE = -1  # an axis of any size
# dtype of an input -> its data type in a model's configuration
CONFIGURED = {"string": "TYPE_STRING", "int64": "TYPE_INT64", "float32": "TYPE_FP32"}


def server_metadata() -> dict[str, Any]:
    """Name, version, and the extensions of the protocol that are there."""
    return {"name": "fullfunnel", "version": version("fullfunnel"), "extensions": list(EXTENSIONS)}


def model_metadata(scorer: Scorer) -> dict[str, Any]:
    """The model's name, version, inputs and outputs."""
    manifest = scorer.manifest
    inputs = [
        {"name": entry.name, "datatype": ANNOUNCED[entry.dtype], "shape": [FREE] * len(entry.shape)}
        for entry in scorer.inputs.values()
    ]
    outputs = [{"name": output.name, "datatype": "FP32", "shape": [FREE]} for output in manifest.outputs]
    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": PLATFORM,
        "inputs": inputs,
        "outputs": outputs,
    }


def model_config(scorer: Scorer) -> dict[str, Any]:
    """The same as Triton's model configuration. There is no batch axis of its own: max_batch_size is 0."""
    required = {name for name, feature in scorer.candidates.features.items() if _is_required(feature)}
    required |= {name for name, feature in scorer.users.features.items() if _is_required(feature)}
    return {
        "name": scorer.manifest.name,
        "platform": PLATFORM,
        "backend": BACKEND,
        "max_batch_size": 0,
        "input": [
            {
                "name": entry.name,
                "data_type": CONFIGURED[entry.dtype],
                "dims": [FREE] * len(entry.shape),
                "optional": entry.name not in required,
            }
            for entry in scorer.inputs.values()
        ],
        "output": [
            {"name": output.name, "data_type": "TYPE_FP32", "dims": [FREE]} for output in scorer.manifest.outputs
        ],
    }


def _is_required(feature: Any) -> bool:
    """Whether the model refuses rows without it; sequences may always be empty."""
    return getattr(feature, "missing", None) == "refuse"
