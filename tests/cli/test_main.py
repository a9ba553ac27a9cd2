"""Verbs, messages and exit codes."""

import subprocess
import sys
from pathlib import Path

import pytest

from cli import inspect
from cli.main import VERBS, main


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    for name, summary, _ in VERBS:
        assert f"  {name}" in shown
        assert summary in shown


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith("fullfunnel 0.")


@pytest.mark.parametrize(
    "arguments", [[], ["explode"], ["inspect"], ["inspect", "a", "b"], ["serve", "x", "--port", "y"]]
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: fullfunnel" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [name for name, _, _ in VERBS])
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"])
    assert left.value.code == 0
    assert f"usage: fullfunnel {verb}" in capsys.readouterr().out


def test_an_error_is_one_message_and_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "nothing")]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"fullfunnel inspect: {tmp_path / 'nothing'}: no bundle here")
    assert said.err.count("\n") == 1


def test_an_interruption_is_one_word_and_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(inspect, "run", interrupted)
    assert main(["inspect", "bundle"]) == 130
    assert capsys.readouterr().err == "fullfunnel inspect: interrupted\n"


def test_a_reader_that_leaves_early_is_no_error(toy: Path) -> None:
    command = [sys.executable, "-m", "cli.main", "inspect", str(toy), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate(timeout=60)
    assert said == b""
    assert process.returncode == 1


def test_a_verb_imports_what_it_needs_and_no_more() -> None:
    script = """
import sys
import cli.main
heavy = {"torch", "onnx", "onnxruntime", "fastapi", "uvicorn", "pyarrow", "rich", "numpy", "pydantic"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
import cli.inspect, cli.predict, cli.serve, cli.simulate, cli.train, cli.dataset
heavy = {"torch", "onnx", "onnxruntime", "fastapi", "uvicorn", "pyarrow"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True)
