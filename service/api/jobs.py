"""/v1/jobs: batch jobs over files, started, watched and cancelled by HTTP.

Any worker answers about any job: all of them read one folder of records, and one runs what is in it. Knows requests and
answers. Does not know how jobs are kept or run: `service/batch/jobs` does.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from contract.errors import (
    BodyMalformed,
    FeatureMissing,
    Overloaded,
    PlaceForbidden,
    SettingInvalid,
    UnknownField,
    ValueInvalid,
)
from service.api.describe import PROBLEM, Job, JobList, JobRequest, LocatedError, ModelName
from service.api.describe import body_of as described_body
from service.api.lifecycle import Lifecycle
from service.api.predictions import json_response
from service.api.receiving import body_of, check_media_type
from service.api.settings import Settings
from service.batch.jobs.places import Places
from service.batch.jobs.records import Entry, Records, State, new_id
from service.batch.jobs.runner import Bounds, Runner

JOBS = "/v1/jobs"
KEY = re.compile(r"[\x21-\x7e]{1,255}")
FORMATS = ("parquet", "csv", "ndjson", "arrow")
MAX_NAMES, MAX_NAME = 1000, 1024
FIELDS: dict[str, Any] = {
    "input": None,
    "output": None,
    "keep": [],
    "input_format": None,
    "format": None,
    "max_bad": 0,
}
OPTION = re.compile(r"--([a-z-]+)")
T = TypeVar("T")


class Jobs:
    """The jobs of one service, seen from one of its workers. Raises: SettingInvalid."""

    def __init__(self, settings: Settings, lifecycle: Lifecycle) -> None:
        self._settings, self._lifecycle = settings, lifecycle
        roots = [root for root in settings.job_roots.split(":") if root]
        self._places = Places.of(roots, settings.job_urls.split())
        self._records: Records | None = None
        self._runner: asyncio.Task[None] | None = None
        if roots:
            self._records = _records(settings.job_dir, self._places.real)

    def start(self) -> None:
        """Run jobs from now on, when no other worker does."""
        if self._records is not None:
            bounds = Bounds(
                self._settings.max_jobs,
                self._settings.kept_jobs,
                self._settings.job_memory_bytes,
                self._settings.job_workers,
            )
            self._runner = asyncio.create_task(Runner(self._records, self._places.real, bounds).run())

    async def close(self) -> None:
        """Stop those that run; the next start goes on with them."""
        if self._runner is not None:
            self._runner.cancel()
            with suppress(asyncio.CancelledError):
                await self._runner

    @property
    def records(self) -> Records:
        """Raises: PlaceForbidden where no folder is allowed."""
        if self._records is None:
            raise PlaceForbidden(
                "jobs may touch no folder of this service",
                place=JOBS,
                remedy="have FULLFUNNEL_JOB_ROOTS and FULLFUNNEL_JOB_DIR set where the service is started",
            )
        return self._records

    async def add(self, request: Request) -> tuple[Job, bool]:
        """The job that a request asks for, and whether it is new. Raises: RequestInvalid, PlaceForbidden, ..."""
        records = self.records
        check_media_type(request)
        key = request.headers.get("idempotency-key")
        if key is not None and not KEY.fullmatch(key):
            raise ValueInvalid("must be 1 to 255 visible ASCII characters", place="idempotency-key")
        async with body_of(request, self._settings.limits, self._lifecycle) as body:
            asked = _asked(body)
        scorer = self._lifecycle.scorer
        manifest = scorer.manifest
        entry = Entry(
            id=new_id(key),
            created=time.time(),
            bundle=str(self._lifecycle.bundle),
            model={"name": manifest.name, "version": manifest.version, "digest": scorer.digest},
            source=self._places.source(asked["input"]),
            target=self._places.target(asked["output"]),
            asked=asked,
        )
        return await _in_thread(self._added, records, entry)

    def _added(self, records: Records, entry: Entry) -> tuple[Job, bool]:
        jobs = records.all()
        open_ones = sum(not state.has_ended for _, state in jobs)
        if open_ones >= self._settings.max_waiting_jobs and all(known.id != entry.id for known, _ in jobs):
            raise Overloaded("too many jobs are waiting", remedy="send it again when some have ended")
        known, is_new = records.add(entry)
        return _shown(records, known, records.state(known.id)), is_new


def router(jobs: Jobs) -> APIRouter:
    """The routes of jobs."""
    routes = APIRouter(tags=["jobs"])

    @routes.post(
        JOBS,
        summary="Start a job over files",
        status_code=202,
        responses={200: {"model": Job, "description": "The job of this key"}, 202: {"model": Job}, **PROBLEM},
        openapi_extra={
            **described_body(JobRequest),
            "parameters": [{"name": "idempotency-key", "in": "header", "schema": {"type": "string", "maxLength": 255}}],
        },
    )
    async def start(request: Request) -> Response:
        job, is_new = await jobs.add(request)
        response = _json(job)
        response.status_code = 202 if is_new else 200
        response.headers["location"] = f"{JOBS}/{job.id}"
        return response

    @routes.get(JOBS, summary="All jobs, the newest first", responses={200: {"model": JobList}, **PROBLEM})
    async def every(request: Request) -> Response:
        records = jobs.records
        found = await _in_thread(lambda: [_shown(records, *one) for one in reversed(records.all())])
        return _json(JobList(jobs=found))

    @routes.get(f"{JOBS}/{{job_id}}", summary="How far a job is", responses={200: {"model": Job}, **PROBLEM})
    async def one(job_id: str) -> Response:
        records = jobs.records
        return _json(await _in_thread(partial(_looked_up, records, job_id)))

    @routes.delete(
        f"{JOBS}/{{job_id}}",
        summary="Cancel a job",
        status_code=202,
        responses={202: {"model": Job}, **PROBLEM},
    )
    async def cancel(job_id: str) -> Response:
        records = jobs.records
        await _in_thread(partial(records.ask_to_cancel, job_id))
        response = _json(await _in_thread(partial(_looked_up, records, job_id)))
        response.status_code = 202
        return response

    return routes


def _records(job_dir: str | None, roots: list[str]) -> Records:
    """Raises: SettingInvalid, TargetUnwritable."""
    if job_dir is None:
        raise SettingInvalid("must be set for jobs", place="job_dir", remedy="name a folder that only the service uses")
    folder = Path(job_dir).resolve()
    if any(folder == Path(root) or folder.is_relative_to(root) for root in roots):
        raise SettingInvalid("lies in a folder that jobs may touch", place="job_dir", remedy="choose one outside")
    records = Records(folder)
    records.prepare()
    return records


def _asked(body: bytes) -> dict[str, Any]:
    """The fields of a request, with what is left out. Raises: RequestInvalid."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BodyMalformed("the body is not JSON", remedy="send an object") from None
    if not isinstance(found, dict):
        raise ValueInvalid("must be an object", place="body")
    for name in found:
        if name not in FIELDS:
            raise UnknownField("jobs have no such field", place="body", remedy=f"known are {', '.join(FIELDS)}")
    asked = FIELDS | found
    for name in ("input", "output"):
        if asked[name] is None:
            raise FeatureMissing("must be given", place=name)
        if not isinstance(asked[name], str):
            raise ValueInvalid("must be a string", place=name)
    for name in ("input_format", "format"):
        if asked[name] is not None and asked[name] not in FORMATS:
            raise ValueInvalid(f"must be one of {', '.join(FORMATS)}", place=name)
    if not isinstance(asked["max_bad"], int) or isinstance(asked["max_bad"], bool) or not 0 <= asked["max_bad"] < 2**53:
        raise ValueInvalid("must be a whole number from 0 on", place="max_bad")
    keep = asked["keep"]
    names = (
        isinstance(keep, list)
        and len(keep) <= MAX_NAMES
        and all(isinstance(x, str) and len(x) <= MAX_NAME for x in keep)
    )
    if keep != "all" and not names:
        raise ValueInvalid("must be a list of column names, or `all`", place="keep")
    return asked


def _looked_up(records: Records, job_id: str) -> Job:
    return _shown(records, records.entry(job_id), records.state(job_id))


def _shown(records: Records, entry: Entry, state: State) -> Job:
    cancelling = not state.has_ended and records.is_to_be_cancelled(entry.id)
    return Job(
        **entry.asked,
        id=entry.id,
        state="cancelling" if cancelling else state.state,
        model=ModelName(**entry.model),
        created=_time(entry.created) or "",
        started=_time(state.started),
        ended=_time(state.ended),
        rows=state.rows,
        rows_done=state.rows_done,
        rows_per_s=state.rows_per_s,
        refused=state.refused,
        runs=state.runs,
        error=LocatedError(**_worded(state.error)) if state.error else None,
    )


def _worded(error: Mapping[str, str]) -> dict[str, str]:
    """Options of the command are fields of the same name here."""
    found = {name: OPTION.sub(lambda match: match[1].replace("-", "_"), text) for name, text in error.items() if text}
    kind = error.get("type", "internal")
    return {"detail": "", **found, "type": f"urn:fullfunnel:problem:{kind}"}


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _json(model: BaseModel) -> Response:
    return json_response(orjson.dumps(model.model_dump()))


async def _in_thread(work: Callable[..., T], *args: Any) -> T:
    return await asyncio.to_thread(work, *args)
