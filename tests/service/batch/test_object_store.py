"""A real server that speaks S3: what lies there is scored as what lies here."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.service.batch.tables import toy_table, write

BUCKET = "logs"
PATIENCE_S = 60


class Store:
    """An S3 server of its own, with one bucket."""

    def __init__(self, port: int) -> None:
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "no_proxy": "127.0.0.1",
        }
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )
        self.client.create_bucket(Bucket=BUCKET)

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=name, Body=content)

    def objects(self, prefix: str) -> dict[str, bytes]:
        """By name."""
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return {
            one["Key"].removeprefix(prefix): self.client.get_object(Bucket=BUCKET, Key=one["Key"])["Body"].read()
            for one in found
            if not one["Key"].endswith("/")  # a folder that pyarrow keeps when the last of its files goes
        }

    def score(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """`fullfunnel score`, in a process of its own: pyarrow's S3 does not live through a fork."""
        command = [sys.executable, "-m", "cli.main", "score", *map(str, arguments)]
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    log = tmp_path_factory.mktemp("store") / "log"  # a file: a pipe that nobody empties would stop the server
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with open(log, "w") as said, subprocess.Popen(command, stderr=said) as server:
        deadline = time.monotonic() + PATIENCE_S
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        try:
            yield Store(int(found[1]))
        finally:
            server.kill()


@pytest.fixture
def source(store: Store, tmp_path: Path) -> Path:
    """The same three files here and there."""
    for number in range(3):
        for day in ("day=2026-01-01", "day=2026-01-02"):
            path = write(toy_table(500, number), tmp_path / "in" / day / f"{number}.parquet", row_group_size=200)
            store.put(f"in/{day}/{number}.parquet", path.read_bytes())
    return tmp_path / "in"


def tree(root: Path) -> dict[str, bytes]:
    """The parts."""
    return {path.name: path.read_bytes() for path in sorted(root.glob("part-*"))}


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("place", ["in", "in/day=2026-01-01/1.parquet", "in/*/2.parquet"])
def test_what_lies_there_is_scored_as_what_lies_here(
    store: Store, source: Path, toy: Path, tmp_path: Path, place: str, workers: str
) -> None:
    options = ("--keep", "row_id", "--workers", workers)
    here = store.score(toy, source.parent / place, tmp_path / "here", *options)
    there = store.score(toy, f"s3://{BUCKET}/{place}", tmp_path / "there", *options)
    assert here.returncode == there.returncode == 0, there.stderr
    assert tree(tmp_path / "here") == tree(tmp_path / "there") != {}


def test_an_object_that_changed_meanwhile_is_told(store: Store, source: Path, toy: Path, tmp_path: Path) -> None:
    place = f"s3://{BUCKET}/in/day=2026-01-01/"
    assert store.score(toy, place, tmp_path / "out").returncode == 0
    store.put("in/day=2026-01-01/1.parquet", (source / "day=2026-01-01/0.parquet").read_bytes())
    again = store.score(toy, place, tmp_path / "out")
    assert again.returncode == 1 and "the input changed" in again.stderr and "1.parquet differs" in again.stderr


@pytest.mark.parametrize("place", [f"s3://{BUCKET}/nothing", "s3://nowhere/in", f"s3://{BUCKET}/in/*.csv"])
def test_a_place_where_nothing_is_is_an_error_with_its_name(
    store: Store, source: Path, toy: Path, tmp_path: Path, place: str
) -> None:
    done = store.score(toy, place, tmp_path / "out")
    assert done.returncode == 1 and place in done.stderr and "Remedy" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/fullfunnel/outputs"


def files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(root.iterdir()) if path.is_file()}


@pytest.mark.parametrize(("name", "workers"), [("out", "2"), ("out.parquet", "1"), ("out.csv", "2")])
def test_what_is_written_there_is_what_is_written_here(
    store: Store, source: Path, toy: Path, tmp_path: Path, cache: Path, name: str, workers: str
) -> None:
    root, place, output = f"{name}{workers}", f"s3://{BUCKET}/in/", f"s3://{BUCKET}/{name}{workers}/{name}"
    one, options = f"{place}day=2026-01-01/0.parquet", ("--keep", "row_id", "--workers", workers)
    inside = "" if "." in name else name
    here = store.score(toy, place, tmp_path / "here" / name, *options)
    there = store.score(toy, place, output, *options)
    assert here.returncode == there.returncode == 0, there.stderr
    prefix = f"{root}/{inside}/" if inside else f"{root}/"
    assert store.objects(prefix) == files(tmp_path / "here" / inside) != {}
    assert not list(cache.iterdir())
    again = store.score(toy, place, output, *options)
    assert again.returncode == 0 and "finished already" in again.stderr
    other = store.score(toy, place, output)
    assert other.returncode == 1 and "the options are not those" in other.stderr
    assert not list(cache.iterdir())
    assert store.score(toy, one, output, "--restart").returncode == 0
    assert store.score(toy, one, tmp_path / "less" / name).returncode == 0
    assert store.objects(prefix) == files(tmp_path / "less" / inside)


def test_what_no_job_wrote_is_left_alone(store: Store, source: Path, toy: Path, cache: Path) -> None:
    store.put("foreign/out/a.txt", b"mine")
    for restart in ((), ("--restart",)):
        done = store.score(toy, source, f"s3://{BUCKET}/foreign/out", *restart)
        assert done.returncode == 1 and "no scoring job wrote" in done.stderr
    assert store.objects("foreign/") == {"out/a.txt": b"mine"}
    done = store.score(toy, f"s3://{BUCKET}/in", f"s3://{BUCKET}/in/out")
    assert done.returncode == 1 and "hold each other" in done.stderr


def test_a_delivery_that_failed_goes_on_with_what_was_made(
    store: Store, source: Path, toy: Path, tmp_path: Path, cache: Path
) -> None:
    done = store.score(toy, source, "s3://nowhere/out")
    assert done.returncode == 1 and "s3://nowhere/out: cannot be written" in done.stderr
    assert len(list(cache.glob("*/out/part-*"))) == 6
    store.client.create_bucket(Bucket="nowhere")
    done = store.score(toy, source, "s3://nowhere/out")
    assert done.returncode == 0 and "s3://nowhere/out was scored before, and is sent now" in done.stderr
    assert len(store.client.list_objects_v2(Bucket="nowhere", Prefix="out/part-")["Contents"]) == 6
