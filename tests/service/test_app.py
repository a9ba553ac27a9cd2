"""The application put together: what every path has in common."""

from contract.errors import BundleMissing
from service.scoring.scorer import Scorer
from tests.service.conftest import Api, MakeApi


def test_every_refusal_is_a_problem_with_the_request_id(api: Api) -> None:
    for response in (api.get("/nothing"), api.call("PUT", "/v1/predict"), api.post("/v1/predict", b"{")):
        assert 400 <= response.status_code < 500
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["request_id"] == response.headers["x-request-id"]


def test_a_path_with_a_slash_too_many_is_not_redirected(api: Api) -> None:
    assert api.get("/livez/").status_code == 404


def test_without_a_model_every_prediction_is_refused_with_a_time_to_come_back(make_api: MakeApi) -> None:
    def load() -> Scorer:
        raise BundleMissing("no bundle here")

    response = make_api(load=load).post("/v1/predict", {"candidates": {}})
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
