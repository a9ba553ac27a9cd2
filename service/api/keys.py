"""Who may ask what: keys with scopes, of which a file holds the hashes, and the scope that each route needs.

A line of the file is `NAME SCOPE,SCOPE HASH`; `fullfunnel key` adds one. Several are good at once, so that one can take
the place of another, and the file is looked at again when it has changed. Knows headers and hashes. Does not know where
a request came in: each way in asks here, with the route that was matched.
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple, Self

from contract.errors import KeyForbidden, KeyMissing, SettingInvalid

PREDICT, BATCH, ADMIN, METRICS = SCOPES = ("predict", "batch", "admin", "metrics")
OPEN = None  # for those who look whether the service is well

# what a key is needed for, by route; a test sees to it that every route is here
ACCESS: dict[str, str | None] = {
    "/livez": OPEN,
    "/readyz": OPEN,
    "/v1/predict": PREDICT,
    "/v1/predict:batch": PREDICT,
    "/v1/model": PREDICT,
    "/v1/limits": PREDICT,
    "/v1/score": BATCH,
    "/v1/jobs": BATCH,
    "/v1/jobs/{job_id}": BATCH,
    "/v2": PREDICT,
    "/v2/health/live": OPEN,
    "/v2/health/ready": OPEN,
    "/v2/models/{name}": PREDICT,
    "/v2/models/{name}/ready": PREDICT,
    "/v2/models/{name}/config": PREDICT,
    "/v2/models/{name}/infer": PREDICT,
    "/v2/models/{name}/versions/{version}": PREDICT,
    "/v2/models/{name}/versions/{version}/ready": PREDICT,
    "/v2/models/{name}/versions/{version}/config": PREDICT,
    "/v2/models/{name}/versions/{version}/infer": PREDICT,
    "grpc/ServerLive": OPEN,
    "grpc/ServerReady": OPEN,
    "grpc/ModelReady": PREDICT,
    "grpc/ServerMetadata": PREDICT,
    "grpc/ModelMetadata": PREDICT,
    "grpc/ModelConfig": PREDICT,
    "grpc/ModelInfer": PREDICT,
    "/metrics": METRICS,
    "/models": ADMIN,
    "/swap": ADMIN,
    "/swap/back": ADMIN,
    "/shadow": ADMIN,
}

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
MAX_KEYS, MAX_BYTES = 256, 64 * 1024

log = logging.getLogger("fullfunnel")


class Key(NamedTuple):
    """One that is good. The key itself is known to nobody but who sends it."""

    name: str
    scopes: frozenset[str]
    digest: bytes

    @property
    def line(self) -> str:
        """As it stands in the file."""
        return f"{self.name} {','.join(scope for scope in SCOPES if scope in self.scopes)} {self.digest.hex()}\n"


class Keys:
    """The keys of a file. Raises: SettingInvalid."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _look(path)
        self._keys = read_keys(path)

    @classmethod
    def of(cls, path: str | None) -> Self | None:
        """None where nobody is asked for a key. Raises: SettingInvalid."""
        return None if path is None else cls(Path(path))

    def refresh(self) -> None:
        """Read the file again if it has changed. While it is at fault, the keys that were read before stay."""
        if (found := _look(self._path)) == self._seen:
            return
        self._seen = found
        try:
            self._keys = read_keys(self._path)
        except SettingInvalid as error:
            log.error("the keys of before stay: %s", error)
        else:
            log.info("keys: %d", len(self._keys))

    def admits(self, authorization: bytes, scope: str | None) -> bool:
        """Whether a header holds a key for this."""
        return scope is OPEN or ((key := self._find(authorization)) is not None and scope in key.scopes)

    def check(self, authorization: bytes, scope: str | None) -> None:
        """Raises: KeyMissing, KeyForbidden, where the header holds no key for this."""
        if scope is OPEN:
            return
        key = self._find(authorization)
        if key is None:
            fact = "the key is not known here" if authorization else "no key was sent"
            raise KeyMissing(fact, place="authorization", remedy="send `Authorization: Bearer KEY` with a key for this")
        if scope not in key.scopes:
            raise KeyForbidden(
                f"the key is not for {scope}", place="authorization", remedy=f"send one with the scope {scope}"
            )

    def _find(self, authorization: bytes) -> Key | None:
        scheme, _, secret = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        digest, found = _digest(secret.strip()), None
        for key in self._keys:  # all of them: how long it takes says nothing about any
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file. Raises: SettingInvalid."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        lines = content.decode("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not ASCII"
        raise SettingInvalid(
            f"cannot be read ({why})", place=f"keys {path}", remedy="name a file that `fullfunnel key` has written"
        ) from None
    if len(content) > MAX_BYTES or len(lines) > MAX_KEYS:
        raise SettingInvalid(f"more than {MAX_KEYS} keys", place=f"keys {path}", remedy="remove those out of use")
    found: dict[str, Key] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        key = _parsed(text)
        if key is None or key.name in found:
            raise SettingInvalid(
                "not a key with a name of its own: NAME SCOPE,SCOPE HASH",
                place=f"keys {path}, line {number}",
                remedy="have `fullfunnel key` write it",
            )
        found[key.name] = key
    return tuple(found.values())


def new_key(name: str, scopes: Collection[str]) -> tuple[str, Key]:
    """A secret for whoever is to ask, and what the file is to hold of it. Raises: SettingInvalid."""
    if not NAME.fullmatch(name):
        raise SettingInvalid(
            "not a name", place=f"name {name!r}", remedy="choose up to 64 letters, digits, dots and dashes"
        )
    secret = f"ff_{secrets.token_urlsafe(32)}"
    return secret, Key(name, frozenset(scopes), _digest(secret.encode()))


def add_key(path: Path, key: Key) -> None:
    """Write one more key into a file, which is made where there is none. Raises: SettingInvalid."""
    if path.exists() and any(key.name == other.name for other in read_keys(path)):
        raise SettingInvalid(
            "there is a key of this name", place=f"keys {path}", remedy="choose another name, and remove this one later"
        )
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            unended = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            os.write(descriptor, (b"\n" if unended else b"") + key.line.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SettingInvalid(
            f"cannot be written ({error.strerror})", place=f"keys {path}", remedy="choose a file that can"
        ) from None


def _parsed(text: str) -> Key | None:
    parts = text.split()
    if len(parts) != 3:
        return None
    name, scopes, digest = parts[0], frozenset(parts[1].split(",")), parts[2]
    if not NAME.fullmatch(name) or not scopes <= set(SCOPES) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        return None
    return Key(name, scopes, bytes.fromhex(digest))


def _digest(secret: bytes) -> bytes:
    """Plain SHA-256: a key is 32 random bytes, which no dictionary holds."""
    return hashlib.sha256(secret).digest()


def _look(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
