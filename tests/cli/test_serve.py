"""`fullfunnel serve` refuses before it listens."""

from pathlib import Path

import pytest

import service.__main__
from cli import serve
from cli.main import main


def test_it_is_the_service_itself() -> None:
    assert serve.run is service.__main__.run
    assert serve.configure is service.__main__.configure


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "say --insecure"),
        (["--port", "70000"], "check --port and FULLFUNNEL_PORT"),
        (["--drain-delay-s", "-1"], "check --drain-delay-s and FULLFUNNEL_DRAIN_DELAY_S"),
        (["--host", "192.0.2.1", "--insecure"], "192.0.2.1:8000: cannot listen here"),
    ],
)
def test_what_cannot_be_served_is_a_message(
    toy: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(toy), *arguments]) == 1
    said = capsys.readouterr().err
    assert said.startswith("fullfunnel serve: ")
    assert message in said
