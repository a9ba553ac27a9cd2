"""Which files an input is: a file, a folder, a glob; here or in an object store; in an order that never varies.

Knows names, sizes and Hive's `key=value` folders. Does not know what the files hold.
"""

import fnmatch
import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs

from contract.errors import DataInvalid, SourceMissing
from service.batch.formats import FORMATS, format_named, format_of
from service.batch.formats.codec import Format
from service.batch.job import File
from service.batch.stores import is_remote, located, url_of

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
MAGIC = re.compile(r"[*?\[]")
Found = tuple[str, int, str]  # path, size, stamp


def find(path: str, format_name: str | None) -> tuple[list[File], Format]:
    """The files of an input in natural order (part-2 before part-10), and their format.

    What begins with a dot or an underscore inside a folder is no input.
    Raises: SourceMissing, DataInvalid, SettingInvalid.
    """
    try:
        root, found = _remote(path) if is_remote(path) else _local(path)
    except (OSError, pa.ArrowException) as error:
        raise SourceMissing(
            f"cannot be looked at ({str(error).splitlines()[0]})", place=path, remedy="check the path and its rights"
        ) from None
    if not found:
        raise SourceMissing("no such file, folder or match", place=path, remedy="check the path")
    found.sort(key=lambda entry: natural(entry[0]))
    chosen, kept = _format(path, [name for name, _, _ in found], format_name)
    files = [
        File(name, size, stamp, partitions(name.removeprefix(root))) for name, size, stamp in found if name in kept
    ]
    keys = {tuple(file.partitions) for file in files}
    if len(keys) > 1:
        raise DataInvalid(
            f"folders of different partitions ({' and '.join(str(list(key)) for key in sorted(keys)[:2])})",
            place=path,
            remedy="score one level of folders at a time, or name the files with a glob",
        )
    return files, chosen


def would_find(path: str, other: str) -> bool:
    """Whether files inside a folder `other` of this machine would be found as those of the input `path`.

    >>> would_find("/log", "/log/day=1/scores"), would_find("/log", "/log/_scores"), would_find("/log/*.csv", "/log/b")
    (True, False, False)
    """
    if is_remote(path):
        return False
    path, other = (os.path.realpath(os.path.expanduser(each)) for each in (path, other))  # noqa: PTH111
    if MAGIC.search(path) and not os.path.exists(path):  # noqa: PTH110
        return _pattern(path).fullmatch(other) is not None
    return other.startswith(f"{path}/") and not any(map(_hidden, other[len(path) + 1 :].split("/")))


def natural(path: str) -> tuple[list[tuple[int, str]], str]:
    """A key that sorts numbers in names as numbers.

    >>> sorted(["b-10", "b-9", "a"], key=natural)
    ['a', 'b-9', 'b-10']
    """
    pieces = re.findall(r"([0-9]+)|([^0-9]+)", path)
    return [(int(number) if number else -1, text) for number, text in pieces], path


def partitions(path: str) -> dict[str, str | None]:
    """What Hive's folders say of a file.

    >>> partitions("/log/day=2024-05-01/city=K%C3%B6ln/part-0.parquet")
    {'day': '2024-05-01', 'city': 'Köln'}
    """
    found: dict[str, str | None] = {}
    for folder in path.split("/")[:-1]:
        key, equals, value = folder.partition("=")
        if equals and key:
            found[unquote(key)] = None if value == HIVE_NULL else unquote(value)
    return found


def _local(path: str) -> tuple[str, list[Found]]:
    path = os.path.expanduser(path)  # noqa: PTH111
    roots = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) and not os.path.exists(path) else [path]  # noqa: PTH110
    names = dict.fromkeys(name for root in roots for name in _inside(root))
    found: list[Found] = []
    for name in names:
        status = Path(name).stat()
        found.append((name, status.st_size, str(status.st_mtime_ns)))
    return "", found


def _inside(root: str) -> Iterable[str]:
    """A file itself; of a folder, all files."""
    if not os.path.isdir(root):  # noqa: PTH112
        return [root] if os.path.exists(root) else []  # noqa: PTH110
    names = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not _hidden(name)]
        names += [f"{folder.rstrip('/')}/{name}" for name in files if not _hidden(name)]
    return names


def _remote(path: str) -> tuple[str, list[Found]]:
    filesystem, inside = located(path)
    magic = MAGIC.search(inside)
    base = inside[: inside.rfind("/", 0, magic.start())] if magic else inside.rstrip("/")
    info = filesystem.get_file_info(base)
    if info.type == pyarrow.fs.FileType.File:
        infos = [info]
    else:
        selector = pyarrow.fs.FileSelector(base, recursive=True, allow_not_found=True)
        infos = [one for one in filesystem.get_file_info(selector) if one.type == pyarrow.fs.FileType.File]
        infos = [one for one in infos if not any(map(_hidden, one.path[len(base) :].split("/")))]
    if magic:
        pattern = _pattern(inside)
        infos = [one for one in infos if pattern.fullmatch(one.path)]
    return "", [(url_of(path, one.path), one.size, str(one.mtime_ns)) for one in infos]


def _pattern(text: str) -> re.Pattern[str]:
    """A glob as a regular expression: `*` stays inside a folder, `**` does not; a folder means what is in it."""
    pieces = []
    for piece in re.split(r"(\*\*/?)", text):
        if piece.startswith("**"):
            pieces.append("(?:.*/)?" if piece.endswith("/") else ".*")
        else:
            one = fnmatch.translate(piece).removeprefix("(?s:").removesuffix(")\\Z").removesuffix(")\\z")
            pieces.append(one.replace(".*", "[^/]*"))
    return re.compile("".join(pieces) + "(?:/.*)?")


def _hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _format(path: str, names: list[str], format_name: str | None) -> tuple[Format, set[str]]:
    """The format, and the files that are of it."""
    if format_name is not None:
        return format_named(format_name), set(names)
    by_format: dict[str, set[str]] = {}
    for name in names:
        if found := format_of(name):
            by_format.setdefault(found.name, set()).add(name)
    if len(by_format) == 1:
        ((name, kept),) = by_format.items()
        return format_named(name), kept
    known = ", ".join(suffix for each in FORMATS for suffix in each.suffixes)
    fact = f"holds files of several formats ({', '.join(sorted(by_format))})"
    raise DataInvalid(
        fact if by_format else f"no ending tells a format (known are {known})",
        place=path,
        remedy="name the files with a glob, or the format with --input-format",
    )
