"""Where files lie."""

from pathlib import Path

import pytest

from contract.errors import FullfunnelError
from service.batch.stores import is_remote, located, opened, url_of


def test_a_path_lies_on_this_machine_and_a_url_elsewhere(tmp_path: Path) -> None:
    assert is_remote("s3://bucket/a") and not is_remote(str(tmp_path))
    assert url_of("s3://bucket/folder", "bucket/folder/a.csv") == "s3://bucket/folder/a.csv"
    assert url_of("folder", "folder/a.csv") == "folder/a.csv"


def test_a_file_is_read_mapped_or_not(tmp_path: Path) -> None:
    for content in (b"hello", b""):
        path = tmp_path / "a.csv"
        path.write_bytes(content)
        for mapped in (True, False):
            with opened(str(path), mapped) as file:
                assert file.read() == content


def test_a_url_of_a_file_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"hello")
    filesystem, inside = located(f"file://{tmp_path}/a.csv")
    with filesystem.open_input_file(inside) as file:
        assert file.read() == b"hello"


def test_a_place_that_nothing_reads_is_an_error_with_a_remedy() -> None:
    with pytest.raises(FullfunnelError) as caught:
        located("nowhere://bucket/a")
    assert caught.value.place == "nowhere://bucket/a" and caught.value.remedy
