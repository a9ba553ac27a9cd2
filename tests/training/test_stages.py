"""A stage says one line when it is done, and nothing when it fails."""

import io
import re

import pytest
from rich.console import Console

from training.stages import Stages


def lines(output: io.StringIO) -> list[str]:
    return output.getvalue().splitlines()


def test_stage_says_one_line_with_its_time_when_it_is_done() -> None:
    output = io.StringIO()
    stages = Stages(Console(file=output, width=100))
    with stages("split"):
        assert lines(output) == []
    with stages("read", 5000) as report:
        report(2000)
        report(5000)
    first, second = lines(output)
    assert re.fullmatch(r"  split +\d+\.\d s", first)
    assert re.fullmatch(r"  read +\d+\.\d s +5,000 rows +[\d,]+ rows/s", second)


def test_stage_that_fails_says_nothing_and_lets_the_error_through() -> None:
    output = io.StringIO()
    with pytest.raises(KeyError, match="row"), Stages(Console(file=output))("read", 10) as report:
        report(5)
        raise KeyError("row")
    assert lines(output) == []


def test_terminal_is_shown_a_bar_that_leaves_one_line_behind() -> None:
    output = io.StringIO()
    with Stages(Console(file=output, force_terminal=True, width=100))("read", 10) as report:
        report(10)
    assert "\x1b[" in output.getvalue()
    assert output.getvalue().count("rows/s") >= 1
    assert lines(output)[-1].endswith("rows/s")


def test_quiet_console_is_told_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Stages(Console(quiet=True))("read", 10) as report:
        report(10)
    assert capsys.readouterr() == ("", "")
