"""What can be set, where, and to what unless told otherwise.

Every setting is an environment variable: its name in capitals after FULLFUNNEL_, as in FULLFUNNEL_MAX_CANDIDATES.
Knows names, defaults and bounds. Does not know what they do.
"""

import os
from typing import Any, Literal, Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from contract.errors import SettingInvalid
from service.scoring.settings import Provider, ScoringSettings

SMALL_PIECE = 1024  # bytes: larger pieces of a body are not counted
FROM_ENVIRONMENT = SettingsConfigDict(env_prefix="FULLFUNNEL_", frozen=True, extra="forbid")


class Limits(BaseSettings):
    """What a client may send. Shown at /v1/limits."""

    model_config = FROM_ENVIRONMENT

    max_body_bytes: int = Field(default=2 * 2**20, ge=1, description="bytes of a request body")
    max_body_chunks: int = Field(
        default=8192, ge=1, description="pieces of less than 1 KiB a request body may arrive in"
    )
    max_head_bytes: int = Field(default=16 * 1024, ge=256, description="bytes of request line and headers")
    max_headers: int = Field(default=64, ge=1, description="headers of a request")
    receive_timeout_s: float = Field(default=10, gt=0, description="seconds within which a request must have arrived")
    keep_alive_s: int = Field(default=30, ge=1, description="seconds an idle connection is kept open")
    max_depth: int = Field(default=32, ge=4, le=1024, description="levels of nesting in JSON")
    max_string_bytes: int = Field(default=1024, ge=1, description="bytes of one string value, as UTF-8")
    max_candidates: int = Field(default=1024, ge=1, description="candidates of one request")
    max_requests: int = Field(default=64, ge=1, description="requests in one call of /v1/predict:batch")
    max_rows: int = Field(default=8192, ge=1, description="candidates of all requests in such a call")
    max_cells: int = Field(default=2**22, ge=1, description="values of one sequence feature over all rows, padded")
    max_concurrency: int = Field(default=64, ge=1, description="predictions under way at once; more are refused (503)")
    max_buffered_bytes: int = Field(default=64 * 2**20, ge=1, description="bytes of all bodies held at once (503)")
    max_table_bytes: int = Field(default=32 * 2**20, ge=1, description="bytes of a table sent to /v1/score")
    max_table_rows: int = Field(default=1_000_000, ge=1, description="rows of such a table")
    max_table_columns: int = Field(default=2000, ge=1, description="columns of such a table")
    max_table_expanded_bytes: int = Field(
        default=256 * 2**20, ge=1, description="bytes of the columns that are read of it, as they are decoded"
    )
    max_tables: int = Field(default=2, ge=1, description="tables under way at once; more are refused (503)")


class Settings(BaseSettings):
    """How the service runs."""

    model_config = FROM_ENVIRONMENT

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0: any free one")
    grpc_port: int | None = Field(
        default=None, ge=0, le=65535, description="port to listen on for gRPC; 0: any free one; None: no gRPC"
    )
    admin_host: str = Field(default="127.0.0.1", description="address to listen on for operators: /metrics")
    admin_port: int | None = Field(
        default=None, ge=0, le=65535, description="port to listen on for operators; 0: any free one; None: not at all"
    )
    keys: str | None = Field(default=None, description="file of the keys that are good; None: nobody is asked for one")
    insecure: bool = Field(default=False, description="allow an address other machines reach, without any key")
    workers: int = Field(default=1, ge=0, le=1024, description="processes that serve; 0: one for each core")
    worker_silence_s: float = Field(default=30, ge=2, description="seconds until a worker that hangs is replaced")
    drain_delay_s: float = Field(default=5, ge=0, description="seconds served on after SIGTERM, with /readyz at 503")
    stop_timeout_s: int = Field(default=20, ge=0, description="seconds that requests under way get to finish in")
    provider: Provider = Field(default="cpu", description="what runs the model: cpu, cuda, or auto (cuda if there)")
    intra_op_threads: int = Field(default=1, ge=0, le=1024, description="threads of one run of the model; 0: all cores")
    max_words: int = Field(
        default=200_000, ge=0, description="words of a vocabulary looked up outside onnxruntime; 0: none"
    )
    batch_wait_ms: float | None = Field(
        default=None, ge=0, description="ms to wait for others to run with; 0: each alone; None: 1 on a GPU, else 0"
    )
    batch_rows: int = Field(default=8192, ge=1, description="candidates from which a batch waits no more")
    queue_ms: float = Field(default=1000, gt=0, description="ms a request may wait for its batch; then 503")
    threads: int = Field(default=1, ge=1, le=256, description="threads for large predictions")
    inline_ms: float = Field(default=5, ge=0, description="expected ms up to which a run stays on the event loop")
    overlap: bool | None = Field(
        default=None, description="run the model while the event loop reads on; None: where cores are left over"
    )
    overlap_ms: float = Field(default=0.8, ge=0, description="expected ms from which a run overlaps with reading")
    drift_every: int = Field(default=32, ge=0, description="one prediction in so many is looked at for drift; 0: none")
    drift_window_s: float = Field(default=3600, ge=12, description="seconds of traffic that drift is told of")
    remote_swaps: bool = Field(default=False, description="let other machines change the model at the admin port")
    trial_s: float = Field(default=60, ge=0, description="seconds within which a new model may be taken back; 0: none")
    trial_psi: float = Field(default=0.5, gt=0, description="PSI of scores up to which it is not taken back for them")
    shadow_every: int = Field(default=32, ge=1, description="one prediction in so many is scored in the shadow too")
    job_dir: str | None = Field(default=None, description="folder of the records of jobs, used by nobody else")
    job_roots: str = Field(default="", description="folders that jobs may read and write, by colon; empty: no jobs")
    job_urls: str = Field(default="", description="prefixes of URLs that jobs may read, by space")
    job_memory_bytes: int = Field(default=4 * 2**30, ge=0, description="memory of each process of a job; 0: any")
    job_workers: int = Field(default=1, ge=1, le=1024, description="processes of a job")
    max_jobs: int = Field(default=1, ge=1, description="jobs that run at once; others wait")
    max_waiting_jobs: int = Field(default=100, ge=1, description="jobs that have not ended; more are refused (503)")
    kept_jobs: int = Field(default=1000, ge=1, description="jobs that are remembered; the oldest are forgotten")
    log_format: Literal["text", "json"] = Field(default="text", description="how lines on stderr are written")
    access_log: bool = Field(default=False, description="a line for each request")
    limits: Limits = Field(default_factory=Limits)

    @classmethod
    def read(cls, **overrides: Any) -> Self:
        """From the environment, with `overrides` (None: not given) above it.

        Raises: SettingInvalid.
        """
        try:
            return cls(**{name: value for name, value in overrides.items() if value is not None})
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise SettingInvalid(
                first["msg"], place=name, remedy=f"check --{name.replace('_', '-')} and FULLFUNNEL_{name.upper()}"
            ) from None

    @property
    def overlaps(self) -> bool:
        """Whether runs overlap with reading."""
        if self.overlap is not None:
            return self.overlap
        return 0 < self.workers < len(os.sched_getaffinity(0))

    @property
    def scoring(self) -> ScoringSettings:
        """The part that concerns the model."""
        return ScoringSettings(
            provider=self.provider,
            intra_op_threads=self.intra_op_threads,
            max_words=self.max_words,
            max_string_bytes=self.limits.max_string_bytes,
            max_cells=self.limits.max_cells,
        )
