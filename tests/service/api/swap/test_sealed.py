"""A bundle that processes share in memory."""

import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from contract.bundle import GOLDEN, MODEL, read_bundle
from service.api.swap.sealed import digest_of, seal, unseal
from service.scoring.scorer import Scorer
from service.scoring.settings import ScoringSettings


def test_what_is_unsealed_is_what_was_verified(toy: Path) -> None:
    bundle = read_bundle(toy)
    file = seal(bundle)
    found = unseal(file)
    assert digest_of(file) == found.digest == bundle.digest
    assert found.manifest.model_copy(update={"checksum": bundle.manifest.checksum}) == bundle.manifest
    assert found.files == {name: bundle.files[name] for name in (MODEL, GOLDEN)}
    os.close(file)
    Scorer.of(found, ScoringSettings()).check_golden()


def test_nobody_can_write_to_it_any_more(toy: Path) -> None:
    file = seal(read_bundle(toy))
    for change in (lambda: os.write(file, b"x"), lambda: os.pwrite(file, b"x", 0), lambda: os.truncate(file, 0)):
        with pytest.raises(PermissionError):
            change()
    with pytest.raises(PermissionError):
        mmap.mmap(file, 10, access=mmap.ACCESS_WRITE)
    os.close(file)


def test_a_large_model_is_read_in_place(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.swap.sealed.MIN_TABLE_BYTES", 1)
    monkeypatch.setattr("service.scoring.session.MIN_TABLE_BYTES", 16)
    file = seal(read_bundle(toy))
    found = unseal(file)
    os.close(file)
    assert isinstance(found.files[MODEL], mmap.mmap)
    scorer = Scorer.of(found, ScoringSettings())  # scores its golden rows
    tables = list(scorer.session._tables.values())
    assert tables, "of which some are tables"
    in_place = np.frombuffer(found.files[MODEL], np.uint8)
    assert all(np.shares_memory(table, in_place) for table in tables)
