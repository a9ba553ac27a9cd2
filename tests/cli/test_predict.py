"""A request answered without a server."""

import io
import json
import sys
from pathlib import Path

import pytest

from cli.main import main


def test_the_example_is_answered(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(toy), "--example"]) == 0
    example = capsys.readouterr().out
    assert json.loads(example)["user"]["city"] == "Shanghai"
    file = tmp_path / "request.json"
    file.write_text(example)
    assert main(["predict", str(toy), str(file)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert list(answer) == ["model", "pctr", "pcvr", "pctcvr"]
    assert len(answer["pctr"]) == 3


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_standard_input_is_read(
    toy: Path, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b'{"candidates": {"item_id": ["i1", "i2"]}, "top_k": 1}'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(body)))
    assert main(["predict", str(toy), *arguments]) == 0
    assert len(json.loads(capsys.readouterr().out)["index"]) == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is not JSON"),
        (b'{"candidates": {"item_id": ["i1", 2]}}', "candidates.item_id[1]: must be a string."),
        (b'{"user": {"citty": 1}, "candidates": [{}]}', "did you mean 'city'"),
        (b" " * (2 * 2**20 + 1), "more than 2097152 bytes"),
    ],
)
def test_what_cannot_be_scored_is_a_message(
    toy: Path, tmp_path: Path, body: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "request.json"
    file.write_bytes(body)
    assert main(["predict", str(toy), str(file)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("fullfunnel predict: ")
    assert message in said.err


def test_a_request_that_is_not_there_is_a_message(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(toy), "nowhere.json"]) == 1
    assert "nowhere.json: cannot be read (No such file or directory)" in capsys.readouterr().err
