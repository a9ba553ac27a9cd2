"""What a request in tensors may hold, and that it is scored as its columns would be."""

import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest

from contract.errors import (
    FeatureMissing,
    LengthMismatch,
    RequestInvalid,
    TooManyCandidates,
    TooManyRequests,
    UnknownFeature,
    UnknownModel,
    ValueInvalid,
)
from contract.features import INT64_MISSING
from service.api.settings import Limits
from service.api.v2 import inference
from service.api.v2.inference import Inference, arrays_of, check_model, infer, read_inference
from service.api.v2.tensors import Tensor
from service.scoring.batching import merged, split
from service.scoring.scorer import Scorer
from tests.service.api.v2.test_tensors import FORMATS, packed

LIMITS = Limits()
ITEM = {"item_id": ("BYTES", [2], ["i1", "i2"])}


def read(scorer: Scorer, tensors: Any, limits: Limits = LIMITS, outputs: Any = (), id: str = "") -> Inference:
    listed = tensors.items() if isinstance(tensors, dict) else tensors
    made = [
        (name, Tensor(datatype, tuple(shape), memoryview(data) if isinstance(data, bytes) else data))
        for name, (datatype, shape, data) in listed
    ]
    return read_inference(scorer, limits, id, made, outputs)


def scores(scorer: Scorer, tensors: Any, **options: Any) -> dict[str, list[float]]:
    return {name: values.tolist() for name, values in infer(scorer, read(scorer, tensors, **options)).items()}


def expected(scorer: Scorer, users: Any, candidates: Any, row_user: list[int] | None = None) -> dict[str, list[float]]:
    who = None if row_user is None else np.array(row_user)
    return {name: values.tolist() for name, values in scorer.score(users, candidates, who).items()}


@pytest.mark.parametrize("datatype", [name for name in FORMATS if "INT" in name])
def test_whole_numbers_of_every_width_are_taken(scorer: Scorer, datatype: str) -> None:
    sent = {**ITEM, "category": (datatype, [2], struct.pack(f"<2{FORMATS[datatype]}", 3, 9))}
    assert scores(scorer, sent) == expected(scorer, {}, {"item_id": ["i1", "i2"], "category": [3, 9]})


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_floats_of_every_width_are_taken_and_nan_is_missing(scorer: Scorer, datatype: str) -> None:
    sent = {**ITEM, "price": (datatype, [2], struct.pack(f"<2{FORMATS[datatype]}", 2.5, float("nan")))}
    assert scores(scorer, sent) == expected(scorer, {}, {"item_id": ["i1", "i2"], "price": [2.5, None]})


def test_sentinels_are_missing_values(scorer: Scorer) -> None:
    sent = {
        **ITEM,
        "city": ("BYTES", [1], packed(b"")),
        "category": ("INT64", [2], struct.pack("<2q", INT64_MISSING, 2)),
        "tags": ("INT64", [2, 2], struct.pack("<4q", INT64_MISSING, 1, 2, INT64_MISSING)),
    }
    columns = {"item_id": ["i1", "i2"], "category": [None, 2], "tags": [[1], [2]]}
    assert scores(scorer, sent) == expected(scorer, {"city": [None]}, columns)


@pytest.mark.parametrize("datatype", ["INT64", "INT32", "UINT8"])
def test_row_user_says_whose_candidate_each_is(scorer: Scorer, datatype: str) -> None:
    rows = struct.pack(f"<2{FORMATS[datatype]}", 1, 0)
    sent = {**ITEM, "city": ("BYTES", [2], ["Berlin", "Shanghai"]), "row_user": (datatype, [2], rows)}
    found = scores(scorer, sent)
    assert found == expected(scorer, {"city": ["Berlin", "Shanghai"]}, {"item_id": ["i1", "i2"]}, [1, 0])
    assert found != expected(scorer, {"city": ["Berlin", "Shanghai"]}, {"item_id": ["i1", "i2"]}, [0, 1])


TWO = {
    "city": ("BYTES", [2], ["Berlin", "Shanghai"]),
    "item_id": ("BYTES", [3], packed(b"i1", b"i4", b"new")),
    "price": ("FP32", [3], struct.pack("<3f", 2.5, float("nan"), 9)),
    "row_user": ("INT64", [3], struct.pack("<3q", 1, 0, 1)),
}
OTHER = {**TWO, "city": ("BYTES", [2], ["", "Berlin"]), "row_user": ("INT64", [3], struct.pack("<3q", 0, 0, 1))}


@pytest.mark.parametrize(
    ("several", "alike"),
    [
        ([TWO], True),
        ([TWO, OTHER, TWO], True),
        ([ITEM, ITEM], True),
        ([TWO, ITEM, OTHER], False),
        ([TWO, {**OTHER, "price": ("FP64", [3], struct.pack("<3d", 1, 2, 3))}], False),
        ([TWO, {**OTHER, "price": ("FP32", [3], [1.0, None, 3.0])}], False),
    ],
)
def test_requests_that_share_a_run_get_the_scores_they_get_alone(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch, several: list[Any], alike: bool
) -> None:
    ways: list[int] = []

    def counted(scorer: Scorer, feeds: Any) -> Any:
        ways.append(len(feeds))
        return merged(scorer, feeds)

    monkeypatch.setattr(inference, "merged", counted)
    asked = [read(scorer, tensors) for tensors in several]
    together = scorer.run(arrays_of(scorer, asked))
    for one, part in zip(asked, split(together, [each.count for each in asked]), strict=True):
        for name, values in infer(scorer, one).items():
            np.testing.assert_allclose(part[name], values, atol=1e-6)
    assert ways == ([] if alike else [len(several)])


def test_no_candidates_get_no_scores(scorer: Scorer) -> None:
    assert scores(scorer, {"item_id": ("BYTES", [0], b"")}) == {"pctr": [], "pcvr": [], "pctcvr": []}


def test_outputs_come_in_the_order_asked_for(scorer: Scorer) -> None:
    assert list(scores(scorer, ITEM, outputs=[("pctcvr", False), ("pctr", False)])) == ["pctcvr", "pctr"]


REFUSED: list[tuple[Any, type[RequestInvalid], str]] = [
    ({"item": ("BYTES", [1], ["i1"])}, UnknownFeature, "inputs.item: .*did you mean 'item_id'"),
    ([*ITEM.items(), *ITEM.items()], ValueInvalid, "inputs.item_id: is sent twice"),
    ({}, FeatureMissing, "inputs: no input of the candidates"),
    ({"row_user": ("INT64", [1], [0])}, FeatureMissing, "candidates.item_id: must be given"),
    ({"item_id": ("INT64", [1], [1])}, ValueInvalid, "inputs.item_id.datatype: .*send BYTES"),
    ({"item_id": ("BOOL", [1], [True])}, ValueInvalid, "inputs.item_id.datatype"),
    ({"item_id": ("BYTES", [1, 1], ["i1"])}, ValueInvalid, r"inputs.item_id.shape: has 2 axes.*\[candidates\]"),
    ({"item_id": ("BYTES", [], ["i1"])}, ValueInvalid, "has 0 axes"),
    ({"item_id": ("BYTES", [-1], ["i1"])}, ValueInvalid, "inputs.item_id.shape: must hold whole numbers"),
    ({"item_id": ("BYTES", [1.0], ["i1"])}, ValueInvalid, "inputs.item_id.shape: must hold whole numbers"),
    ({"item_id": ("BYTES", [True], ["i1"])}, ValueInvalid, "inputs.item_id.shape: must hold whole numbers"),
    ({**ITEM, "tags": ("INT64", [2, -1], [])}, ValueInvalid, "inputs.tags.shape"),
    ({"item_id": ("BYTES", [2**70], b"")}, TooManyCandidates, "more than 8192"),
    ({"item_id": ("BYTES", [1025], b"")}, TooManyCandidates, "more than 1024"),
    ({"city": ("BYTES", [65], b""), **ITEM}, TooManyRequests, "inputs.city: more than 64 users"),
    ({"tags": ("INT64", [2**62, 0], b"")}, TooManyCandidates, "inputs.tags"),
    ({**ITEM, "price": ("FP32", [3], [1, 2, 3])}, LengthMismatch, "inputs.price: has 3 rows .* has 2"),
    ({**ITEM, "price": ("FP32", [2], [1])}, LengthMismatch, "inputs.price: holds 1 values"),
    ({**ITEM, "row_user": ("INT64", [1], [0])}, LengthMismatch, "inputs.row_user: has 1 rows"),
    ({**ITEM, "city": ("BYTES", [2], ["a", "b"])}, FeatureMissing, "inputs.row_user: must be given, .*2 users"),
    ({**ITEM, "row_user": ("INT64", [2], [0, 1])}, ValueInvalid, "inputs.row_user: must lie between 0 and 0"),
    ({**ITEM, "row_user": ("INT64", [2], [0, 2**62])}, ValueInvalid, "inputs.row_user: must lie"),
    ({**ITEM, "row_user": ("INT64", [2], [0, 2**80])}, ValueInvalid, "inputs.row_user: must lie"),
    ({**ITEM, "row_user": ("INT64", [2], [0, -1])}, ValueInvalid, "inputs.row_user: must lie"),
    ({**ITEM, "row_user": ("UINT64", [2], struct.pack("<2Q", 0, 2**64 - 1))}, ValueInvalid, "must lie"),
    ({**ITEM, "row_user": ("INT64", [2], [0, None])}, ValueInvalid, "inputs.row_user: must hold whole"),
    ({**ITEM, "row_user": ("INT64", [2], [0, 0.5])}, ValueInvalid, "inputs.row_user: must hold whole"),
    ({**ITEM, "row_user": ("INT64", [2], [0, "0"])}, ValueInvalid, "inputs.row_user: must hold whole"),
    ({**ITEM, "category": ("UINT64", [2], struct.pack("<2Q", 1, 2**63))}, ValueInvalid, r"category\[1\].*64 bits"),
    ({**ITEM, "category": ("INT64", [2], [1, 1.5])}, ValueInvalid, r"category\[1\]: must be a whole number"),
    ({**ITEM, "price": ("FP64", [2], struct.pack("<2d", 1, 1e300))}, ValueInvalid, r"price\[1\].*finite"),
    ({**ITEM, "price": ("FP32", [2], struct.pack("<2f", 1, float("-inf")))}, ValueInvalid, r"price\[1\].*finite"),
    ({"item_id": ("BYTES", [2], [["i1"], "i2"])}, ValueInvalid, r"item_id\[0\]: must be a string"),
    ({"item_id": ("BYTES", [1], packed(b"x" * 1025))}, ValueInvalid, "longer than 1024 bytes"),
    ({"item_id": ("BYTES", [1], packed(b""))}, FeatureMissing, r"item_id\[0\]"),
    (
        {**ITEM, "recent_items": ("BYTES", [1, 2], ["a", "b"]), "recent_actions": ("BYTES", [1, 1], ["a"])},
        LengthMismatch,
        "recent_actions.* has 1 members",
    ),
]


@pytest.mark.parametrize(("tensors", "error", "text"), REFUSED)
def test_what_cannot_be_scored_is_refused_by_name_and_costs_nothing(
    scorer: Scorer, tensors: Any, error: type[RequestInvalid], text: str
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(error, match=text):
            scores(scorer, tensors)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_several_users_may_have_more_candidates_than_one(scorer: Scorer) -> None:
    def sent(count: int) -> Any:
        return {
            "city": ("BYTES", [2], ["Berlin", "Shanghai"]),
            "item_id": ("BYTES", [count], ["i1"] * count),
            "row_user": ("INT64", [count], [0] * count),
        }

    limits = Limits(max_candidates=3, max_rows=5)
    assert len(scores(scorer, sent(5), limits=limits)["pctr"]) == 5
    with pytest.raises(TooManyCandidates, match="more than 5"):
        scores(scorer, sent(6), limits=limits)
    with pytest.raises(TooManyCandidates, match="more than 3"):
        scores(scorer, {"item_id": ("BYTES", [4], ["i1"] * 4)}, limits=limits)


def test_outputs_the_model_does_not_have_or_asked_for_twice_are_refused(scorer: Scorer) -> None:
    with pytest.raises(UnknownFeature, match=r"outputs\.pctrr: .*'pctr'"):
        read(scorer, ITEM, outputs=[("pctrr", False)])
    with pytest.raises(ValueInvalid, match=r"outputs\.pctr: is asked for twice"):
        read(scorer, ITEM, outputs=[("pctr", False), ("pctr", True)])


def test_an_id_is_as_long_as_a_string_may_be(scorer: Scorer) -> None:
    assert read(scorer, ITEM, id="x" * 1024).id == "x" * 1024
    with pytest.raises(ValueInvalid, match="id: is longer than 1024"):
        read(scorer, ITEM, id="x" * 1025)


def test_only_the_model_that_is_served_is_there(scorer: Scorer) -> None:
    check_model(scorer, "toy", "")
    check_model(scorer, "toy", "1")
    with pytest.raises(UnknownModel, match=r"model toys: .*ask for toy"):
        check_model(scorer, "toys", "")
    with pytest.raises(UnknownModel, match=r"version 2: .*ask for 1"):
        check_model(scorer, "toy", "2")
