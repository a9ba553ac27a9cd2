"""model.onnx as a running session.

Knows onnxruntime. Does not know features, requests, or files: it is given bytes that were verified before.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from contract.bundle import MODEL
from contract.errors import BundleCorrupt, ScoreInvalid, SettingInvalid
from service.scoring.graph import check_graph
from service.scoring.lookups import without_lookups
from service.scoring.settings import ScoringSettings
from service.scoring.tables import without_tables

DTYPES = {"tensor(string)": "string", "tensor(int64)": "int64", "tensor(float)": "float32"}
GPU, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
MIN_TABLE_BYTES = 2**24  # smaller ones are no burden, and each costs a run something
ERRORS_ONLY = 3

log = logging.getLogger("fullfunnel")


@dataclass(frozen=True)
class Port:
    """One input or output of the graph; `rank` is None where an axis has a fixed size."""

    dtype: str
    rank: int | None


class Session:
    """Runs one model. Safe to call from several threads at once.

    `words` are of the inputs whose strings are looked up before: `run` takes int64 rows for them.
    Raises: BundleCorrupt, SettingInvalid.
    """

    def __init__(self, model: bytes, settings: ScoringSettings) -> None:
        check_graph(model)
        providers = _providers(settings)
        self._tables: dict[str, NDArray[np.float32]] = {}
        if providers == [CPU]:  # where a run reads them in place
            model, self._tables = without_tables(model, MIN_TABLE_BYTES)
        model, self.words = without_lookups(model, settings.max_words)
        try:
            self._session = onnxruntime.InferenceSession(bytes(model), session_options(settings), providers=providers)
        except Exception as error:
            raise BundleCorrupt(
                f"onnxruntime {onnxruntime.__version__} cannot load it ({type(error).__name__})",
                place=MODEL,
                remedy="serve with the onnxruntime it was exported for or a newer one, or export it again",
            ) from error
        self.inputs = {port.name: _port(port) for port in self._session.get_inputs() if port.name not in self._tables}
        self.inputs |= {name: Port("string", self.inputs[name].rank) for name in self.words}
        self.outputs = {port.name: _port(port) for port in self._session.get_outputs()}
        self.provider: str = self._session.get_providers()[0]

    def run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """One run of the graph: an array [N] for each output asked for.

        Raises: ScoreInvalid.
        """
        try:
            return list(self._session.run(list(outputs), {**feeds, **self._tables}))
        except Exception as error:
            log.exception("onnxruntime failed in a run")
            raise ScoreInvalid("the model could not be run") from error


def session_options(settings: ScoringSettings) -> Any:
    """How onnxruntime is to load and run the model."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.intra_op_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    # threads that spin while they wait steal the core from their neighbours in a container
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # bytes in onnxruntime's own format would be accepted too, unread by check_graph
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def _providers(settings: ScoringSettings) -> list[str]:
    available = GPU in onnxruntime.get_available_providers()
    if settings.provider == "cuda" and not available:
        raise SettingInvalid(
            "the installed onnxruntime has no CUDA",
            place="provider",
            remedy="install onnxruntime-gpu, or choose cpu or auto",
        )
    return [GPU, CPU] if available and settings.provider != "cpu" else [CPU]


def _port(port: Any) -> Port:
    fixed = any(isinstance(size, int) for size in port.shape)
    return Port(DTYPES.get(port.type, port.type), None if fixed else len(port.shape))
