"""A verified bundle in memory that processes share: written once, sealed by the kernel, and passed on as an open file.

What was verified is what every process loads, whatever happens to the folder meanwhile, and large embedding tables are
in memory once. Holds what serving needs: the model, the golden rows, and the manifest with the bundle's digest. Knows
Linux's memfd. Does not know scorers.
"""

import fcntl
import mmap
import os
import struct
from typing import cast

from contract.bundle import GOLDEN, MODEL, Bundle, parse_manifest
from contract.manifest import seal as manifest_text
from service.scoring.session import MIN_TABLE_BYTES

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
END = struct.Struct("<QQQ64s")  # sizes of model, golden rows and manifest, and the digest; after all of them


def seal(bundle: Bundle) -> int:
    """A descriptor of the bundle, for the caller to close. Raises: OSError."""
    parts = [bundle.files[MODEL], bundle.files[GOLDEN], manifest_text(bundle.manifest)]
    end = END.pack(*map(len, parts), bundle.digest.encode())
    descriptor = os.memfd_create("bundle", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.writelines([*parts, end])
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def digest_of(descriptor: int) -> str:
    """The digest of a sealed bundle."""
    *_, digest = _end(descriptor)
    return digest.decode()


def unseal(descriptor: int) -> Bundle:
    """The bundle. Its model is read in place, where the embedding tables stay; the descriptor may be closed."""
    model_size, golden_size, manifest_size, digest = _end(descriptor)
    model = os.pread(descriptor, model_size, 0) if model_size < MIN_TABLE_BYTES else _mapped(descriptor, model_size)
    golden = os.pread(descriptor, golden_size, model_size)
    manifest = os.pread(descriptor, manifest_size, model_size + golden_size)
    return Bundle(parse_manifest(manifest), digest.decode(), {MODEL: model, GOLDEN: golden})


def _mapped(descriptor: int, size: int) -> bytes:
    return cast(bytes, mmap.mmap(descriptor, size, access=mmap.ACCESS_READ))  # which is read like bytes


def _end(descriptor: int) -> tuple[int, int, int, bytes]:
    found: tuple[int, int, int, bytes] = END.unpack(
        os.pread(descriptor, END.size, os.fstat(descriptor).st_size - END.size)
    )
    return found
