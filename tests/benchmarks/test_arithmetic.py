"""The arithmetic benchmark runs every variant on the same requests, and says how far its scores move."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from benchmarks import arithmetic
from benchmarks.arithmetic import PRODUCTS, Shift, halved, load, medians, request, variants
from service.scoring.lookups import without_lookups
from service.scoring.scorer import Scorer
from tests.service.toy_bundle import publish_toy, toy_model


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bundles") / "toy"
    publish_toy(directory)
    return directory


@pytest.fixture(scope="module")
def models() -> dict[str, bytes]:
    return variants(without_lookups(toy_model().SerializeToString(), 1000)[0])


def operators(model: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_model_from_string(model).graph.node]


def test_eight_bit_variants_hold_no_product_of_floats_with_weights(models: dict[str, bytes]) -> None:
    plain = operators(models["float32"])
    for name in ("int8 per tensor", "int8 per column"):
        found = operators(models[name])
        assert found.count("MatMulInteger") == sum(plain.count(product) for product in PRODUCTS) == 3
        assert not set(PRODUCTS) & set(found)
    assert models["int8 per tensor"] != models["int8 per column"]


def test_products_of_the_halved_model_take_halves_and_nothing_else_does(models: dict[str, bytes]) -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(models["float16"])).graph
    kinds = {entry.name: entry.data_type for entry in graph.initializer}
    kinds |= {entry.name: entry.type.tensor_type.elem_type for entry in [*graph.value_info, *graph.input]}
    for node in graph.node:
        halves = {kinds.get(name) == TensorProto.FLOAT16 for name in node.input if name}
        assert halves == {True} if node.op_type in PRODUCTS else node.op_type == "Cast" or halves <= {False}


def test_halved_model_differs_in_the_digits_that_a_half_lacks(bundle: Path) -> None:
    scorer, model = Scorer.load(bundle), without_lookups(toy_model().SerializeToString(), 1000)[0]
    feeds = request(scorer, 7)
    exact, half = (np.stack(load(x).run(None, feeds)) for x in (model, halved(model)))
    assert 1e-6 < np.abs(exact - half).max() < 1e-2


def test_request_is_one_user_with_as_many_candidates_as_asked_for(bundle: Path) -> None:
    feeds = request(Scorer.load(bundle), 50)
    assert (len(feeds["city"]), len(feeds["price"]), feeds["row_user"].tolist()) == (1, 50, [0] * 50)


def test_shift_says_what_became_of_size_mean_and_order() -> None:
    before = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.5]], np.float32)
    after = np.array([[0.2, 0.1, 0.3, 0.4], [0.6, 0.6, 0.6, 0.6]], np.float32)
    shift = Shift.of(after, before)
    assert shift.largest == pytest.approx(0.1)
    assert shift.mean == pytest.approx(1.2)
    assert shift.reordered == pytest.approx(1 / 6)
    assert Shift.of(before, before) == Shift(0.0, 1.0, 0.0)


def test_runs_of_the_sessions_take_turns() -> None:
    turns: list[str] = []

    class Recorder:
        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, outputs: None, feeds: object) -> None:
            turns.append(self.name)

    assert len(medians([Recorder("a"), Recorder("b")], {}, 5)) == 2
    assert turns == ["a", "b"] * (5 + arithmetic.WARM_UP)


def test_the_command_prints_a_line_for_each_arithmetic(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arithmetic.main(["--bundle", str(bundle), "--rounds", "3"])
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in capsys.readouterr().out.splitlines()]
    names = [line[0] for line in lines[4:]]
    assert names == ["float32", "float32, optimised beforehand", "int8 per tensor", "int8 per column", "float16"]
    assert lines[4][1].endswith("(1.00)") and lines[4][4:] == ["0e+00", "1.0000", "0.00%"]
    assert all(len(line) == len(arithmetic.HEADER) for line in lines[2:])
