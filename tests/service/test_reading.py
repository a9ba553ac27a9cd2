"""A bundle read ahead is the bundle, or the error, and is held by nobody afterwards."""

import gc
import weakref
from pathlib import Path

import pytest

from contract.bundle import read_bundle
from contract.errors import BundleMissing
from service.reading import Reading


def test_what_was_read_ahead_is_the_bundle(toy: Path) -> None:
    assert Reading(toy).take() == read_bundle(toy)


def test_what_was_taken_is_not_kept_and_is_read_again_the_next_time(toy: Path) -> None:
    reading = Reading(toy)
    taken = reading.take()
    held = weakref.ref(taken)
    assert reading.take() == taken and reading.take() is not taken
    del taken
    gc.collect()
    assert held() is None


def test_an_error_is_raised_where_the_bundle_is_wanted(tmp_path: Path) -> None:
    reading = Reading(tmp_path / "nowhere")
    with pytest.raises(BundleMissing, match="no bundle here"):
        reading.take()
