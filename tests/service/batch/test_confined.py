"""Nothing outside is opened, whatever is swapped in."""

import os
import threading
from pathlib import Path

import pytest

from contract.errors import PlaceForbidden
from service.batch.confined import FOLDER, beneath, root_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "root" / "a" / "file").write_text("inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("outside")
    return tmp_path / "root"


def read(root: Path, path: str) -> str:
    descriptor = beneath([str(root)], path, os.O_RDONLY)
    with os.fdopen(descriptor) as file:
        return file.read()


def test_files_below_are_opened_and_folders_made(root: Path) -> None:
    assert read(root, f"{root}/a/file") == "inside"
    os.close(beneath([str(root)], f"{root}/b/c", FOLDER, make=True))
    assert (root / "b" / "c").is_dir()
    with pytest.raises(FileNotFoundError):
        read(root, f"{root}/a/other")


@pytest.mark.parametrize(
    "path", ["{0}/../outside/file", "{0}-b/file", "/etc/hostname", "", "a/file", "{0}/a/../../outside"]
)
def test_what_is_not_below_is_refused(root: Path, path: str) -> None:
    with pytest.raises(PlaceForbidden):
        read(root, path.format(root))


def test_links_are_refused_wherever_they_stand(root: Path) -> None:
    (root / "link").symlink_to(root.parent / "outside")
    (root / "a" / "link").symlink_to(root.parent / "outside" / "file")
    (root / "a" / "within").symlink_to("file")
    for path in ("link/file", "link", "a/link", "a/within"):
        with pytest.raises(PlaceForbidden, match="link"):
            read(root, f"{root}/{path}")
    with pytest.raises(PlaceForbidden, match="link"):
        beneath([str(root)], f"{root}/link/new", FOLDER, make=True)
    assert os.listdir(root.parent / "outside") == ["file"]


def test_a_link_that_is_swapped_in_and_out_is_never_followed(root: Path) -> None:
    """Another thread turns the folder into a link to the outside and back, as fast as it can."""
    (root / "link").symlink_to(root.parent / "outside")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for one, other in (("a", "spare"), ("link", "a"), ("a", "link"), ("spare", "a")):
                (root / one).rename(root / other)

    thread = threading.Thread(target=swap)
    thread.start()
    found = {"inside": 0, "refused": 0}
    try:
        while min(found.values()) < 50:
            try:
                found[read(root, f"{root}/a/file")] += 1
            except (PlaceForbidden, FileNotFoundError, NotADirectoryError):
                found["refused"] += 1
    finally:
        done.set()
        thread.join()


def test_the_longest_name_is_not_the_nearest_root() -> None:
    assert root_of(["/data", "/data2"], "/data2/x") == "/data2"
    assert root_of(["/"], "/x") == "/"
