"""What is measured: Fullfunnel, the engine by itself, and the peers, each with its pinned packages and its command.

Knows names, versions and commands. Does not know what they do.
"""

from dataclasses import dataclass

from benchmarks.serving.wire import Wire

ONNX = ("onnxruntime==1.31.1", "orjson==3.13.0", "numpy==2.4.6")  # the versions that Fullfunnel is locked to
MODULE = "benchmarks.serving.peers"


@dataclass(frozen=True)
class System:
    """`command` is filled with {bin}, {python}, {port}, {workers} and {bundle}; a system without one is no server.

    `requirements` make its environment; a system without any runs in Fullfunnel's.
    """

    name: str
    title: str
    wire: Wire = "columns"
    path: str = "/predict"
    command: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


FULLFUNNEL = System(
    "fullfunnel",
    "Fullfunnel",
    wire="fullfunnel",
    path="/v1/predict",
    command=(
        "{python}",
        "-m",
        "service",
        "{bundle}",
        "--port",
        "{port}",
        "--workers",
        "{workers}",
        "--drain-delay-s",
        "0",
    ),
)
ONE_CORE = System(
    "one-core",
    "Fullfunnel, one core a worker",
    wire=FULLFUNNEL.wire,
    path=FULLFUNNEL.path,
    command=FULLFUNNEL.command,
    environment=(("FULLFUNNEL_OVERLAP", "false"),),
)
TWO_WORKERS = System(
    "two-workers",
    "Fullfunnel, two workers",
    wire=FULLFUNNEL.wire,
    path=FULLFUNNEL.path,
    command=tuple("2" if part == "{workers}" else part for part in FULLFUNNEL.command),
    environment=ONE_CORE.environment,
)
BINARY = System(
    "binary",
    "Fullfunnel, binary tensors",
    wire="binary",
    path="/v2/models/{name}/infer",
    command=FULLFUNNEL.command,
)
SESSION = System("session", "Fullfunnel's session alone, one process", wire="fullfunnel")
ENGINE = System("engine", "the graph alone, one process")
PEERS = (
    System(
        "plain",
        "FastAPI, pydantic, onnxruntime",
        wire="rows",
        command=(
            *("{bin}/uvicorn", f"{MODULE}.plain:app", "--workers", "{workers}", "--port", "{port}"),
            *("--log-level", "warning", "--no-access-log"),
        ),
        requirements=("fastapi==0.165.0", "uvicorn[standard]==0.54.0", "pydantic==2.14.3"),
    ),
    System(
        "bentoml",
        "BentoML 1.4.40",
        wire="wrapped",
        command=("{bin}/bentoml", "serve", f"{MODULE}.bentoml:Ranker", "--host", "127.0.0.1", "--port", "{port}"),
        requirements=("bentoml==1.4.40",),
        environment=(("BENTOML_DO_NOT_TRACK", "True"),),
    ),
    System(
        "litserve",
        "LitServe 0.2.19",
        command=("{python}", "-m", f"{MODULE}.litserve"),
        requirements=("litserve==0.2.19",),
    ),
    System(
        "ray",
        "Ray Serve 2.60.0",
        command=("{python}", "-m", f"{MODULE}.ray"),
        requirements=("ray[serve]==2.60.0",),
        environment=(("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1")),
    ),
    System(
        "mlserver",
        "MLServer 1.7.1",
        wire="v2",
        path="/v2/models/ranker/infer",
        command=("{python}", "-m", f"{MODULE}.mlserver"),
        requirements=("mlserver==1.7.1", "uvloop==0.21.0"),  # its workers do not start with a later uvloop
    ),
    System(
        "kserve",
        "KServe 0.21.0",
        wire="v2",
        path="/v2/models/ranker/infer",
        command=("{python}", "-m", f"{MODULE}.kserve"),
        requirements=("kserve==0.21.0",),
    ),
    System(
        "mosec",
        "mosec 0.9.8",
        path="/inference",
        command=(
            *("{python}", "-m", f"{MODULE}.mosec", "--address", "127.0.0.1", "--port", "{port}"),
            *("--log-level", "error", "--timeout", "60000"),
        ),
        requirements=("mosec==0.9.8",),
    ),
)
SYSTEMS = (FULLFUNNEL, BINARY, ONE_CORE, TWO_WORKERS, SESSION, ENGINE, *PEERS)
OURS = (FULLFUNNEL, BINARY, ONE_CORE, TWO_WORKERS, SESSION)  # whatever graph the peers serve, these take the bundle
ALONE = (SESSION, ENGINE)  # no servers
