"""docs/http-api.md is true."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from service.api.problems import KINDS
from service.api.settings import Limits, Settings
from tests.service.conftest import Api

PAGE = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text()
EXAMPLES = re.findall(r"`POST (\S+)`\n\n```json\n(.*?)\n```\n\nanswers `(\d+)`\n\n```json\n(.*?)\n```", PAGE, re.DOTALL)


def same(shown: Any, found: Any) -> bool:
    """Equal to the digits shown; "…" stands for any text."""
    if isinstance(shown, dict):
        return list(shown) == list(found) and all(same(shown[name], found[name]) for name in shown)
    if isinstance(shown, list):
        return len(shown) == len(found) and all(map(same, shown, found))
    if isinstance(shown, float):
        return abs(shown - float(found)) < 6e-5
    return bool(shown == "…" or shown == found)


def test_every_json_block_is_part_of_an_example() -> None:
    assert len(EXAMPLES) == 5
    assert PAGE.count("```json") == 2 * len(EXAMPLES)


@pytest.mark.parametrize(("path", "request_text", "status", "answer"), EXAMPLES)
def test_an_example_gets_the_answer_shown(api: Api, path: str, request_text: str, status: str, answer: str) -> None:
    response = api.post(path, json.loads(request_text))
    assert response.status_code == int(status)
    assert same(json.loads(answer), response.json()), response.text


def test_the_comparison_sees_differences() -> None:
    assert same({"a": [0.1234], "b": "…"}, {"a": [0.12341], "b": "x"})
    assert not same({"a": [0.1234]}, {"a": [0.1236]})
    assert not same({"a": 1}, {"a": 1, "b": 2})
    assert not same([1], [1, 2])


def test_every_kind_of_problem_is_listed_with_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| (.*?) \|", PAGE, re.MULTILINE)
    listed = {(status, slug) for status, slugs in rows for slug in re.findall(r"`(.*?)`", slugs)}
    assert listed == {(str(kind.status), kind.slug) for kind in KINDS}


@pytest.mark.parametrize("settings", [Limits, Settings])
def test_every_setting_is_listed_with_its_default(settings: type[Limits | Settings]) -> None:
    for name, field in settings.model_fields.items():
        if name != "limits":
            assert f"| `{name}` | {field.default} | {field.description} |" in PAGE
