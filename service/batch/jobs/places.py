"""Which paths and URLs a job may touch: those below folders and prefixes that the service's operator has named.

What is said here of a path is said of its text; that no link leads elsewhere is seen when it is opened
(`service/batch/confined.py`). Knows text. Does not know what is there.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from contract.errors import PlaceForbidden, SettingInvalid
from service.batch.confined import root_of

MAX_PATH = 4096
STRANGE = re.compile(r"%(?:00|25|2e|2f|5c)|[\x00-\x1f\x7f\\]", re.IGNORECASE)  # of no use but to be read twice
STRANGE_URL = re.compile(r"[@?#]|::|://.*://")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")
LOCAL = ("file://", "local://")


@dataclass(frozen=True)
class Places:
    """The `roots` as real paths, by the names that they are asked for by; and prefixes of URLs."""

    roots: dict[str, str]
    urls: tuple[str, ...]

    @classmethod
    def of(cls, roots: Sequence[str], urls: Sequence[str]) -> Self:
        """Raises: SettingInvalid."""
        for root in roots:
            if not os.path.isabs(root) or not os.path.isdir(root):  # noqa: PTH112, PTH117
                raise SettingInvalid("is no folder, by a whole path", place=f"job_roots, {root}", remedy="name folders")
        for url in urls:
            if not SCHEME.match(url) or url.startswith(LOCAL) or STRANGE_URL.search(url):
                raise SettingInvalid(
                    "is no prefix of an object store",
                    place=f"job_urls, {url}",
                    remedy="name some, as s3://bucket/folder/",
                )
        names = {os.path.normpath(root): os.path.realpath(root) for root in roots}
        return cls(names, tuple(urls))

    @property
    def real(self) -> list[str]:
        """The roots as they are opened."""
        return list(dict.fromkeys(self.roots.values()))

    def source(self, place: str) -> str:
        """An input, as it is opened: a file, folder or glob, or a URL. Raises: PlaceForbidden."""
        if "://" not in place:
            return self._path(place, "input")
        _check_text(place, "input")
        if (
            STRANGE_URL.search(place)
            or ".." in place.split("/")
            or not any(map(place.startswith, self._prefixes(place)))
        ):
            raise PlaceForbidden(
                "is outside of the URLs that jobs may touch", place="input", remedy="choose one below those"
            )
        return place

    def target(self, place: str) -> str:
        """An output, as it is opened: a path. Raises: PlaceForbidden."""
        if "://" in place:
            raise PlaceForbidden("jobs write to folders only", place="output", remedy="choose a path")
        path = self._path(place, "output")
        if path in self.real:
            raise PlaceForbidden("is a root itself", place="output", remedy="choose a name below it")
        return path

    def _prefixes(self, place: str) -> list[str]:
        """A prefix ends where a name ends."""
        return [url if url.endswith("/") or url == place else f"{url}/" for url in self.urls]

    def _path(self, place: str, field: str) -> str:
        _check_text(place, field)
        if not place.startswith("/") or {"..", "."} & set(place.split("/")) or "//" in place:
            raise PlaceForbidden(
                "is no whole and plain path", place=field, remedy="name it from / on, without `.`, `..` and `//`"
            )
        try:
            root = root_of(list(self.roots), place)
        except PlaceForbidden as error:
            raise PlaceForbidden(error.fact, place=field, remedy=error.remedy) from None
        return self.roots[root] + place[len(root) :].rstrip("/")


def _check_text(place: str, field: str) -> None:
    if not place or len(place.encode(errors="replace")) > MAX_PATH or STRANGE.search(place):
        raise PlaceForbidden(
            "is empty, too long, or holds characters that places here do not have", place=field, remedy="rename it"
        )
