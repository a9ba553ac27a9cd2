"""Vocabularies taken out of the graph: the same scores, and strings that onnxruntime never sees."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from contract.bundle import read_bundle
from service.scoring.lookups import without_lookups
from service.scoring.scorer import Scorer
from service.scoring.settings import ScoringSettings
from tests.service.toy_bundle import ACTIONS, CITIES, ITEMS, damaged, publish_toy, toy_model

CUT = {"city", "recent_items", "recent_actions", "item_id"}


def cut(model: onnx.ModelProto, max_words: int = 100) -> tuple[onnx.ModelProto, dict[str, Any]]:
    content, words = without_lookups(model.SerializeToString(), max_words)
    return onnx.load_from_string(content), words


def elements(model: onnx.ModelProto) -> dict[str, int]:
    return {port.name: port.type.tensor_type.elem_type for port in model.graph.input}


def test_encoders_of_strings_are_gone_and_their_inputs_take_rows() -> None:
    model, words = cut(toy_model())
    assert set(words) == CUT
    kinds = elements(toy_model()) | dict.fromkeys(CUT, onnx.TensorProto.INT64)
    assert elements(model) == kinds
    before, after = toy_model().graph, model.graph
    for old, new in zip(before.node, after.node, strict=True):
        if old.input[0] in CUT:
            assert new.op_type == "Identity" and (new.input, new.output) == (old.input, old.output)
        else:
            assert new == old
    assert [*after.initializer] == [*before.initializer] and [*after.output] == [*before.output]
    onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_words_are_those_of_the_encoder() -> None:
    _, words = cut(toy_model())
    for name, known in (("city", CITIES), ("item_id", ITEMS), ("recent_actions", ACTIONS)):
        assert set(words[name].rows) == {*known, ""}
        assert words[name].missing == words[name].rows[""]
    model, rng = toy_model(), np.random.default_rng(0)
    texts = rng.choice([*CITIES, "", "nowhere"], 50)
    (encoder,) = (node for node in model.graph.node if node.input[0] == "city")
    ports = [helper.make_tensor_value_info(name, kind, ["n"]) for name, kind in (("city", 8), (encoder.output[0], 7))]
    graph = helper.make_graph([encoder], "encoder", ports[:1], ports[1:])
    alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    expected = onnxruntime.InferenceSession(alone.SerializeToString()).run(None, {"city": texts.astype(object)})[0]
    assert [words["city"].rows.get(text, words["city"].unknown) for text in texts.tolist()] == expected.tolist()


def test_scores_are_those_of_the_whole_graph_bit_for_bit(tmp_path: Path) -> None:
    publish_toy(tmp_path / "toy")
    whole, ours = (Scorer.load(tmp_path / "toy", ScoringSettings(max_words=size)) for size in (0, 100))
    assert not whole.session.words and set(ours.session.words) == CUT
    rng = random.Random(1)
    for count in (1, 7, 100):
        steps = [rng.choices([*ITEMS, "i99", "", None], k=rng.randrange(6)) for _ in range(3)]
        users = {
            "city": rng.choices([*CITIES, "Paris", "", None], k=3),
            "recent_items": steps,
            "recent_actions": [rng.choices([*ACTIONS, "look", None], k=len(row)) for row in steps],
        }
        candidates = {"item_id": rng.choices([*ITEMS, "i99", "é" * 9], k=count)}
        rows = np.array(rng.choices(range(3), k=count), dtype=np.int64)
        expected, found = whole.score(users, candidates, rows), ours.score(users, candidates, rows)
        for name, values in expected.items():
            assert np.array_equal(found[name], values)


def test_a_larger_vocabulary_stays_in_the_graph() -> None:
    _, words = cut(toy_model(), max_words=len(ITEMS))  # and one for what is missing
    assert set(words) == {"city", "recent_actions"}
    model, words = cut(toy_model(), max_words=0)
    assert model == toy_model() and not words


def test_features_of_one_table_have_one_vocabulary_in_memory() -> None:
    _, words = cut(toy_model())
    assert words["recent_items"] is words["item_id"]


def twice_read(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Identity", ["city"], ["again"]))


def other_operator(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.input[0] == "city").op_type = "StringNormalizer"


def no_word_for_missing(model: onnx.ModelProto) -> None:
    encoder = next(node for node in model.graph.node if node.input[0] == "city")
    keys = next(attribute for attribute in encoder.attribute if attribute.name == "keys_strings")
    keys.strings[[*keys.strings].index(b"")] = b"none"


def more_keys_than_rows(model: onnx.ModelProto) -> None:
    encoder = next(node for node in model.graph.node if node.input[0] == "city")
    next(attribute for attribute in encoder.attribute if attribute.name == "keys_strings").strings.append(b"Rome")


def negative_row(model: onnx.ModelProto) -> None:
    encoder = next(node for node in model.graph.node if node.input[0] == "city")
    next(attribute for attribute in encoder.attribute if attribute.name == "values_int64s").ints[0] = -1


@pytest.mark.parametrize("change", [twice_read, other_operator, no_word_for_missing, more_keys_than_rows, negative_row])
def test_an_input_that_is_more_than_a_vocabulary_stays_as_it_is(change: Any) -> None:
    model = toy_model()
    change(model)
    found, words = cut(model)
    assert "city" not in words and elements(found)["city"] == onnx.TensorProto.STRING


def test_a_graph_that_holds_a_graph_stays_as_it_is() -> None:
    model = toy_model()
    inner = helper.make_graph([helper.make_node("Identity", ["city"], ["x"])], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner))
    found, words = cut(model)
    assert found == model and not words


def test_no_damaged_model_breaks_the_reader() -> None:
    for content in damaged(toy_model().SerializeToString(), 2000):
        found, words = without_lookups(content, 100)
        assert isinstance(found, bytes) and isinstance(words, dict)


def test_the_published_bundle_is_left_alone(tmp_path: Path) -> None:
    publish_toy(tmp_path / "toy")
    before = read_bundle(tmp_path / "toy")
    assert Scorer.load(tmp_path / "toy").digest == before.digest
