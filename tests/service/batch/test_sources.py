"""Which files an input is, in which order."""

import os
from pathlib import Path

import pytest

from contract.errors import DataInvalid, SourceMissing
from service.batch.sources import find, would_find


def _make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def _names(root: Path, path: str) -> list[str]:
    files, _ = find(path, None)
    return [os.path.relpath(file.path, root) for file in files]


def test_a_folder_is_its_files_in_natural_order_without_hidden_ones(tmp_path: Path) -> None:
    _make(tmp_path, "b/part-10.parquet", "b/part-9.parquet", "a.parquet", "_SUCCESS", ".x.parquet", "_t/y.parquet")
    assert _names(tmp_path, str(tmp_path)) == ["a.parquet", "b/part-9.parquet", "b/part-10.parquet"]
    assert _names(tmp_path, f"{tmp_path}/") == ["a.parquet", "b/part-9.parquet", "b/part-10.parquet"]


def test_a_glob_is_what_it_matches_and_what_is_in_folders_it_matches(tmp_path: Path) -> None:
    _make(tmp_path, "d1/x.parquet", "d2/y.parquet", "d10/z.parquet", "e/w.parquet", "d2/notes.txt")
    assert _names(tmp_path, f"{tmp_path}/d*") == ["d1/x.parquet", "d2/y.parquet", "d10/z.parquet"]
    assert _names(tmp_path, f"{tmp_path}/**/[yw].parquet") == ["d2/y.parquet", "e/w.parquet"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    _make(tmp_path, "a[1].parquet", "a1.parquet")
    assert _names(tmp_path, f"{tmp_path}/a[1].parquet") == ["a[1].parquet"]


def test_folders_of_hive_are_columns(tmp_path: Path) -> None:
    _make(tmp_path, "day=2/city=K%C3%B6ln/a.parquet", "day=__HIVE_DEFAULT_PARTITION__/city=x/a.parquet")
    files, _ = find(str(tmp_path), None)
    assert [dict(file.partitions) for file in files] == [{"day": "2", "city": "Köln"}, {"day": None, "city": "x"}]


def test_folders_of_different_partitions_are_refused(tmp_path: Path) -> None:
    _make(tmp_path, "day=2/a.parquet", "b.parquet")
    with pytest.raises(DataInvalid, match="folders of different partitions"):
        find(str(tmp_path), None)


@pytest.mark.parametrize(
    ("path", "other", "found"),
    [
        ("in", "in", False),
        ("in", "in/out", True),
        ("in/", "in/day=1/out.csv", True),
        ("in", "in/_out", False),
        ("in", "in/.x/out", False),
        ("in", "in2/out", False),
        ("link", "in/out", True),
        ("in/*.parquet", "in/out", False),
        ("in/*.parquet", "in/out.parquet", True),
        ("in/*", "in/out", True),
        ("in/d*", "in/day=1/out", True),
        ("in/**/x.csv", "in/a/b/x.csv", True),
        ("in/a.parquet", "in/a.parquet.csv", False),
        ("s3://in", "in/out", False),
    ],
)
def test_what_would_be_found_the_next_time(tmp_path: Path, path: str, other: str, found: bool) -> None:
    _make(tmp_path, "in/a.parquet")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    source = path if path.startswith("s3:") else f"{tmp_path}/{path}"
    assert would_find(source, f"{tmp_path}/{other}") is found


def test_a_change_of_size_or_time_is_another_stamp(tmp_path: Path) -> None:
    _make(tmp_path, "a.parquet")
    (before,), _ = find(str(tmp_path), None)
    os.utime(tmp_path / "a.parquet", ns=(5, 5))
    (after,), _ = find(str(tmp_path), None)
    assert before.size == after.size == 9
    assert before.stamp != after.stamp == "5"


@pytest.mark.parametrize("path", ["nothing.parquet", "no*.parquet", "empty"])
def test_no_file_is_an_error(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceMissing, match="no such file, folder or match"):
        find(f"{tmp_path}/{path}", None)


def test_a_format_that_no_ending_tells_is_asked_for(tmp_path: Path) -> None:
    _make(tmp_path, "a.dat")
    with pytest.raises(DataInvalid, match="no ending tells a format") as said:
        find(str(tmp_path), None)
    assert "--input-format" in said.value.remedy
    files, chosen = find(str(tmp_path), "parquet")
    assert (len(files), chosen.name) == (1, "parquet")
