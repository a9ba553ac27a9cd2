"""Every metric there is, by name, with its meaning, its labels and its buckets.

Knows names. Does not know what is counted, nor where. docs/operations.md has the same table, and a test compares them.
"""

from dataclasses import dataclass
from itertools import product
from typing import Literal

from service.api.problems import KINDS

PREFIX = "fullfunnel_"
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
CANDIDATES = (1.0, 10.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0)
PROBABILITIES = tuple(2.0**-exponent for exponent in range(20, -1, -1))
OK, OTHER = "ok", "other"
DONE, BACK, FELL_BACK, REFUSED, BROKEN = "done", "back", "fell-back", "refused", "failed"
COMPARED, DROPPED = "compared", "dropped"
DIFFERENCES = (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
OUTCOMES = (OK, *(kind.slug for kind in KINDS))
ROUTES = (
    "/v1/predict",
    "/v1/predict:batch",
    "/v1/score",
    "/v1/jobs",
    "/v1/jobs/{job_id}",
    "/v1/model",
    "/v1/limits",
    "/livez",
    "/readyz",
    "/docs",
    "/openapi.json",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/{name}",
    "/v2/models/{name}/config",
    "/v2/models/{name}/infer",
    "/v2/models/{name}/ready",
    "/v2/models/{name}/versions/{version}",
    "/v2/models/{name}/versions/{version}/config",
    "/v2/models/{name}/versions/{version}/infer",
    "/v2/models/{name}/versions/{version}/ready",
    "grpc/ServerLive",
    "grpc/ServerReady",
    "grpc/ServerMetadata",
    "grpc/ModelReady",
    "grpc/ModelMetadata",
    "grpc/ModelConfig",
    "grpc/ModelInfer",
    OTHER,
)


@dataclass(frozen=True)
class Family:
    """One metric. With `buckets` (upper edges, ascending) it is a histogram, otherwise a counter or a gauge."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


REQUESTS = Family("requests", "counter", "Requests answered, by route and outcome", ("route", "outcome"))
REQUEST_SECONDS = Family(
    "request_seconds", "histogram", "From the head of a request to its answer", ("route",), SECONDS
)
QUEUE_SECONDS = Family("queue_seconds", "histogram", "From a prediction's arrays to the begin of its run", (), SECONDS)
RUN_SECONDS = Family("run_seconds", "histogram", "Runs of the model", (), SECONDS)
RUN_CANDIDATES = Family("run_candidates", "histogram", "Candidates of a run", (), CANDIDATES)
PREDICTION_CANDIDATES = Family(
    "prediction_candidates", "histogram", "Candidates of a request, of each request in a batch", (), CANDIDATES
)
SCORE = Family("score", "histogram", "Scores of the runs looked at, by output", ("output",), PROBABILITIES)
SWAPS = Family("swaps", "counter", "Changes of the model that answers, by what came of them", ("result",))
SHADOW_RUNS = Family("shadow_runs", "counter", "Predictions chosen for the shadow, by what came of them", ("result",))
SHADOW_DIFFERENCE = Family(
    "shadow_difference", "histogram", "How far a score of the shadow is from the one answered, by output", ("output",),
    DIFFERENCES,
)  # fmt: skip
VALUES = Family("feature_values", "counter", "Values looked at, by feature", ("feature",))
MISSING = Family("feature_missing", "counter", "Values looked at that were missing, by feature", ("feature",))
UNKNOWN = Family("feature_unknown", "counter", "Values looked at that no vocabulary knows, by feature", ("feature",))
STARTS = Family("worker_starts", "counter", "How often a worker was started", ("worker",))

FEATURE_PSI = Family("feature_psi", "gauge", "Drift of a feature from the reference, in the window", ("feature",))
SCORE_PSI = Family("score_psi", "gauge", "Drift of an output from the reference, in the window", ("output",))
DRIFT_RUNS = Family("drift_runs", "gauge", "Runs looked at in the window of the drift")
MODEL = Family("model", "gauge", "1 for the model that answers", ("name", "version", "digest"))
SHADOW = Family("shadow_model", "gauge", "1 for the model that scores in the shadow", ("name", "version", "digest"))
READY = Family("worker_ready", "gauge", "Whether a worker has its model and is not draining", ("worker",))
UNDER_WAY = Family("predictions_under_way", "gauge", "Predictions being made", ("worker",))
MEMORY = Family("worker_memory_bytes", "gauge", "Resident memory of a worker, shared pages included", ("worker",))
CPU = Family("worker_cpu_seconds", "gauge", "Processor time of a worker since it was started", ("worker",))
FILES = Family("worker_open_files", "gauge", "Open files and sockets of a worker", ("worker",))

# what workers write, whatever the model
COUNTED = (
    REQUESTS,
    REQUEST_SECONDS,
    QUEUE_SECONDS,
    RUN_SECONDS,
    RUN_CANDIDATES,
    PREDICTION_CANDIDATES,
    SWAPS,
    SHADOW_RUNS,
)
# what workers write by feature or output
LOOKED_AT = (VALUES, MISSING, UNKNOWN, SCORE, SHADOW_DIFFERENCE)
# what is found out when somebody asks
READ = (STARTS, FEATURE_PSI, SCORE_PSI, DRIFT_RUNS, MODEL, SHADOW, READY, UNDER_WAY, MEMORY, CPU, FILES)
RESULTS = {SWAPS: (DONE, BACK, FELL_BACK, REFUSED, BROKEN), SHADOW_RUNS: (COMPARED, DROPPED, BROKEN)}
FAMILIES = (*COUNTED, *LOOKED_AT, *READ)


def combinations(family: Family) -> list[tuple[str, ...]]:
    """The values that the labels of a family of COUNTED take together."""
    values = {"route": ROUTES, "outcome": OUTCOMES, "result": RESULTS.get(family, ())}
    return list(product(*(values[label] for label in family.labels)))
