"""A bundle as tables and as JSON."""

import json
from pathlib import Path

import pytest

from cli.main import main
from contract.bundle import MODEL, read_bundle


def test_the_tables_show_what_the_manifest_says(
    toy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["inspect", str(toy)]) == 0
    shown = capsys.readouterr().out
    bundle = read_bundle(toy)
    for text in (
        "toy 1",
        bundle.digest,
        "shared_bottom, 148 parameters",
        "0.6900 to 0.7300",
        "1.0000 x logit +0.0000",
        "last 4 strings",
        "as item_id",
        "is 10.0",
        "pctcvr",
        f"{bundle.manifest.files[MODEL].size:,}",
        bundle.manifest.files[MODEL].sha256[:16],
        *(feature.name for feature in bundle.manifest.features),
        *(task.name for task in bundle.manifest.tasks),
    ):
        assert text in shown, text


def test_json_is_the_manifest_with_its_digest(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(toy), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    bundle = read_bundle(toy)
    assert shown.pop("digest") == bundle.digest
    assert shown == bundle.manifest.model_dump(mode="json")


def test_a_damaged_bundle_is_not_shown(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in toy.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / MODEL).write_bytes(b"x")
    assert main(["inspect", str(copy)]) == 1
    assert "size or SHA-256 differs" in capsys.readouterr().err
