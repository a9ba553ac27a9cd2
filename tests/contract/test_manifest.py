"""contract/manifest.py: a manifest is understood whole and undamaged, or refused."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from contract.bundle import CARD, GOLDEN, MODEL
from contract.errors import BundleCorrupt, BundleInvalid, BundleTooNew
from contract.manifest import FORMAT_VERSION, FileEntry, Golden, Manifest, parse_golden, parse_manifest, seal
from tests.contract.small_bundle import FILES, GOLDEN_ROWS, MANIFEST_OF_FILES, sealed

FULL = MANIFEST_OF_FILES.model_copy(
    update={"files": {name: FileEntry(sha256="ab" * 32, size=3) for name in (MODEL, GOLDEN, CARD)}}
)
TEXT = seal(FULL)


def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(TEXT)
    return document


def test_what_is_sealed_is_read_back() -> None:
    manifest = parse_manifest(TEXT)
    assert manifest.model_copy(update={"checksum": FULL.checksum}) == FULL
    assert seal(manifest) == TEXT, "sealing again changes nothing"


def test_every_optional_field_has_been_tried() -> None:
    assert MANIFEST_OF_FILES.model_fields_set >= set(Manifest.model_fields) - {"files", "row_user", "checksum"}


def test_no_bit_can_change_unnoticed() -> None:
    for position in range(len(TEXT)):
        for bit in (0, 1, 2, 3, 4, 5, 6, 7) if position % 16 == 0 else (position % 8,):
            damaged = bytearray(TEXT)
            damaged[position] ^= 1 << bit
            with pytest.raises(BundleInvalid):
                parse_manifest(bytes(damaged))


def test_no_end_can_be_missing() -> None:
    for length in range(0, len(TEXT) - 1, 7):
        with pytest.raises(BundleCorrupt):
            parse_manifest(TEXT[:length])
    with pytest.raises(BundleCorrupt):
        parse_manifest(TEXT + b" ")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'"manifest"',
        b"{}",
        b"[" * 100_000,
        b'{"format_version": ' + b"9" * 5000 + b"}",
    ],
    ids=["empty", "bytes", "list", "null", "string", "object", "deep", "many digits"],
)
def test_what_is_no_manifest_is_refused_in_words(text: bytes) -> None:
    with pytest.raises(BundleCorrupt) as caught:
        parse_manifest(text, place="here/manifest.json")
    assert caught.value.place == "here/manifest.json"
    assert caught.value.remedy


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.0, None])
def test_a_format_version_that_is_none_is_refused(version: object) -> None:
    with pytest.raises(BundleCorrupt, match="format_version"):
        parse_manifest(sealed({**_document(), "format_version": version}))


def test_a_newer_format_says_what_to_upgrade() -> None:
    newer = {"format_version": FORMAT_VERSION + 1, "whatever": "it holds"}
    with pytest.raises(BundleTooNew, match=r"reads up to 1.*upgrade"):
        parse_manifest(json.dumps(newer).encode())


def _with(path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    document = _document()
    table: Any = document
    for part in path[:-1]:
        table = table[part]
    table[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("signature",), "abc"),
        (("features", 0, "tokenizer"), "bpe"),
        (("features", 0, "kind"), "image"),
        (("provenance", "clock"), 1),
        (("features", 3, "scale"), "rank"),
        (("files", MODEL, "compression"), "zstd"),
    ],
    ids=str,
)
def test_a_field_or_kind_of_a_later_version_is_refused_as_such(path: tuple[str | int, ...], value: object) -> None:
    with pytest.raises(BundleTooNew, match="upgrade"):
        parse_manifest(sealed(_with(path, value)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("name",), None),
        (("tasks", 0, "label"), ""),
        (("parity",), "small"),
        (("files", MODEL, "sha256"), "AB" * 32),
        (("files", MODEL, "size"), -1),
        (("files",), {}),
        (("files", "weights.bin"), {"sha256": "ab" * 32, "size": 3}),
        (("files", "../model.onnx"), {"sha256": "ab" * 32, "size": 3}),
        (("features", 0, "default"), 3),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_even_under_a_right_checksum(path: tuple[str | int, ...], value: object) -> None:
    with pytest.raises(BundleCorrupt):
        parse_manifest(sealed(_with(path, value)))


def test_the_helper_that_seals_other_documents_seals_rightly() -> None:
    assert parse_manifest(sealed(_document())).name == "small"


def test_a_changed_document_needs_a_new_checksum() -> None:
    with pytest.raises(BundleCorrupt, match="checksum"):
        parse_manifest(json.dumps(_with(("calibration", 0, "slope"), 2.0)).encode())


def test_golden_rows_are_read_back_and_damage_is_named() -> None:
    assert parse_golden(FILES[GOLDEN]) == GOLDEN_ROWS
    for text in (b"", b"{}", b"[1]", FILES[GOLDEN][:-1], FILES[GOLDEN].replace(b"0.25", b"NaN", 1)):
        with pytest.raises(BundleCorrupt, match=r"golden\.json"):
            parse_golden(text)


def _field_names(annotation: Any) -> set[str]:
    """Names of the fields of a model and of all models in it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        inner = (_field_names(field.annotation) for field in annotation.model_fields.values())
        return set(annotation.model_fields).union(*inner)
    return set().union(*map(_field_names, get_args(annotation)))


@pytest.mark.parametrize("model", [Manifest, Golden])
def test_every_field_stands_in_the_page_about_the_format(model: type[BaseModel]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "bundle-format.md").read_text()
    names = _field_names(model)
    assert {"rows", "tolerance"} <= names or {"sha256", "along", "max_length", "low"} <= names, "nested fields too"
    assert names - set(re.findall(r"`(\w+)`", page)) == set()


def test_the_page_about_the_format_names_its_version() -> None:
    page = (Path(__file__).parents[2] / "docs" / "bundle-format.md").read_text()
    assert page.startswith(f"# The bundle format, version {FORMAT_VERSION}\n")
