"""Features: what a row may hold, and what becomes of missing and unknown values.

Knows names, kinds and policies. Does not know how a vocabulary is fitted (training) nor how values reach
the graph (the service pads and types them by the manifest; the graph does the rest).

A raw value is a string, an int64, a float32, or a list of strings or int64. A missing one is `null` on the
wire, and on the graph's inputs the sentinel of its type: "", INT64_MISSING, NaN, and padding in sequences.

A categorical value becomes a row of an embedding table: row MISSING_ROW for a missing value, UNKNOWN_ROW for
one the vocabulary does not hold, FIRST_ROW onwards for the vocabulary, most frequent first, or for the hash:
FIRST_ROW + MurmurHash3(value, seed 0) mod buckets.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contract.errors import RunInvalid

Side = Literal["user", "item"]
Dtype = Literal["string", "int64"]
Missing = Literal["own", "default", "refuse"]

STRING_MISSING = ""
INT64_MISSING = -(2**63)
MISSING_ROW, UNKNOWN_ROW, FIRST_ROW = 0, 1, 2

Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\[\]]+$")]


class Frozen(BaseModel):
    """Read-only, and refuses what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Embedded(Frozen):
    """What features that look values up in an embedding table have in common.

    `buckets` chooses the hash; otherwise the vocabulary is every value seen `min_count` times in the training
    split. Rarer values train the unknown row, so that unseen ones meet a trained row in production.
    `share` names the feature whose table, and vocabulary or hash, this one uses.
    """

    name: Name
    side: Side
    dtype: Dtype | None = Field(default=None, description="taken from the column when not given")
    dim: int = Field(default=8, ge=1, le=1024)
    min_count: int = Field(default=2, ge=1)
    buckets: int | None = Field(default=None, ge=1, le=2**31 - 8)
    share: str | None = None


class Categorical(Embedded):
    """One value. `missing`: its own row, the `default` value's row, or refused."""

    kind: Literal["categorical"] = "categorical"
    missing: Missing = "own"
    default: str | int | None = None
    unknown: Literal["own", "missing"] = "own"

    @model_validator(mode="after")
    def _default_is_declared(self) -> Self:
        _check_default(self)
        dtype = "string" if isinstance(self.default, str) else "int64"
        if self.default is not None and self.dtype not in (None, dtype):
            raise ValueError(f"`default = {self.default!r}` is no {self.dtype}")
        return self


class Numeric(Frozen):
    """One number. Missing is a state of its own (an indicator beside the number), the `default`, or refused.

    `standardise`: (x - mean) / std. `log1p`: sign(x) log(1 + |x|), then standardised. `quantile`: the quantile
    bucket, as one step function per edge. `piecewise`: the piecewise-linear encoding of Gorishniy et al. 2022
    (arXiv 2203.05556, section 3.2) with quantile edges. `bins` is the number of buckets of the last two.
    """

    kind: Literal["numeric"] = "numeric"
    name: Name
    side: Side
    scale: Literal["standardise", "log1p", "quantile", "piecewise"] = "standardise"
    bins: int = Field(default=16, ge=2, le=1024)
    missing: Missing = "own"
    default: float | None = None

    @model_validator(mode="after")
    def _default_is_declared(self) -> Self:
        _check_default(self)
        return self


class Sequence(Embedded):
    """Categorical values in time order, oldest first; the last `max_length` are kept.

    Missing members are dropped; a missing sequence is an empty one. `along` names the sequence this one runs
    parallel to (a property of each step: behaviour type, scene); both must be equally long in every row.
    """

    kind: Literal["sequence"] = "sequence"
    max_length: int = Field(default=20, ge=1, le=4096)
    along: str | None = None


Feature = Annotated[Categorical | Numeric | Sequence, Field(discriminator="kind")]


def _check_default(feature: "Categorical | Numeric") -> None:
    if (feature.missing == "default") != (feature.default is not None):
        raise ValueError('`missing = "default"` and `default = ...` go together')


def owner(feature: Categorical | Sequence) -> str:
    """Name of the feature whose table `feature` looks up."""
    return feature.share or feature.name


def check_features(features: tuple[Feature, ...]) -> None:
    """Check what one feature cannot know alone.

    Raises: RunInvalid, with the feature's name as its place.
    """
    by_name: dict[str, Feature] = {}
    for feature in features:
        if feature.name in by_name:
            raise RunInvalid("two features of this name", place=_place(feature), remedy="rename or remove one")
        by_name[feature.name] = feature
    for feature in features:
        if isinstance(feature, Numeric):
            continue
        if feature.share is not None:
            _check_share(feature, by_name.get(feature.share))
        if isinstance(feature, Sequence) and feature.along is not None:
            _check_along(feature, by_name.get(feature.along))


def _check_share(feature: Categorical | Sequence, other: Feature | None) -> None:
    if other is None or isinstance(other, Numeric) or other.share is not None:
        raise RunInvalid(
            f"`share = {feature.share!r}` does not name a categorical or sequence feature with a table of its own",
            place=_place(feature),
            remedy="name the feature that owns the table",
        )
    if feature.dim != other.dim:
        raise RunInvalid(
            f"dim {feature.dim} differs from dim {other.dim} of {other.name!r}, whose table it shares",
            place=_place(feature),
            remedy="give both the same dim",
        )
    if feature.dtype and other.dtype and feature.dtype != other.dtype:
        raise RunInvalid(
            f"dtype {feature.dtype} differs from dtype {other.dtype} of {other.name!r}, whose table it shares",
            place=_place(feature),
            remedy="give both the same dtype",
        )


def _check_along(feature: Sequence, other: Feature | None) -> None:
    if not isinstance(other, Sequence) or other.along is not None:
        raise RunInvalid(
            f"`along = {feature.along!r}` does not name a sequence",
            place=_place(feature),
            remedy="name the sequence it runs parallel to",
        )
    if (feature.side, feature.max_length) != (other.side, other.max_length):
        raise RunInvalid(
            f"side or max_length differs from {other.name!r}, to which it runs parallel",
            place=_place(feature),
            remedy="give both the same side and max_length",
        )


def _place(feature: Feature) -> str:
    return f"feature {feature.name!r}"
