"""README.md: what it tells people to do works as written.

The walk through a model of one's own is run line by line. `make demo` and `make test` are too large to run inside a
test: it is checked here that every file and verb they use exists, and CI runs `make test` itself.
"""

import http.client
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.main import VERBS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent


def _blocks(language: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for name, text in fences if name == language]


(COMMANDS, WALK, CALL), (RUN,), (TREE,) = _blocks("sh"), _blocks("toml"), _blocks("")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the walk has been run, up to the line that serves."""
    folder = tmp_path_factory.mktemp("walk")
    (folder / "runs").mkdir()
    (folder / "runs" / "shop.toml").write_text(RUN)
    script = "\n".join(line for line in WALK.splitlines() if not line.startswith("fullfunnel serve"))
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "COLUMNS": "120"}
    command = ["bash", "-euo", "pipefail", "-c", script]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (folder / "output.txt").write_text(result.stdout)
    return folder


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    """A port on which the walk's last line serves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    line = WALK.splitlines()[-1]
    assert line.endswith("--port 8000")
    command = [str(BIN / "fullfunnel"), *shlex.split(line)[1:-1], str(port), "--drain-delay-s", "0"]
    service = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while _status(port, "GET", "/readyz") != 200:
            assert service.poll() is None and time.monotonic() < deadline, "the service did not come up"
            time.sleep(0.1)
        yield port
    finally:
        service.terminate()
        assert service.wait(30) == 0


def _call(port: int, method: str, path: str, body: str | None = None, headers: Any = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _status(port: int, method: str, path: str) -> int:
    try:
        return _call(port, method, path)[0]
    except OSError:
        return 0


def test_the_walk_through_a_model_of_ones_own_works_line_by_line(folder: Path) -> None:
    assert {"manifest.json", "model.onnx", "golden.json", "card.html"} == set(os.listdir(folder / "bundles/shop/1"))
    answer = json.loads((folder / "output.txt").read_text().splitlines()[-1])
    assert answer["model"]["name"] == "shop"
    assert {"pctr", "pcvr", "pctcvr"} < answer.keys()


def test_the_request_with_curl_is_answered_as_described(port: int) -> None:
    arguments = iter(shlex.split(CALL)[1:])
    options: dict[str, str] = {}
    for argument in arguments:
        options["url" if argument[0] != "-" else argument] = next(arguments) if argument in {"-H", "-d"} else argument
    assert set(options) == {"-s", "url", "-H", "-d"}
    name, value = options["-H"].split(": ")
    path = options["url"].removeprefix("http://127.0.0.1:8000")
    status, body = _call(port, "POST", path, options["-d"], {name: value})
    answer = json.loads(body)
    assert status == 200, answer
    assert answer["model"].keys() == {"name", "version", "digest"}
    assert answer["pctcvr"] == sorted(answer["pctcvr"], reverse=True)
    assert [len(answer[name]) for name in ("pctr", "pcvr", "pctcvr", "index")] == [2, 2, 2, 2]


def test_the_page_of_examples_is_there(port: int) -> None:
    assert _status(port, "GET", "/docs") == 200


def test_every_command_of_the_walk_is_a_verb() -> None:
    verbs = {line.split()[1] for line in WALK.splitlines()}
    assert verbs == {"simulate", "train", "inspect", "predict", "score", "serve"} <= {name for name, _, _ in VERBS}


def test_the_two_commands_and_the_others_named_are_targets_whose_files_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {line.removeprefix("make ") for line in COMMANDS.splitlines()} | set(re.findall(r"`make (\w+)`", README))
    assert named == {"demo", "test", "census"} <= targets
    for target in sorted(targets - {"clean", "lock"}):
        plan = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert plan.returncode == 0, plan.stderr
        verbs = set(re.findall(r"bin/fullfunnel (\w+)", plan.stdout))
        assert verbs <= {name for name, _, _ in VERBS}
        for path in re.findall(r"\b(?:runs|deploy)/[\w.-]+", plan.stdout):
            assert (ROOT / path).is_file(), f"make {target} uses {path}"


def test_continuous_integration_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "make test </dev/null"  # and its exit status is the script's


def test_the_tree_is_the_tree() -> None:
    shown = {line.split()[0].rstrip("/") for line in TREE.splitlines()}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        folders = {line.split("/")[0] for line in listed.stdout.splitlines() if "/" in line and line[0] != "."}
        assert shown == folders
    assert all((ROOT / folder).is_dir() for folder in shown)


def test_every_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
