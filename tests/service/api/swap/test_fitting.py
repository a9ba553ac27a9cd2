"""Which model may take the place of which."""

from typing import Any

import pytest

from contract.errors import SwapRefused
from contract.features import Categorical, Numeric
from service.api.swap.fitting import check_fits
from tests.service.toy_bundle import FEATURES, toy_inputs, toy_manifest

OLD = toy_manifest()
INPUTS = {entry.name: entry for entry in toy_inputs()}


def with_feature(feature: Any, dtype: str) -> dict[str, Any]:
    entry = INPUTS["price"].model_copy(update={"name": feature.name, "dtype": dtype})
    return {"features": (*FEATURES, feature), "inputs": (*OLD.inputs, entry)}


def test_another_version_may_and_so_may_one_that_takes_more() -> None:
    check_fits(OLD, toy_manifest(version="2"))
    check_fits(OLD, toy_manifest(**with_feature(Numeric(name="stars", side="item"), "float32")))


def changed(name: str, **changes: Any) -> dict[str, Any]:
    return {"inputs": tuple({**INPUTS, name: INPUTS[name].model_copy(update=changes)}.values())}


needy = Categorical(name="shop", side="item", dtype="string", dim=2, missing="refuse")


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"name": "other"}, "name"),
        ({"inputs": OLD.inputs[1:], "features": FEATURES[1:]}, "feature 'user_id'"),
        (changed("category", dtype="string"), "feature 'category'"),
        (changed("price", side="user"), "feature 'price'"),
        (changed("city", shape=("users", "length")), "feature 'city'"),
        (with_feature(needy, "string"), "feature 'shop'"),
        ({"outputs": OLD.outputs[:-1]}, "output 'pctcvr'"),
    ],
)
def test_one_that_could_not_answer_every_request_may_not(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(SwapRefused) as refused:
        check_fits(OLD, toy_manifest(**changes))
    assert refused.value.place == place and refused.value.remedy
