"""What a bundle says about itself: manifest.json, and the golden rows beside it.

Knows the fields, and the checksum that seals them. Does not know files, nor what is inside `model.onnx`.
Documented in docs/bundle-format.md.
"""

import hashlib
import json
from typing import Any, Literal

from pydantic import Field, ValidationError

from contract.errors import BundleCorrupt, BundleTooNew
from contract.features import Feature, Frozen, Side
from contract.tasks import Output, Task

FORMAT_VERSION = 1
MANIFEST, MODEL, GOLDEN, CARD = "manifest.json", "model.onnx", "golden.json", "card.html"
ROW_USER = "row_user"
UNSEALED = "0" * 64
UNKNOWN_WORDS = {"extra_forbidden", "literal_error", "union_tag_invalid"}


class Input(Frozen):
    """One input of the graph. U users, N candidates, L steps of a sequence: all free at run time."""

    name: str
    dtype: Literal["string", "int64", "float32"]
    side: Side
    shape: tuple[Literal["users", "candidates", "length"], ...]


class FileEntry(Frozen):
    """What a file of the bundle must be, to the byte."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class Calibration(Frozen):
    """Platt scaling in the graph: P(task | given) = sigmoid(slope * logit + intercept)."""

    task: str
    slope: float
    intercept: float


class FeatureReference(Frozen):
    """What the validation split looked like, for telling drift later."""

    name: str
    missing_rate: float
    unknown_rate: float | None = Field(default=None, description="share of present values outside the vocabulary")
    quantiles: tuple[float, ...] | None = Field(default=None, description="0 %, 10 %, ... 100 % of present numbers")
    mean_length: float | None = Field(default=None, description="of a sequence, before it is cut to max_length")


class ScoreReference(Frozen):
    """Deciles of an output on the validation split."""

    name: str
    mean: float
    quantiles: tuple[float, ...] = Field(description="0 %, 10 %, ... 100 %")


class Reference(Frozen):
    """Reference statistics of inputs and scores."""

    rows: int
    features: tuple[FeatureReference, ...] = ()
    scores: tuple[ScoreReference, ...] = ()


class Metric(Frozen):
    """One figure with its 95 % bootstrap interval, on the test split."""

    name: str
    output: str
    rows: str = Field(description="which rows: 'all', 'given' (where the task's condition held), 'truth'")
    value: float
    low: float
    high: float


class Provenance(Frozen):
    """Where the model comes from. No clock: two runs of one seed give one digest."""

    run: dict[str, Any]
    seed: int
    libraries: dict[str, str]
    data_fingerprint: str
    git_commit: str | None = None


class Manifest(Frozen):
    """The contract of one bundle."""

    format_version: int
    name: str
    version: str
    tasks: tuple[Task, ...]
    features: tuple[Feature, ...]
    inputs: tuple[Input, ...]
    row_user: str = ROW_USER
    outputs: tuple[Output, ...]
    architecture: str
    parameters: int
    calibration: tuple[Calibration, ...]
    reference: Reference
    metrics: tuple[Metric, ...] = ()
    parity: float = Field(description="largest |onnx - torch| over the rows checked before publishing")
    provenance: Provenance
    files: dict[str, FileEntry] = Field(default_factory=dict)
    checksum: str = Field(
        default=UNSEALED, pattern=r"^[0-9a-f]{64}$", description="of this file, itself taken as zeros"
    )


class Rows(Frozen):
    """Raw rows as JSON holds them: a list per feature, one value per user or per candidate; `null` is missing."""

    user: dict[str, list[Any]]
    candidates: dict[str, list[Any]]
    row_user: list[int] = Field(description="for each candidate, the index of its user")


class Golden(Frozen):
    """Rows and, for each output, the scores they must come out with."""

    rows: Rows
    scores: dict[str, list[float]]
    tolerance: float = 1e-5


def seal(manifest: Manifest) -> bytes:
    """The bytes of manifest.json, with `checksum` filled in: the SHA-256 of the same bytes with 64 zeros there."""
    text = manifest.model_copy(update={"checksum": UNSEALED}).model_dump_json(indent=1).encode()
    return _with_checksum(text, UNSEALED, hashlib.sha256(text).hexdigest())


def parse_manifest(text: bytes, *, place: str = MANIFEST) -> Manifest:
    """Parse manifest.json, refusing formats, fields and kinds this version does not know, and damage.

    Raises: BundleCorrupt, BundleTooNew.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raise _corrupt("not JSON", place) from None
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise _corrupt("no format_version", place)
    if version > FORMAT_VERSION:
        raise BundleTooNew(
            f"bundle format {version}, this Fullfunnel reads up to {FORMAT_VERSION}",
            place=place,
            remedy="upgrade Fullfunnel, or export with the version that serves",
        )
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        if any(item["type"] in UNKNOWN_WORDS for item in error.errors()):
            raise BundleTooNew(
                _first(error), place=place, remedy="upgrade Fullfunnel, or copy the bundle again"
            ) from None
        raise _corrupt(_first(error), place) from None
    if hashlib.sha256(_with_checksum(text, manifest.checksum, UNSEALED)).hexdigest() != manifest.checksum:
        raise _corrupt("its checksum is not that of its content", place)
    if set(manifest.files) != {MODEL, GOLDEN, CARD}:
        raise _corrupt("must list model.onnx, golden.json and card.html, and nothing else", place)
    return manifest


def parse_golden(text: bytes) -> Golden:
    """Parse golden.json. Raises: BundleCorrupt."""
    try:
        return Golden.model_validate_json(text)
    except ValidationError as error:
        raise _corrupt(_first(error), GOLDEN) from None


def _with_checksum(text: bytes, old: str, new: str) -> bytes:
    """Replace the last `old`: no field comes after the checksum."""
    before, _, after = text.rpartition(old.encode())
    return before + new.encode() + after


def _corrupt(fact: str, place: str) -> BundleCorrupt:
    return BundleCorrupt(fact, place=place, remedy="copy or export the bundle again")


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
