"""The API as OpenAPI, with examples made from the loaded model's golden rows.

Knows the shapes of requests and answers as documentation. Does not take part in answering: `wire.py` and
`ranking.py` do that without pydantic.
"""

from importlib.metadata import version
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field

from contract.bundle import Calibration, Input, Metric, Provenance
from contract.errors import NotReady
from contract.features import Feature
from contract.tasks import Output, Task
from service.api.lifecycle import Lifecycle
from service.api.ranking import answer, answer_batch, wire_of
from service.api.settings import Limits
from service.api.wire import example_request
from service.scoring.scorer import Scorer

COMPONENT = "#/components/schemas/{model}"


class ModelName(BaseModel):
    """Which model answered. The digest is the SHA-256 of its manifest: equal digests, equal models."""

    name: str
    version: str
    digest: str


class PredictRequest(BaseModel):
    """One user and the candidates to score for them."""

    user: dict[str, Any] = Field(
        default={}, description="Feature name -> value; a sequence is a list, oldest first. null or absent is missing."
    )
    candidates: dict[str, list[Any]] | list[dict[str, Any]] = Field(
        description="Columns (feature name -> one value per candidate), or a list with an object per candidate."
    )
    top_k: int | None = Field(default=None, ge=1, description="Answer the best k only, best first.")
    order_by: str | None = Field(
        default=None, description="The output to sort by, highest first. With top_k alone: the last joint output."
    )


class BatchRequest(BaseModel):
    """Several users, each with candidates of their own, scored in one run of the model."""

    requests: list[PredictRequest]


class Ranked(BaseModel):
    """One list for each output of the model, and `index` where an order was asked for."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, list[float]]

    index: list[int] | None = Field(default=None, description="The candidates' positions in the request, best first.")


class PredictAnswer(Ranked):
    """The scores of every candidate."""

    model: ModelName


class BatchAnswer(BaseModel):
    """The answers, in the order of the requests."""

    model: ModelName
    results: list[Ranked]


class LocatedError(BaseModel):
    """One thing that is wrong, and where."""

    type: str
    detail: str
    place: str | None = Field(default=None, description="The path inside the request, e.g. candidates.price[3].")
    remedy: str | None = None


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    request_id: str
    detail: str | None = None
    errors: list[LocatedError] | None = Field(default=None, description="At most 20.")


class JobRequest(BaseModel):
    """A job over files, as `fullfunnel score` does it."""

    input: str = Field(description="A file, folder or glob below an allowed folder, or an allowed URL.")
    output: str = Field(description="Below an allowed folder; with an ending one file, without a folder of parts.")
    keep: list[str] | str = Field(default=[], description="Columns to have beside the scores; `all` for every one.")
    input_format: str | None = Field(default=None, description="Of an input whose ending does not tell.")
    format: str | None = Field(default=None, description="Of the output; as its ending says, or as the input.")
    max_bad: int = Field(default=0, ge=0, description="Rows that may be refused and left out.")


class Job(JobRequest):
    """A job, and how far it is."""

    id: str
    state: str = Field(description="waiting, running, cancelling, succeeded, failed or cancelled")
    model: ModelName
    created: str
    started: str | None
    ended: str | None
    rows: int | None = Field(description="Of the input, once they have been counted.")
    rows_done: int
    rows_per_s: float | None
    refused: int | None
    runs: int = Field(description="How often it was started: more than once where the service was.")
    error: LocatedError | None


class JobList(BaseModel):
    """All jobs that are remembered, the newest first."""

    jobs: list[Job]


class ModelFacts(BaseModel):
    """What the model takes, answers, and is worth."""

    model_config = ConfigDict(protected_namespaces=())

    name: str
    version: str
    digest: str
    format_version: int
    architecture: str
    parameters: int
    tasks: tuple[Task, ...]
    features: tuple[Feature, ...]
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    default_order: str = Field(description="The output that `top_k` alone sorts by.")
    calibration: tuple[Calibration, ...]
    metrics: tuple[Metric, ...]
    parity: float
    provenance: Provenance


class State(BaseModel):
    """How the process is."""

    status: str


def model_facts(scorer: Scorer, limits: Limits) -> ModelFacts:
    """The facts at /v1/model."""
    facts = {name: value for name, value in scorer.manifest if name in ModelFacts.model_fields}
    return ModelFacts(**facts, digest=scorer.digest, default_order=wire_of(scorer, limits).default_order)


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """How OpenAPI speaks of a request body that FastAPI itself does not read."""
    schema = {"$ref": COMPONENT.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


PROBLEM: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "What went wrong",
        "content": {"application/problem+json": {"schema": {"$ref": COMPONENT.format(model="Problem")}}},
    }
}


class Description:
    """Makes the OpenAPI document, once for each model."""

    def __init__(self, app: FastAPI, lifecycle: Lifecycle, limits: Limits) -> None:
        self._app, self._lifecycle, self._limits = app, lifecycle, limits
        self._made: dict[str, dict[str, Any]] = {}

    def __call__(self) -> dict[str, Any]:
        """The document, with examples as soon as there is a model."""
        try:
            scorer = self._lifecycle.scorer
        except NotReady:
            return self._plain()
        if scorer.digest not in self._made:
            self._made = {scorer.digest: self._with_examples(scorer)}
        return self._made[scorer.digest]

    def _plain(self) -> dict[str, Any]:
        document = get_openapi(
            title="Fullfunnel",
            version=version("fullfunnel"),
            summary="The whole funnel of an impression: one user, many candidates, every probability.",
            routes=self._app.routes,
        )
        schemas = document["components"]["schemas"]
        for model in (PredictRequest, BatchRequest, JobRequest, Problem):
            schema = model.model_json_schema(ref_template=COMPONENT)
            schemas |= schema.pop("$defs", {})
            schemas[model.__name__] = schema
        return document

    def _with_examples(self, scorer: Scorer) -> dict[str, Any]:
        document = self._plain()
        request = example_request(scorer.golden)
        batch = {"requests": [request, {**request, "top_k": 1}]}
        wire = wire_of(scorer, self._limits)
        for path, body, made in (
            ("/v1/predict", request, answer(scorer, wire.read_request(orjson.dumps(request)))),
            ("/v1/predict:batch", batch, answer_batch(scorer, wire.read_batch(orjson.dumps(batch)))),
        ):
            operation = document["paths"][path]["post"]
            operation["requestBody"]["content"]["application/json"]["example"] = body
            operation["responses"]["200"]["content"]["application/json"]["example"] = orjson.loads(made)
        return document
