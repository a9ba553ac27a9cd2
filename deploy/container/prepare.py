"""Takes pip and its kin out of an image, and adds the user it runs as and the folders it writes to, while it is built.

Knows where installers are, in the public Python images and in Debian's. Does not know what runs later.
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

NAMES = ("pip", "setuptools", "wheel", "ensurepip", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")
NUMBER = 10001
USER = f"fullfunnel:x:{NUMBER}:{NUMBER}::/tmp:/usr/sbin/nologin\n"
GROUP = f"fullfunnel:x:{NUMBER}:\n"
FOLDERS = ("bundles", "data", "work")


def main() -> int:
    """Remove, add, and leave no time behind."""
    changed = {*remove(), *add_user(), *add_folders()}
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    for path in changed:
        os.utime(path, (epoch, epoch), follow_symlinks=False)
    return 0


def remove() -> set[Path]:
    """The folders that something was removed from."""
    folders = {Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")}
    folders = {folder for folder in (*folders, Path("/usr/lib/python3/dist-packages")) if folder.is_dir()}
    found = {path for folder in folders for name in NAMES for path in (folder / name, *folder.glob(f"{name}-*.*-info"))}
    found |= {path for folder in ("/usr/local/bin", "/usr/bin") for path in Path(folder).glob("pip*")}
    found = {path for path in found if path.exists() or path.is_symlink()}
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return {path.parent for path in found}


def add_user() -> set[Path]:
    """A name for the number that the images run as, for programs that ask for one."""
    for path, line in (("/etc/passwd", USER), ("/etc/group", GROUP)):
        with open(path, "a") as file:
            file.write(line)
    return {Path("/etc/passwd"), Path("/etc/group"), Path("/etc")}


def add_folders() -> set[Path]:
    """Where volumes are mounted: a new one takes its owner from here."""
    paths = {Path("/", name) for name in FOLDERS}
    for path in paths:
        path.mkdir()
        os.chown(path, NUMBER, NUMBER)
    return {*paths, Path("/")}


if __name__ == "__main__":
    sys.exit(main())
