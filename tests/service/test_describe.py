"""The API's description of itself."""

from typing import Any

import pytest

from service.api.problems import KINDS
from tests.service.conftest import Api


@pytest.fixture
def document(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = api.get("/openapi.json").json()
    return found


def operation(document: dict[str, Any], path: str) -> dict[str, Any]:
    found: dict[str, Any] = document["paths"][path]["post"]
    return found


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predict:batch"])
def test_the_examples_are_golden_rows_and_get_the_answer_shown(api: Api, document: dict[str, Any], path: str) -> None:
    described = operation(document, path)
    request = described["requestBody"]["content"]["application/json"]["example"]
    shown = described["responses"]["200"]["content"]["application/json"]["example"]
    assert "Shanghai" in str(request)
    response = api.post(path, request)
    assert response.status_code == 200
    assert response.json() == shown


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                prefix, _, name = value["$ref"].rpartition("/")
                assert prefix == "#/components/schemas"
                assert name in schemas
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(document)
    assert {"PredictRequest", "BatchRequest", "PredictAnswer", "BatchAnswer", "Problem", "ModelFacts"} <= schemas.keys()


V2_MODEL = ("", "/ready", "/config", "/infer")


def test_every_path_is_described(api: Api, document: dict[str, Any]) -> None:
    assert set(document["paths"]) == {
        "/v1/predict",
        "/v1/predict:batch",
        "/v1/score",
        "/v1/jobs",
        "/v1/jobs/{job_id}",
        "/v1/model",
        "/v1/limits",
        "/livez",
        "/readyz",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        *(f"/v2/models/{{name}}{part}" for part in V2_MODEL),
        *(f"/v2/models/{{name}}/versions/{{version}}{part}" for part in V2_MODEL),
    }
    for path in document["paths"].values():
        for described in path.values():
            assert described["summary"]


def test_problems_have_the_fields_that_are_described(api: Api, document: dict[str, Any]) -> None:
    described = document["components"]["schemas"]["Problem"]["properties"].keys()
    found = api.post("/v1/predict", {"user": {"x": 1, "y": 2}}).json()
    assert found.keys() <= described
    assert KINDS


def test_the_documentation_page_is_there(api: Api) -> None:
    response = api.get("/docs")
    assert response.status_code == 200
    assert "/openapi.json" in response.text
