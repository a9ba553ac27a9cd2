"""What jobs may touch, by name."""

from pathlib import Path

import pytest

from contract.errors import PlaceForbidden, SettingInvalid
from service.batch.jobs.places import Places


def test_urls_are_allowed_by_whole_names(tmp_path: Path) -> None:
    places = Places.of([str(tmp_path)], ["s3://shop/log", "gs://other/"])
    for url in ("s3://shop/log", "s3://shop/log/day=1/*.parquet", "gs://other/x"):
        assert places.source(url) == url
    for url in (
        "s3://shop/log2",
        "s3://shop/log/../secret",
        "s3://shop/log/%2e%2e/secret",
        "s3://shop",
        "s3a://shop/log",
        "S3://shop/log",
        "s3://user@shop/log",
        "s3://shop/log?endpoint_override=evil",
        "s3://shop/log#x",
        "simplecache::s3://shop/log",
        "zip://x::s3://shop/log",
        "file:///etc",
        "s3://shop/log/s3://x",
    ):
        with pytest.raises(PlaceForbidden):
            places.source(url)
    with pytest.raises(PlaceForbidden):
        places.target("s3://shop/log/out")


def test_a_root_that_is_a_link_is_opened_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "name").symlink_to(tmp_path / "real")
    places = Places.of([f"{tmp_path}/name"], [])
    assert places.source(f"{tmp_path}/name/x") == f"{tmp_path}/real/x"
    assert places.real == [f"{tmp_path}/real"]


@pytest.mark.parametrize("urls", [["file:///etc"], ["/etc"], ["s3"], ["s3://a@b/"], ["zip::s3://x"]])
def test_prefixes_that_are_none_are_refused_at_the_start(urls: list[str]) -> None:
    with pytest.raises(SettingInvalid, match="job_urls"):
        Places.of([], urls)


@pytest.mark.parametrize("root", ["data", "/no/such/folder", "/etc/hostname"])
def test_roots_that_are_no_folders_are_refused_at_the_start(root: str) -> None:
    with pytest.raises(SettingInvalid, match="job_roots"):
        Places.of([root], [])
