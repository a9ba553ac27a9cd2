"""The form of an answer: that of the request, unless one is asked for."""

import subprocess
import sys

import pytest

from service.api import arrow, codecs, ranking
from service.api.codecs import ARROW, JSON, codec_of


@pytest.mark.parametrize(
    ("content_type", "accept", "reads", "answers"),
    [
        (JSON, "", JSON, JSON),
        (JSON, "*/*", JSON, JSON),
        (JSON, ARROW, JSON, ARROW),
        (JSON, f"{JSON};q=0.5, {ARROW.upper()}; q=0.9", JSON, ARROW),
        (ARROW, "", ARROW, ARROW),
        (ARROW, "*/*", ARROW, ARROW),
        (ARROW, "application/json", ARROW, JSON),
        ("text/plain", "text/html", JSON, JSON),
    ],
)
def test_form_of_request_and_answer(content_type: str, accept: str, reads: str, answers: str) -> None:
    codec = codec_of(content_type, accept)
    assert codec.read == {JSON: ranking.read_request, ARROW: arrow.read_request}[reads]
    assert codec.answer == {JSON: ranking.answer, ARROW: arrow.answer}[answers]
    assert codec.response(b"x").headers["content-type"] == answers


def test_without_pyarrow_everything_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "MEDIA_TYPES", frozenset({JSON}))
    assert codec_of(ARROW, ARROW)[:2] == (ranking.read_request, ranking.answer)


def test_pyarrow_is_imported_when_it_is_first_needed() -> None:
    program = "import sys; import service.api.serving; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
