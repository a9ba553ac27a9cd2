"""contract/bundle.py: a bundle appears whole or not at all, and is read whole and undamaged or not at all."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.bundle import CARD, MANIFEST, MODEL, check_target, publish_bundle, read_bundle
from contract.errors import BundleCorrupt, BundleExists, BundleInvalid, BundleMissing, BundleTooNew, TargetUnwritable
from tests.contract.small_bundle import FILES, GOLDEN_ROWS, MANIFEST_OF_FILES, sealed


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    publish_bundle(tmp_path / "bundle", MANIFEST_OF_FILES, FILES)
    return tmp_path / "bundle"


def test_what_is_published_is_read_back(tmp_path: Path) -> None:
    published = publish_bundle(tmp_path / "new" / "small" / "1", MANIFEST_OF_FILES, FILES)
    read = read_bundle(tmp_path / "new" / "small" / "1")
    assert read == published
    assert read.files == FILES
    assert read.golden == GOLDEN_ROWS
    assert read.digest == hashlib.sha256((tmp_path / "new/small/1/manifest.json").read_bytes()).hexdigest()
    assert {name: entry.size for name, entry in read.manifest.files.items()} == {n: len(c) for n, c in FILES.items()}
    assert os.listdir(tmp_path / "new" / "small") == ["1"], "nothing but the bundle"


def test_equal_content_gives_equal_digests_and_any_other_byte_another(tmp_path: Path) -> None:
    one, two = (publish_bundle(tmp_path / name, MANIFEST_OF_FILES, FILES) for name in ("a", "b"))
    other = publish_bundle(tmp_path / "c", MANIFEST_OF_FILES, {**FILES, CARD: b"<p>another card</p>"})
    assert one.digest == two.digest != other.digest


def test_a_bundle_may_be_reached_through_a_linked_directory(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(bundle)
    assert read_bundle(tmp_path / "current").digest == read_bundle(bundle).digest


# ------------------------------------------------------------------ damage


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_a_flipped_bit_in_any_file_is_refused(bundle: Path, name: str) -> None:
    content = (bundle / name).read_bytes()
    for position in range(0, len(content), max(1, len(content) // 25)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        (bundle / name).write_bytes(damaged)
        with pytest.raises(BundleInvalid, match=name):
            read_bundle(bundle)
    (bundle / name).write_bytes(content)
    read_bundle(bundle)


def _link_to_a_copy(path: Path) -> None:
    (path.parent.parent / "copy").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(path.parent.parent / "copy")


def _replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "emptied": lambda path: path.write_bytes(b""),
    "cut by a byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a byte longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "a link to a true copy": _link_to_a_copy,
    "a pipe that nobody writes": _replace_by_pipe,
    "a folder": _replace_by_folder,
}


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
@pytest.mark.parametrize("damage", DAMAGES)
def test_any_other_damage_to_any_file_is_refused_by_name(bundle: Path, name: str, damage: str) -> None:
    DAMAGES[damage](bundle / name)
    with pytest.raises(BundleCorrupt, match=name) as caught:
        read_bundle(bundle)
    assert caught.value.remedy
    assert ("plain file" in caught.value.fact) == damage.startswith(("a link", "a pipe", "a folder"))


@pytest.mark.parametrize("name", FILES)
def test_an_absent_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleCorrupt, match=f"{name}: the file is absent"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ["weights.bin", ".hidden", "Model.onnx", "model.onnx.data"])
def test_a_file_the_manifest_does_not_list_is_refused(bundle: Path, name: str) -> None:
    (bundle / name).write_bytes(b"")
    with pytest.raises(BundleCorrupt, match=f"{name}: a file the manifest does not list"):
        read_bundle(bundle)


def test_a_folder_or_dangling_link_beside_the_files_is_refused_too(bundle: Path) -> None:
    (bundle / "extra").mkdir()
    with pytest.raises(BundleCorrupt, match="extra"):
        read_bundle(bundle)
    (bundle / "extra").rmdir()
    (bundle / "extra").symlink_to("nowhere")
    with pytest.raises(BundleCorrupt, match="extra"):
        read_bundle(bundle)


def test_a_bundle_of_a_newer_format_is_refused_before_its_files_are_read(bundle: Path) -> None:
    document = json.loads((bundle / MANIFEST).read_bytes())
    (bundle / MANIFEST).write_bytes(sealed({**document, "format_version": 2}))
    (bundle / MODEL).unlink()
    with pytest.raises(BundleTooNew, match="bundle format 2"):
        read_bundle(bundle)


@pytest.mark.parametrize("size", [2**40, 2**63 - 1, 2**80])
def test_a_size_that_is_not_true_costs_no_memory(bundle: Path, size: int) -> None:
    document = json.loads((bundle / MANIFEST).read_bytes())
    document["files"][MODEL]["size"] = size
    (bundle / MANIFEST).write_bytes(sealed(document))
    with pytest.raises(BundleCorrupt, match=MODEL):
        read_bundle(bundle)


def test_a_giant_manifest_is_refused_by_its_size(bundle: Path) -> None:
    with open(bundle / MANIFEST, "r+b") as file:
        file.truncate(2**34)
    with pytest.raises(BundleCorrupt, match="bytes, where at most"):
        read_bundle(bundle)


@pytest.mark.parametrize("kind", ["absent", "a file", "an empty folder", "a name too long", "below a file"])
def test_where_there_is_no_bundle_it_says_so(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("x" * 5000 if kind == "a name too long" else "target")
    if kind in {"a file", "below a file"}:
        path.write_bytes(b"")
    if kind == "an empty folder":
        path.mkdir()
    if kind == "below a file":
        path = path / "bundle"
    with pytest.raises(BundleMissing, match="no bundle here"):
        read_bundle(path)


def test_what_is_read_belongs_together_even_if_another_bundle_takes_the_place(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_bundle(bundle)
    publish_bundle(tmp_path / "other", MANIFEST_OF_FILES, {**FILES, MODEL: b"another model"})
    listdir = os.listdir

    def swap(path: int) -> list[str]:
        bundle.rename(tmp_path / "old")
        (tmp_path / "other").rename(bundle)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", swap)
    assert read_bundle(bundle) == before


# ------------------------------------------------------------------ publishing


def _link_to_nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


def _folder_with_a_file(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("mine")


OCCUPIED: dict[str, Callable[[Path], object]] = {
    "a bundle": lambda path: publish_bundle(path, MANIFEST_OF_FILES, {**FILES, MODEL: b"the one that was here"}),
    "a file": lambda path: path.write_text("mine"),
    "a folder with a file": _folder_with_a_file,
    "a dangling link": _link_to_nowhere,
}


def _tree(path: Path) -> dict[str, bytes | str]:
    return {
        str(entry.relative_to(path)): str(entry.readlink()) if entry.is_symlink() else entry.read_bytes()
        for entry in path.rglob("*")
        if entry.is_symlink() or entry.is_file()
    }


@pytest.mark.parametrize("kind", OCCUPIED)
def test_what_is_there_is_never_overwritten(tmp_path: Path, kind: str) -> None:
    OCCUPIED[kind](tmp_path / "target")
    before = _tree(tmp_path)
    with pytest.raises(BundleExists, match=r"target.*choose another"):
        check_target(tmp_path / "target")
    with pytest.raises(BundleExists):
        publish_bundle(tmp_path / "target", MANIFEST_OF_FILES, FILES)
    assert _tree(tmp_path) == before


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    publish_bundle(tmp_path / "target", MANIFEST_OF_FILES, FILES)
    read_bundle(tmp_path / "target")


def test_checking_a_target_leaves_nothing_there(tmp_path: Path) -> None:
    check_target(tmp_path / "parent" / "target")
    assert os.listdir(tmp_path / "parent") == []


@pytest.mark.parametrize("place", ["file/bundle", "x" * 300, "/proc/no/bundle"])
def test_where_nothing_can_be_written_it_says_so(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    for function in (check_target, lambda path: publish_bundle(path, MANIFEST_OF_FILES, FILES)):
        with pytest.raises(TargetUnwritable, match="cannot be written"):
            function(tmp_path / place)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("files", [{}, {MODEL: b""}, {**FILES, "more": b""}, {**FILES, MANIFEST: b""}], ids=str)
def test_only_the_files_of_a_bundle_can_be_published(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(BundleCorrupt, match="must list"):
        publish_bundle(tmp_path / "bundle", MANIFEST_OF_FILES, files)
    assert os.listdir(tmp_path) == []


FULL_DISK = """
import resource, sys
from pathlib import Path
from contract.bundle import publish_bundle
from contract.errors import TargetUnwritable
from tests.contract.small_bundle import FILES, MANIFEST_OF_FILES
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    publish_bundle(Path(sys.argv[1]), MANIFEST_OF_FILES, FILES)
except TargetUnwritable as error:
    sys.exit(str(error))
"""


def test_nothing_is_left_when_a_file_cannot_be_written_to_its_end(tmp_path: Path) -> None:
    for limit in (0, 700, len(FILES[MODEL])):
        command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "bundle"), str(limit)]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 1 and "cannot be written (File too large)" in result.stderr
        assert os.listdir(tmp_path) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_nothing_is_left_when_ctrl_c_comes_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync
    for moment in range(5):  # three files and the manifest, then their folder
        calls = 0

        def interrupt(descriptor: int, moment: int = moment) -> None:
            nonlocal calls
            calls += 1
            if calls > moment:
                os.kill(os.getpid(), signal.SIGINT)
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            publish_bundle(tmp_path / "bundle", MANIFEST_OF_FILES, FILES)
        assert os.listdir(tmp_path) == []


def test_of_many_publishers_one_wins_and_the_others_are_told(tmp_path: Path) -> None:
    start, results = threading.Barrier(8), list[str]()

    def publish(number: int) -> None:
        start.wait()
        try:
            results.append(
                publish_bundle(tmp_path / "bundle", MANIFEST_OF_FILES, {**FILES, MODEL: bytes(number)}).digest
            )
        except BundleExists as error:
            results.append(type(error).__name__)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count("BundleExists") == 7
    assert read_bundle(tmp_path / "bundle").digest in results
    assert os.listdir(tmp_path) == ["bundle"]
