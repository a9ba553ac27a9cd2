"""Scoring on a Ray cluster: what actors answer, and a real cluster of several processes, one of which is killed."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving.processes import tree
from cli.main import main
from contract.errors import ScoreInvalid
from service.batch.cluster import ALONE, answer_of
from service.batch.shards import Done
from tests.service.batch.tables import toy_table, write

ROOT = Path(__file__).parents[3]
RAY = ROOT / "build" / "environments" / "ray" / "bin" / "python"
PATIENCE_S = 240.0
FILES, FILE_ROWS = 40, 20_000


def test_what_an_actor_did_and_what_it_could_not_do_come_back_as_they_were() -> None:
    done = Done(3, 10, 1, 99, "ab", {"rows": [10, 9]})
    assert answer_of(json.dumps({"done": vars(done)})) == done
    with pytest.raises(ScoreInvalid) as caught:
        answer_of(json.dumps({"error": ["ScoreInvalid", "a fact", "a place", "a remedy"]}))
    assert (caught.value.fact, caught.value.place, caught.value.remedy) == ("a fact", "a place", "a remedy")


@pytest.mark.skipif("ray" in sys.modules, reason="Ray is here")
def test_without_ray_it_is_said_what_to_install(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(toy_table(10), tmp_path / "in.parquet")
    assert main(["score", str(toy), str(source), str(tmp_path / "out"), "--on", "ray"]) == 1
    assert "pip install 'fullfunnel[serve,batch,ray]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not RAY.exists(), reason="`make test` makes the environment that this needs")
def test_a_cluster_of_which_a_worker_is_killed_writes_what_one_machine_writes(toy: Path, tmp_path: Path) -> None:
    for number in range(FILES):
        write(toy_table(FILE_ROWS, number, users=2000), tmp_path / f"in/{number}.parquet")
    folder = tempfile.mkdtemp(prefix="ray-")  # short: the paths of sockets may not be long
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": folder}
    command = [str(RAY), "-m", "cli.main", "score", str(toy), "in"]
    there = [*command, "there", "--on", "ray", "--workers", "2"]
    try:
        with subprocess.Popen(there, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
            try:
                killed = _actor(process, tmp_path / "there")
                os.kill(killed, signal.SIGKILL)
                before = {path.name for path in (tmp_path / "there").glob("part-*")}
                _, said = process.communicate(timeout=PATIENCE_S)
            finally:
                process.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert process.returncode == 0, said
    assert 0 < len(before) < FILES
    subprocess.run([*command, "here", "--quiet"], cwd=tmp_path, env=environment, check=True, timeout=PATIENCE_S)
    names = sorted(os.listdir(tmp_path / "here"))
    assert len(names) == FILES + 2
    assert sorted(os.listdir(tmp_path / "there")) == names
    for name in names:
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name


@pytest.mark.skipif(not RAY.exists(), reason="`make test` makes the environment that this needs")
def test_a_cluster_that_is_there_is_joined_and_goes_on_and_one_that_is_not_is_told_at_once(
    toy: Path, tmp_path: Path
) -> None:
    for number in range(4):
        write(toy_table(100, number), tmp_path / f"in/{number}.parquet")
    folder = tempfile.mkdtemp(prefix="ray-")  # short: the paths of sockets may not be long
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": folder, **ALONE, "RAY_USAGE_STATS_ENABLED": "0"}
    command = [str(RAY), "-m", "cli.main", "score", str(toy), "in"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    start = [str(RAY), "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port", address.rpartition(":")[2]]
    start += ["--node-ip-address", "127.0.0.1", "--num-cpus", "2", "--include-dashboard", "false"]
    start += ["--object-store-memory", str(10**8), "--temp-dir", folder]
    options: dict[str, Any] = {"cwd": tmp_path, "env": environment, "text": True, "stderr": subprocess.PIPE}
    there = [*command, "there", "--on", "ray", "--address", address]
    nobody = subprocess.run(there, **options, check=False, timeout=PATIENCE_S)
    assert nobody.returncode == 1 and f"address {address}: no Ray cluster can be reached" in nobody.stderr
    with subprocess.Popen(start, **options, stdout=subprocess.DEVNULL, start_new_session=True) as head:
        try:
            _until_listening(head, address)
            done = subprocess.run(there, **options, check=False, timeout=PATIENCE_S)
            assert done.returncode == 0, done.stderr
            assert head.poll() is None
        finally:
            os.killpg(head.pid, signal.SIGKILL)
            shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([*command, "here", "--quiet"], **options, check=True, timeout=PATIENCE_S)
    names = sorted(os.listdir(tmp_path / "here"))
    assert len(names) == 6 and sorted(os.listdir(tmp_path / "there")) == names
    for name in names:
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name


def _until_listening(head: "subprocess.Popen[str]", address: str) -> None:
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert head.poll() is None, head.communicate()[1]
        with contextlib.suppress(OSError):
            socket.create_connection((host, int(port)), 1.0).close()
            return
        time.sleep(0.05)
    raise AssertionError("the cluster does not listen")


def _actor(process: "subprocess.Popen[str]", output: Path) -> int:
    """A process of the cluster that has begun to write a part, when the first parts are there."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        if output.is_dir() and list(output.glob("part-*")) and list(output.glob(".part-*")):
            for pid in tree(process.pid):
                try:
                    name = Path(f"/proc/{pid}/cmdline").read_bytes()
                except OSError:
                    continue
                if name.startswith(b"ray::MapWorker"):
                    return pid
        time.sleep(0.002)
    raise AssertionError("no worker began")
