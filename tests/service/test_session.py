"""model.onnx as a session."""

import os
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidProtobuf

from contract.errors import BundleCorrupt, ScoreInvalid, SettingInvalid
from service.scoring.session import Port, Session, session_options
from service.scoring.settings import ScoringSettings
from tests.service.toy_bundle import toy_model


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(toy_model().SerializeToString(), ScoringSettings())


def test_inputs_and_outputs_are_told_with_type_and_rank(session: Session) -> None:
    assert session.inputs["city"] == Port("string", 1)
    assert session.inputs["recent_items"] == Port("string", 2)
    assert session.inputs["price"] == Port("float32", 1)
    assert session.inputs["row_user"] == Port("int64", 1)
    assert session.outputs == dict.fromkeys(["pctr", "pcvr", "pctcvr"], Port("float32", 1))


def test_an_axis_of_fixed_size_has_no_rank() -> None:
    model = toy_model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    assert Session(model.SerializeToString(), ScoringSettings()).inputs["user_id"] == Port("string", None)


def test_a_model_that_onnxruntime_cannot_load_is_corrupt() -> None:
    model = toy_model()
    model.graph.node[5].input[0] = "nowhere"
    with pytest.raises(BundleCorrupt, match=r"onnxruntime .* cannot load it"):
        Session(model.SerializeToString(), ScoringSettings())


def test_a_model_in_onnxruntimes_own_format_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("ort") / "model.ort"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(toy_model().SerializeToString(), options)
    content = path.read_bytes()
    onnxruntime.InferenceSession(content)  # the control: it would load
    with pytest.raises(InvalidProtobuf):
        onnxruntime.InferenceSession(content, session_options(ScoringSettings()))
    with pytest.raises(BundleCorrupt):
        Session(content, ScoringSettings())


def test_a_run_that_fails_is_a_fault_of_the_model_and_keeps_its_message_inside(session: Session) -> None:
    with pytest.raises(ScoreInvalid) as caught:
        session.run(["pctr"], {"row_user": np.zeros(1, dtype=np.int64)})
    assert str(caught.value) == "the model could not be run."


def test_cuda_that_is_not_installed_is_a_setting_that_cannot_be_met() -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(SettingInvalid, match="no CUDA"):
        Session(toy_model().SerializeToString(), ScoringSettings(provider="cuda"))


def test_auto_takes_what_there_is() -> None:
    found = Session(toy_model().SerializeToString(), ScoringSettings(provider="auto")).provider
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    assert found == ("CUDAExecutionProvider" if has_cuda else "CPUExecutionProvider")


def test_telemetry_is_off_before_onnxruntime_is_imported() -> None:
    script = (
        "import os, sys; os.environ.pop('ORT_DISABLE_TELEMETRY', None); import service.scoring;"
        "assert 'onnxruntime' not in sys.modules; import service.scoring.session;"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "ORT_DISABLE_TELEMETRY": "0"})
