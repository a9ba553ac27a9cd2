"""Where files lie: on this machine, or in an object store that pyarrow or fsspec knows.

Knows paths, URLs and the environment's usual variables for S3. Does not know formats.
"""

import os
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.fs

from contract.errors import SettingInvalid, SourceMissing
from service.batch import confined

S3_OPTIONS = {
    "endpoint_override": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
}


def is_remote(path: str) -> bool:
    """Whether a path is a URL."""
    return "://" in path


def opened(path: str, mapped: bool = False) -> pa.NativeFile:
    """A file to read, at any place; `mapped` into memory where it is on this machine. Raises: what pyarrow raises."""
    if confined.is_confined() and not is_remote(path):
        with confined.opened(path) as inside:
            return pa.memory_map(inside) if mapped and os.path.getsize(inside) else pa.OSFile(inside)  # noqa: PTH202
    filesystem, inside = located(path)
    if mapped and not is_remote(path) and os.path.getsize(inside):  # noqa: PTH202
        return pa.memory_map(inside)
    return filesystem.open_input_file(inside)


def located(path: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The filesystem of a path, and the path inside it.

    Raises: SettingInvalid, SourceMissing.
    """
    if not is_remote(path):
        return _local(), os.path.abspath(path)  # noqa: PTH100
    scheme, _, rest = path.partition("://")
    if scheme == "s3":
        return _s3(), rest
    return _other(scheme, path)


def url_of(path: str, inside: str) -> str:
    """The URL of a path inside the filesystem that `path` lies in."""
    return f"{path.partition('://')[0]}://{inside}" if is_remote(path) else inside


@lru_cache(maxsize=1)
def _local() -> pyarrow.fs.FileSystem:
    return pyarrow.fs.LocalFileSystem()


@lru_cache(maxsize=1)
def _s3() -> pyarrow.fs.FileSystem:
    """S3, or what speaks like it at the endpoint that the environment names."""
    options: dict[str, Any] = {}
    for option, variables in S3_OPTIONS.items():
        if value := next((os.environ[name] for name in variables if os.environ.get(name)), None):
            options[option] = value
    if options.get("endpoint_override", "").startswith("http://"):
        options["scheme"] = "http"
    return pyarrow.fs.S3FileSystem(**options)


def _other(scheme: str, path: str) -> tuple[pyarrow.fs.FileSystem, str]:
    try:
        filesystem, inside = pyarrow.fs.FileSystem.from_uri(path)
        return filesystem, inside
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # of a scheme that it does not know; perhaps fsspec does
        pass
    try:
        import fsspec  # type: ignore[import-untyped, unused-ignore]

        filesystem = fsspec.filesystem(scheme)
    except ImportError:
        raise SettingInvalid(
            f"nothing that is installed reads {scheme}://",
            place=path,
            remedy="install fsspec with the package for this store, or copy the files",
        ) from None
    except ValueError as error:
        raise SourceMissing(
            f"no such kind of place ({error})", place=path, remedy="give a path, or a URL such as s3://bucket/folder"
        ) from None
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem)), filesystem._strip_protocol(path)
