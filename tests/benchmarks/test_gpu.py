"""The comparison with a GPU: what it measures, and what it says where there is none."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper

from benchmarks import gpu
from benchmarks.gpu import TOLERANCE, Line, bound, main, measure, table
from contract.bundle import MODEL
from service.scoring.session import CPU
from service.scoring.settings import ScoringSettings
from tests.service.toy_bundle import publish_toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "toy"
    publish_toy(folder)
    return folder


def test_without_a_gpu_it_says_so_and_measures_nothing(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--bundle", str(toy)])
    told = capsys.readouterr()
    assert told.err.startswith("no GPU: ") and not told.out


def test_what_it_measures_it_measures_on_any_provider(toy: Path) -> None:
    few, many = measure(toy, CPU, [1, 40], seconds=0.01)
    assert (few.candidates, many.candidates) == (1, 40)
    for line in (few, many):
        assert min(line.cpu_ms, line.same_ms, line.changing_ms) > 0 and line.difference <= TOLERANCE
        assert line.bound_ms is None  # the toy's graph takes strings, which onnxruntime binds nowhere


def test_a_graph_without_strings_is_run_with_its_arrays_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "twice", [x], [y])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    monkeypatch.setattr(gpu, "read_bundle", lambda _: SimpleNamespace(files={MODEL: model.SerializeToString()}))
    run = bound(Path(), CPU, ["y"], ScoringSettings())
    assert run is not None
    assert run({"x": np.array([1, 2.5], np.float32)})[0].tolist() == [2.0, 5.0]


def test_other_scores_than_the_cpus_end_it(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "bound", lambda *_: lambda feeds: np.zeros((3, len(feeds["row_user"]))))
    with pytest.raises(SystemExit, match="1 candidates: scores differ by"):
        measure(toy, CPU, [1], seconds=0.01)


def test_the_table_holds_a_row_for_each_number_of_candidates() -> None:
    lines = table([Line(100, 1.0, 0.5, 0.75, 0.4, 2e-7), Line(500, 4.0, 0.5, 0.5, 0.5, 0.0)]).splitlines()
    assert lines[2] == "| 100 | 1.00 | 0.50 | 0.75 | 0.40 | 2.0 | 2e-07 |" and len(lines) == 4
