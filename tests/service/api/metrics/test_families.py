"""That the list of metrics is whole, and the same in the code, the application and the documentation."""

from pathlib import Path

import pytest

from service.api.metrics.families import FAMILIES, OTHER, OUTCOMES, PREFIX, ROUTES, Family
from service.api.problems import KINDS
from tests.service.conftest import Api

PAGE = (Path(__file__).parents[4] / "docs" / "operations.md").read_text()


def test_every_route_of_the_application_is_counted_by_its_name(api: Api) -> None:
    paths = {*api.get("/openapi.json").json()["paths"], "/docs", "/openapi.json"}
    assert paths == {route for route in ROUTES if route[0] == "/"}


def test_every_kind_of_problem_is_an_outcome() -> None:
    assert set(OUTCOMES) == {"ok", *(kind.slug for kind in KINDS)} and OTHER in ROUTES


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_metric_is_in_the_documentation(family: Family) -> None:
    suffix = "_total" if family.kind == "counter" else ""
    labels = ", ".join(f"`{label}`" for label in family.labels)
    assert f"| `{PREFIX}{family.name}{suffix}` | {family.kind} | {labels} | {family.help} |" in PAGE


def test_names_are_used_once_and_edges_ascend() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    assert all(list(family.buckets) == sorted(set(family.buckets)) for family in FAMILIES)
