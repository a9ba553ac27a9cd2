"""contract/features.py: what a row may hold is declared whole, or refused with the feature's name."""

import pytest
from pydantic import TypeAdapter, ValidationError

from contract.errors import RunInvalid
from contract.features import Categorical, Feature, Numeric, Sequence, check_features, owner

ANY: TypeAdapter[Feature] = TypeAdapter(Feature)
ITEM = Categorical(name="item_id", side="item", dim=16)


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ({"kind": "categorical", "name": "city", "side": "user"}, Categorical),
        ({"kind": "numeric", "name": "price", "side": "item", "scale": "piecewise", "bins": 4}, Numeric),
        ({"kind": "sequence", "name": "recent", "side": "user", "share": "item_id"}, Sequence),
    ],
)
def test_the_kind_decides_what_a_feature_is_and_a_round_trip_keeps_it(
    document: dict[str, object], kind: type[object]
) -> None:
    feature = ANY.validate_python(document)
    assert type(feature) is kind
    assert ANY.validate_json(ANY.dump_json(feature)) == feature


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "image"},
        {"side": "context"},
        {"dims": 8},
        {"dim": 0},
        {"dim": True},
        {"min_count": 0},
        {"buckets": 0},
        {"buckets": 2**31 - 7},
        {"dtype": "float32"},
        {"name": ""},
        {"name": "a\nb"},
        {"name": "a[0]"},
        {"name": "x" * 129},
        {"missing": "drop"},
        {"unknown": "refuse"},
    ],
    ids=str,
)
def test_a_feature_that_means_nothing_is_refused(change: dict[str, object]) -> None:
    good = {"kind": "categorical", "name": "city", "side": "user"}
    ANY.validate_python(good)
    with pytest.raises(ValidationError):
        ANY.validate_json(TypeAdapter(dict).dump_json({**good, **change}), strict="dim" in change)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_default_must_be_a_finite_number(number: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Numeric(name="price", side="item", missing="default", default=number)


@pytest.mark.parametrize("missing", ["own", "refuse"])
def test_a_default_without_its_policy_and_a_policy_without_its_default_are_refused(missing: str) -> None:
    for kind, value in (("numeric", 1.5), ("categorical", "Berlin")):
        base = {"kind": kind, "name": "x", "side": "user"}
        for change in ({"missing": missing, "default": value}, {"missing": "default"}):
            with pytest.raises(ValidationError, match="go together"):
                ANY.validate_python({**base, **change})
        assert ANY.validate_python({**base, "missing": "default", "default": value})


@pytest.mark.parametrize("number", [0, 0.0])
def test_zero_is_a_default_like_any_other(number: float) -> None:
    assert Numeric(name="price", side="item", missing="default", default=number).default == 0


@pytest.mark.parametrize(("dtype", "default"), [("int64", "Berlin"), ("string", 7)])
def test_a_default_of_another_type_than_the_feature_is_refused(dtype: str, default: object) -> None:
    with pytest.raises(ValidationError, match=f"is no {dtype}"):
        ANY.validate_python(
            {
                "kind": "categorical",
                "name": "city",
                "side": "user",
                "dtype": dtype,
                "missing": "default",
                "default": default,
            }
        )


def test_a_feature_cannot_be_changed() -> None:
    for name in Categorical.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(ITEM, name, 4)


def test_the_owner_of_a_table_is_the_feature_itself_unless_it_shares() -> None:
    assert owner(ITEM) == "item_id"
    assert owner(Sequence(name="recent", side="user", share="item_id")) == "item_id"


def test_features_that_fit_together_pass() -> None:
    recent = Sequence(name="recent", side="user", dim=16, share="item_id", max_length=10)
    actions = Sequence(name="actions", side="user", max_length=10, along="recent")
    check_features((recent, ITEM, actions, Numeric(name="price", side="item")))


RECENT = Sequence(name="recent", side="user", max_length=10)


@pytest.mark.parametrize(
    ("features", "fact"),
    [
        ((ITEM, Numeric(name="item_id", side="item")), "two features of this name"),
        ((Categorical(name="x", side="user", share="item"),), "share = 'item'"),
        ((Numeric(name="price", side="item"), Categorical(name="x", side="user", share="price")), "share = 'price'"),
        ((Categorical(name="x", side="user", share="x"),), "share = 'x'"),
        (
            (
                ITEM,
                Categorical(name="y", side="item", dim=16, share="item_id"),
                Categorical(name="x", side="user", dim=16, share="y"),
            ),
            "share = 'y'",
        ),
        ((ITEM, Categorical(name="x", side="user", dim=8, share="item_id")), "dim 8 differs from dim 16"),
        (
            (
                Categorical(name="item_id", side="item", dtype="string"),
                Categorical(name="x", side="user", dtype="int64", share="item_id"),
            ),
            "dtype int64 differs from dtype string",
        ),
        ((Sequence(name="x", side="user", along="recent"),), "along = 'recent'"),
        ((ITEM, Sequence(name="x", side="item", along="item_id")), "along = 'item_id'"),
        ((Sequence(name="x", side="user", along="x"),), "along = 'x'"),
        ((RECENT, Sequence(name="x", side="item", max_length=10, along="recent")), "side or max_length"),
        ((RECENT, Sequence(name="x", side="user", max_length=9, along="recent")), "side or max_length"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_features_that_do_not_fit_together_are_refused_by_name(features: tuple[Feature, ...], fact: str) -> None:
    with pytest.raises(RunInvalid) as caught:
        check_features(features)
    assert fact in caught.value.fact
    assert caught.value.place == f"feature {features[-1].name!r}"
    assert caught.value.remedy
