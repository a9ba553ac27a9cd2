"""The scorer, held against the reference and against its bundle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from contract.bundle import MODEL, Golden
from contract.errors import (
    BundleCorrupt,
    BundleInvalid,
    GoldenMismatch,
    LengthMismatch,
    ScoreInvalid,
    SeveralInvalid,
    UnknownFeature,
    ValueInvalid,
)
from contract.features import Categorical
from service.scoring.scorer import Scorer
from tests.service.toy_bundle import (
    FEATURES,
    GOLDEN_ROWS,
    publish_toy,
    reference,
    toy_golden,
    toy_inputs,
    toy_manifest,
    toy_model,
)

EXACT = 1e-6
USERS, CANDIDATES = GOLDEN_ROWS.user, GOLDEN_ROWS.candidates
ROW_USER = np.array(GOLDEN_ROWS.row_user)


def random_rows(count: int, seed: int) -> dict[str, list[Any]]:
    """Candidates with unknown, missing and ordinary values."""
    random = np.random.default_rng(seed)
    return {
        "item_id": [f"i{n}" for n in random.integers(1, 9, count)],
        "category": [None if n == 0 else int(n) for n in random.integers(0, 6, count)],
        "price": [None if p < 0.2 else float(np.exp(9 * p)) for p in random.random(count)],
        "tags": [random.integers(1, 6, random.integers(0, 6)).tolist() for _ in range(count)],
    }


def one_user(index: int) -> dict[str, list[Any]]:
    return {name: [column[index]] for name, column in USERS.items()}


def test_scores_are_those_of_the_reference(scorer: Scorer) -> None:
    candidates = random_rows(200, seed=1)
    row_user = np.random.default_rng(2).integers(0, 3, 200)
    expected = reference(USERS, candidates, row_user.tolist())
    found = scorer.score(USERS, candidates, row_user)
    assert list(found) == ["pctr", "pcvr", "pctcvr"]
    for name, values in found.items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected[name], atol=EXACT)
    np.testing.assert_allclose(found["pctcvr"], found["pctr"] * found["pcvr"], rtol=1e-6)


def test_without_row_user_there_is_one_user(scorer: Scorer) -> None:
    found = scorer.score(one_user(2), CANDIDATES)
    expected = reference(one_user(2), CANDIDATES, [0] * 6)
    np.testing.assert_allclose(found["pcvr"], expected["pcvr"], atol=EXACT)


def test_slices_of_the_candidates_score_like_the_whole(scorer: Scorer) -> None:
    candidates = random_rows(101, seed=3)
    whole = scorer.score(one_user(0), candidates)["pctcvr"]
    for size in (1, 7, 100):
        parts = [
            scorer.score(one_user(0), {name: column[at : at + size] for name, column in candidates.items()})["pctcvr"]
            for at in range(0, 101, size)
        ]
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=EXACT)


def test_permuted_candidates_score_the_same(scorer: Scorer) -> None:
    candidates = random_rows(64, seed=4)
    order = np.random.default_rng(5).permutation(64)
    shuffled = {name: [column[at] for at in order] for name, column in candidates.items()}
    straight, permuted = scorer.score(one_user(0), candidates), scorer.score(one_user(0), shuffled)
    np.testing.assert_allclose(permuted["pctr"], straight["pctr"][order], atol=EXACT)


def test_users_together_score_like_users_apart(scorer: Scorer) -> None:
    together = scorer.score(USERS, CANDIDATES, ROW_USER)["pctcvr"]
    for row, user in enumerate(ROW_USER):
        alone = scorer.score(one_user(user), {name: [column[row]] for name, column in CANDIDATES.items()})["pctcvr"]
        np.testing.assert_allclose(alone, together[row : row + 1], atol=EXACT)


def test_another_user_gets_other_scores(scorer: Scorer) -> None:
    """The control of the two above: the user does matter."""
    first, second = (scorer.score(one_user(user), CANDIDATES)["pctr"] for user in (0, 2))
    assert np.abs(first - second).max() > 0.01


def test_numpy_columns_score_like_lists(scorer: Scorer) -> None:
    candidates = random_rows(50, seed=6)
    arrays: dict[str, Any] = dict(candidates)
    arrays["item_id"] = np.array(candidates["item_id"])
    arrays["price"] = np.array([np.nan if price is None else price for price in candidates["price"]])
    arrays["tags"] = [np.array(tags) for tags in candidates["tags"]]
    np.testing.assert_array_equal(
        scorer.score(one_user(0), arrays)["pctr"], scorer.score(one_user(0), candidates)["pctr"]
    )


def test_an_absent_column_is_missing_in_every_row(scorer: Scorer) -> None:
    ids = {"item_id": ["i1", "i2"]}
    explicit = {**ids, "category": [None, None], "price": [None, None], "tags": [None, []]}
    no_user = {name: [None] for name in USERS}
    np.testing.assert_array_equal(scorer.score({}, ids)["pctr"], scorer.score(no_user, explicit)["pctr"])


def test_no_candidates_get_no_scores(scorer: Scorer) -> None:
    found = scorer.score(one_user(0), {"item_id": []})
    assert {name: len(values) for name, values in found.items()} == {"pctr": 0, "pcvr": 0, "pctcvr": 0}


@pytest.mark.parametrize("row_user", [[0, 3], [-1, 0]])
def test_a_row_user_outside_the_users_is_refused(scorer: Scorer, row_user: list[int]) -> None:
    with pytest.raises(ValueInvalid, match="row_user"):
        scorer.score(USERS, {"item_id": ["a", "b"]}, np.array(row_user))


def test_row_user_says_how_many_candidates_there_must_be(scorer: Scorer) -> None:
    with pytest.raises(LengthMismatch):
        scorer.score(USERS, {"item_id": ["a"]}, np.array([0, 1]))
    with pytest.raises(LengthMismatch):
        scorer.score({"city": []}, {"item_id": ["a"]}, np.array([0]))


def test_what_is_wrong_on_both_sides_is_reported_at_once(scorer: Scorer) -> None:
    with pytest.raises(SeveralInvalid) as caught:
        scorer.score({"citty": ["a"], "age": ["old"]}, {"item_id": ["a"], "price": [True]})
    assert [type(error) for error in caught.value.errors] == [UnknownFeature, ValueInvalid, ValueInvalid]


def publish(directory: Path, **parts: Any) -> Callable[[], Scorer]:
    publish_toy(directory / "toy", **parts)
    return lambda: Scorer.load(directory / "toy")


def test_golden_rows_that_score_otherwise_stop_the_load(tmp_path: Path) -> None:
    scores = reference(USERS, CANDIDATES, GOLDEN_ROWS.row_user)
    scores["pcvr"][3] += 2e-5
    with pytest.raises(GoldenMismatch, match=r"golden\.json: pcvr differs by 2\.0e-05, more than 1e-05"):
        publish(tmp_path, golden=toy_golden(scores=scores))()


def test_other_weights_stop_the_load(tmp_path: Path) -> None:
    model = toy_model()
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
    bias.raw_data = np.array([0.1, 0, 0, 0], dtype=np.float32).tobytes()
    with pytest.raises(GoldenMismatch):
        publish(tmp_path, model=model.SerializeToString())()


def test_a_model_that_answers_nan_stops_the_load(tmp_path: Path) -> None:
    model = toy_model()
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
    bias.raw_data = np.array([np.nan, 0, 0, 0], dtype=np.float32).tobytes()
    with pytest.raises(GoldenMismatch, match="not a probability"):
        publish(tmp_path, model=model.SerializeToString())()


@pytest.mark.parametrize(
    "golden",
    [
        toy_golden(scores={"pctr": [0.1] * 6}),
        toy_golden(scores={name: [0.1] for name in ("pctr", "pcvr", "pctcvr")}),
        toy_golden(rows=GOLDEN_ROWS.model_copy(update={"row_user": [0, 0, 0, 0, 0, 9]})),
        toy_golden(rows=GOLDEN_ROWS.model_copy(update={"row_user": [0, 0, 0, 0, 0, 2**70]})),
        toy_golden(rows=GOLDEN_ROWS.model_copy(update={"candidates": {}})),
    ],
)
def test_golden_rows_that_do_not_fit_the_model_are_corrupt(tmp_path: Path, golden: Golden) -> None:
    with pytest.raises(BundleCorrupt, match=r"golden\.json"):
        publish(tmp_path, golden=golden)()


def rename_input(model: onnx.ModelProto, old: str, new: str) -> None:
    for port in (*model.graph.input, *model.graph.output):
        port.name = new if port.name == old else port.name
    for node in model.graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                names[at] = new if name == old else name


@pytest.mark.parametrize("name", ["city", "row_user", "pcvr"])
def test_a_graph_whose_ports_are_not_those_of_the_manifest_is_corrupt(tmp_path: Path, name: str) -> None:
    model = toy_model()
    rename_input(model, name, "other")
    with pytest.raises(BundleCorrupt, match=r"model\.onnx: (in|out)put '.*' is not what the manifest says"):
        publish(tmp_path, model=model.SerializeToString())()


def test_an_input_of_another_type_or_rank_is_corrupt(tmp_path: Path) -> None:
    changes: tuple[dict[str, Any], ...] = ({"dtype": "int64"}, {"shape": ("users", "length")})
    for number, change in enumerate(changes):
        inputs = tuple(x.model_copy(update=change) if x.name == "city" else x for x in toy_inputs())
        with pytest.raises(BundleCorrupt, match="'city'"):
            publish(tmp_path / str(number), manifest=toy_manifest(inputs=inputs))()


def test_a_feature_without_an_input_is_corrupt(tmp_path: Path) -> None:
    extra = Categorical(name="extra", side="user")
    with pytest.raises(BundleInvalid, match="features and inputs differ"):
        publish(tmp_path, manifest=toy_manifest(features=(*FEATURES, extra)))()


def test_a_flipped_bit_never_loads(tmp_path: Path, toy: Path) -> None:
    publish_toy(tmp_path / "toy")
    content = bytearray((toy / MODEL).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "toy" / MODEL).write_bytes(content)
    with pytest.raises(BundleCorrupt, match="SHA-256"):
        Scorer.load(tmp_path / "toy")


def test_a_score_that_is_no_probability_is_never_answered(tmp_path: Path) -> None:
    scorer = publish(tmp_path, **no_clip_of_price())()
    assert scorer.score({}, {"item_id": ["a"], "price": [1.0]})["pctr"].shape == (1,)
    with pytest.raises(ScoreInvalid):
        scorer.score({}, {"item_id": ["a"], "price": [-2.0]})


def no_clip_of_price() -> dict[str, Any]:
    """A model with a fault: it takes the logarithm of negative prices, which is NaN."""
    model = toy_model()
    clip = next(node for node in model.graph.node if node.output[0] == "price_clipped")
    clip.op_type = "Identity"
    del clip.input[1:]
    rows = GOLDEN_ROWS.model_copy(update={"candidates": {**CANDIDATES, "price": [1.0] * 6}})
    scores = reference(rows.user, rows.candidates, rows.row_user)
    return {"model": model.SerializeToString(), "golden": toy_golden(rows=rows, scores=scores)}


def one_sided(side: str) -> dict[str, Any]:
    """A model that has features of one side only: the logit of `p` is the number itself."""
    from onnx import TensorProto, helper

    from contract.bundle import Input
    from contract.features import Numeric
    from contract.tasks import Task, outputs

    name, rows = ("age", "users") if side == "user" else ("price", "candidates")
    tasks = (Task(name="click", label="click"),)
    nodes = [helper.make_node("Sigmoid", [name], ["p_rows"])]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows])]
    if side == "user":
        nodes.append(helper.make_node("Gather", ["p_rows", "row_user"], ["p_click"]))
        ports.append(helper.make_tensor_value_info("row_user", TensorProto.INT64, ["candidates"]))
    else:
        nodes.append(helper.make_node("Identity", ["p_rows"], ["p_click"]))
    answer = helper.make_tensor_value_info("p_click", TensorProto.FLOAT, ["candidates"])
    model = helper.make_model(
        helper.make_graph(nodes, "g", ports, [answer]), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    values = [0.0, 1.0]
    users = {name: values} if side == "user" else {}
    candidates = {} if side == "user" else {name: values}
    scores = {"p_click": [0.5, 1 / (1 + np.exp(-1))]}
    golden = Golden.model_validate(
        {"rows": {"user": users, "candidates": candidates, "row_user": [0, 1]}, "scores": scores}
    )
    manifest = toy_manifest(
        tasks=tasks,
        features=(Numeric.model_validate({"name": name, "side": side}),),
        inputs=(Input.model_validate({"name": name, "dtype": "float32", "side": side, "shape": (rows,)}),),
        outputs=outputs(tasks),
        calibration=(),
    )
    return {"model": model.SerializeToString(), "golden": golden, "manifest": manifest}


def test_a_model_without_item_features_scores_one_candidate_or_as_many_as_row_user_says(tmp_path: Path) -> None:
    scorer = publish(tmp_path, **one_sided("user"))()
    assert scorer.score({"age": [0.0]}, {})["p_click"].tolist() == [0.5]
    assert scorer.score({"age": [0.0]}, {}, np.zeros(3, dtype=np.int64))["p_click"].tolist() == [0.5] * 3


def test_a_model_without_user_features_needs_no_row_user(tmp_path: Path) -> None:
    scorer = publish(tmp_path, **one_sided("item"))()
    assert scorer.score({}, {"price": [0.0, 0.0]})["p_click"].tolist() == [0.5, 0.5]
    with pytest.raises(UnknownFeature):
        scorer.score({"age": [1]}, {"price": [0.0]})
