"""The bundle: a directory that holds a model and everything needed to trust it.

Knows digests and files. Does not know what is inside `model.onnx`.

    manifest.json   what the model takes and answers, and the SHA-256 and size of every other file
    model.onnx      raw strings and numbers in, probabilities out
    golden.json     held-out rows with the scores the trained network gave them
    card.html       the model card a person reads

The digest of a bundle is the SHA-256 of its manifest.json: equal digests mean equal bundles.
Documented in docs/bundle-format.md.
"""

import errno
import hashlib
import os
import secrets
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from contract.errors import BundleCorrupt, BundleExists, BundleMissing, TargetUnwritable
from contract.manifest import (
    CARD,
    FORMAT_VERSION,
    GOLDEN,
    MANIFEST,
    MODEL,
    Calibration,
    FeatureReference,
    FileEntry,
    Golden,
    Input,
    Manifest,
    Metric,
    Provenance,
    Reference,
    Rows,
    ScoreReference,
    parse_golden,
    parse_manifest,
    seal,
)

__all__ = [
    "CARD",
    "FORMAT_VERSION",
    "GOLDEN",
    "MANIFEST",
    "MODEL",
    "Bundle",
    "Calibration",
    "FeatureReference",
    "FileEntry",
    "Golden",
    "Input",
    "Manifest",
    "Metric",
    "Provenance",
    "Reference",
    "Rows",
    "ScoreReference",
    "check_target",
    "parse_manifest",
    "publish_bundle",
    "read_bundle",
]

MAX_MANIFEST_BYTES = 16 * 2**20
OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every byte has been checked against its manifest."""

    manifest: Manifest
    digest: str
    files: dict[str, bytes]

    @property
    def golden(self) -> Golden:
        """The golden rows. Raises: BundleCorrupt."""
        return parse_golden(self.files[GOLDEN])


def read_bundle(directory: Path) -> Bundle:
    """Read every file once, following no link, and check it against the manifest.

    Raises: BundleMissing, BundleCorrupt, BundleTooNew.
    """
    try:
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _missing(directory, f"no bundle here ({error.strerror})") from None
    try:
        return _read_bundle(directory, folder)
    finally:
        os.close(folder)


def _read_bundle(directory: Path, folder: int) -> Bundle:
    """`folder` is open: what is read belongs together, even if `directory` is renamed meanwhile."""
    found = set(os.listdir(folder))
    if MANIFEST not in found:
        raise _missing(directory, "no bundle here (no manifest.json)")
    text = _read(folder, directory / MANIFEST, MAX_MANIFEST_BYTES)
    manifest = parse_manifest(text, place=str(directory / MANIFEST))
    for name in sorted(found - {MANIFEST, *manifest.files}):
        raise _corrupt(directory / name, "a file the manifest does not list")
    files: dict[str, bytes] = {}
    for name, entry in manifest.files.items():
        content = _read(folder, directory / name, entry.size)
        if len(content) != entry.size or hashlib.sha256(content).hexdigest() != entry.sha256:
            raise _corrupt(directory / name, "size or SHA-256 differs from the manifest")
        files[name] = content
    return Bundle(manifest, hashlib.sha256(text).hexdigest(), files)


def check_target(directory: Path) -> None:
    """Fail before the work, not after it: can a bundle be published at `directory`?

    Raises: BundleExists, TargetUnwritable.
    """
    try:
        if directory.is_symlink() or (directory.exists() and (not directory.is_dir() or any(directory.iterdir()))):
            raise _exists(directory)
        directory.parent.mkdir(parents=True, exist_ok=True)
        probe = _beside(directory)
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise _unwritable(directory, error) from None


def publish_bundle(directory: Path, manifest: Manifest, files: dict[str, bytes]) -> Bundle:
    """Write a bundle so that it appears at `directory` whole or not at all.

    `manifest.files` and `manifest.checksum` are filled in here. An existing bundle is never overwritten.
    Raises: BundleExists, TargetUnwritable, BundleCorrupt (not the files a bundle has).
    """
    check_target(directory)
    entries = {
        name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        for name, content in sorted(files.items())
    }
    text = seal(manifest.model_copy(update={"files": entries}))
    manifest = parse_manifest(text)
    staging = _beside(directory)
    try:
        staging.mkdir()
        for name, content in {**files, MANIFEST: text}.items():
            with open(staging / name, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        sync_folder(staging)
        staging.rename(directory)
        sync_folder(directory.parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise _exists(directory) from None
        raise _unwritable(directory, error) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Bundle(manifest, hashlib.sha256(text).hexdigest(), files)


def _read(folder: int, path: Path, limit: int) -> bytes:
    """Read a plain file of at most `limit` bytes."""
    try:
        with open(path.name, "rb", opener=lambda name, _: os.open(name, OPEN, dir_fd=folder)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _corrupt(path, "not a plain file")
            if status.st_size > limit:
                raise _corrupt(path, f"{status.st_size} bytes, where at most {limit} are expected")
            return file.read(status.st_size)
    except FileNotFoundError:
        raise _corrupt(path, "the file is absent") from None
    except OSError as error:
        raise _corrupt(path, f"cannot be read as a plain file ({error.strerror})") from None


def _beside(directory: Path) -> Path:
    """A new hidden name in the same folder, so that a rename is atomic."""
    return directory.parent / f".{directory.name}.{secrets.token_hex(4)}"


def sync_folder(path: Path) -> None:
    """What was renamed, made or removed in a folder stays so, also after the power failed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _missing(directory: Path, fact: str) -> BundleMissing:
    return BundleMissing(fact, place=str(directory), remedy="give the directory that `train` printed")


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
