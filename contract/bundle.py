"""The bundle: a directory that holds a model and everything needed to trust it.

Knows the manifest, digests and files. Does not know what is inside `model.onnx`.

    manifest.json   what the model takes and answers, and the SHA-256 and size of every other file
    model.onnx      raw strings and numbers in, probabilities out
    golden.json     held-out rows with the scores the trained network gave them
    card.html       the model card a person reads

The digest of a bundle is the SHA-256 of its manifest.json: equal digests mean equal bundles.
Documented in docs/bundle-format.md.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from contract.errors import BundleCorrupt, BundleExists, BundleMissing, BundleTooNew, TargetUnwritable
from contract.features import Feature, Frozen, Side
from contract.tasks import Output, Task

FORMAT_VERSION = 1
MANIFEST, MODEL, GOLDEN, CARD = "manifest.json", "model.onnx", "golden.json", "card.html"
MAX_MANIFEST_BYTES = 16 * 2**20


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
    row_user: str = "row_user"
    outputs: tuple[Output, ...]
    architecture: str
    parameters: int
    calibration: tuple[Calibration, ...]
    reference: Reference
    metrics: tuple[Metric, ...] = ()
    parity: float = Field(description="largest |onnx - torch| over the rows checked before publishing")
    provenance: Provenance
    files: dict[str, FileEntry] = Field(default_factory=dict)


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


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every byte has been checked against its manifest."""

    manifest: Manifest
    digest: str
    files: dict[str, bytes]

    @property
    def golden(self) -> Golden:
        """The golden rows. Raises: BundleCorrupt."""
        try:
            return Golden.model_validate_json(self.files[GOLDEN])
        except ValidationError as error:
            raise BundleCorrupt(_first(error), place=GOLDEN, remedy="export the bundle again") from None


def read_bundle(directory: Path) -> Bundle:
    """Read every file once, following no link, and check it against the manifest.

    Raises: BundleMissing, BundleCorrupt, BundleTooNew.
    """
    if not (directory / MANIFEST).exists():
        raise BundleMissing(
            "no bundle here (no manifest.json)", place=str(directory), remedy="give the directory that `train` printed"
        )
    text = _read(directory / MANIFEST, MAX_MANIFEST_BYTES)
    manifest = parse_manifest(text, place=str(directory / MANIFEST))
    expected = {MANIFEST, *manifest.files}
    found = set(os.listdir(directory))
    for name in sorted(found - expected):
        raise _corrupt(directory / name, "a file the manifest does not list")
    files: dict[str, bytes] = {}
    for name, entry in manifest.files.items():
        if name not in found:
            raise _corrupt(directory / name, "the file is absent")
        content = _read(directory / name, entry.size)
        if len(content) != entry.size or hashlib.sha256(content).hexdigest() != entry.sha256:
            raise _corrupt(directory / name, "size or SHA-256 differs from the manifest")
        files[name] = content
    return Bundle(manifest, hashlib.sha256(text).hexdigest(), files)


def parse_manifest(text: bytes, *, place: str = MANIFEST) -> Manifest:
    """Parse manifest.json, refusing formats and fields this version does not know.

    Raises: BundleCorrupt, BundleTooNew.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raise BundleCorrupt("not JSON", place=place, remedy="export the bundle again") from None
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BundleCorrupt("no format_version", place=place, remedy="export the bundle again")
    if version > FORMAT_VERSION:
        raise BundleTooNew(
            f"bundle format {version}, this Fullfunnel reads up to {FORMAT_VERSION}",
            place=place,
            remedy="upgrade Fullfunnel, or export with the version that serves",
        )
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        if any(item["type"] == "extra_forbidden" for item in error.errors()):
            raise BundleTooNew(_first(error), place=place, remedy="upgrade Fullfunnel") from None
        raise BundleCorrupt(_first(error), place=place, remedy="export the bundle again") from None
    if set(manifest.files) != {MODEL, GOLDEN, CARD}:
        raise BundleCorrupt("must list model.onnx, golden.json and card.html, and nothing else", place=place)
    return manifest


def check_target(directory: Path) -> None:
    """Fail before the work, not after it: can a bundle be published at `directory`?

    Raises: BundleExists, TargetUnwritable.
    """
    if directory.is_symlink() or (directory.exists() and (not directory.is_dir() or any(directory.iterdir()))):
        raise _exists(directory)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        probe = directory.parent / f".{directory.name}.{secrets.token_hex(4)}"
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise _unwritable(directory, error) from None


def publish_bundle(directory: Path, manifest: Manifest, files: dict[str, bytes]) -> Bundle:
    """Write a bundle so that it appears at `directory` whole or not at all.

    `manifest.files` is filled in here. An existing bundle is never overwritten.
    Raises: BundleExists, TargetUnwritable.
    """
    check_target(directory)
    entries = {
        name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        for name, content in sorted(files.items())
    }
    manifest = manifest.model_copy(update={"files": entries})
    text = manifest.model_dump_json(indent=1).encode()
    parse_manifest(text)
    staging = directory.parent / f".{directory.name}.{secrets.token_hex(4)}"
    try:
        staging.mkdir()
        for name, content in {**files, MANIFEST: text}.items():
            with open(staging / name, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync_directory(staging)
        staging.rename(directory)
        _sync_directory(directory.parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise _exists(directory) from None
        raise _unwritable(directory, error) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Bundle(manifest, hashlib.sha256(text).hexdigest(), files)


def _read(path: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes (one byte more is returned if there is more)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _corrupt(path, f"cannot be read as a plain file ({errno.errorcode.get(error.errno or 0)})") from None
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _corrupt(path, "not a plain file")
        return file.read(limit + 1)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _corrupt(path: Path, fact: str) -> BundleCorrupt:
    return BundleCorrupt(fact, place=str(path), remedy="copy or export the bundle again")


def _exists(directory: Path) -> BundleExists:
    return BundleExists(
        "something is there already, and a published bundle is never overwritten",
        place=str(directory),
        remedy="choose another [bundle] version or --output",
    )


def _unwritable(directory: Path, error: OSError) -> TargetUnwritable:
    return TargetUnwritable(
        f"cannot be written ({error.strerror})", place=str(directory), remedy="choose another --output or its rights"
    )


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
