"""Files that are there whole or not at all."""

import hashlib
from pathlib import Path

import pytest

from contract.errors import TargetUnwritable
from service.batch.durable import durable


def test_a_file_appears_when_the_block_ends_and_knows_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with durable(path) as file:
        file.write(b"one")
        file.write(memoryview(b"two"))
        assert not path.exists()
    assert path.read_bytes() == b"onetwo"
    assert (file.size, file.sha256) == (6, hashlib.sha256(b"onetwo").hexdigest())
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"before")
    with pytest.raises(ZeroDivisionError), durable(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(TargetUnwritable) as caught, durable(tmp_path / "absent" / "a.bin"):
        pass
    assert caught.value.place == str(tmp_path / "absent" / "a.bin")
