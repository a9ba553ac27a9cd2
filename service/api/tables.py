"""/v1/score: a table comes in, and goes out scored, in the format that is asked for.

Tables have threads and limits of their own, so that predictions do not wait for them. Knows media types, query
parameters and headers. Does not know formats, nor how a table is scored: `service/batch/posted.py` does, and is
imported with pyarrow when the first table comes.
"""

import asyncio
import json
import struct
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from contract.errors import BodyMalformed, Overloaded, SettingInvalid, TableTooLarge, UnknownField, ValueInvalid
from service.api.codecs import media_type
from service.api.describe import PROBLEM
from service.api.lifecycle import Lifecycle
from service.api.receiving import check_media_type, received
from service.api.settings import Limits, Settings
from service.scoring.scorer import Scorer

if TYPE_CHECKING:
    from service.batch.posted import Asked, Outcome, PostedTable

SCORE = "/v1/score"
FORMATS = {
    "application/vnd.apache.parquet": "parquet",
    "application/vnd.apache.arrow.stream": "arrow",
    "text/csv": "csv",
    "application/x-ndjson": "ndjson",
}
ACCEPTED = frozenset(FORMATS if find_spec("pyarrow") else ())
PARAMETERS = ("keep", "max_bad")
SUMMARY = "Score a table"
DESCRIPTION = (
    "The body has a column for each feature; the answer has a column for each output, behind those of `keep`, in the "
    "format of `Accept`, or else of the request. `x-refused` counts the rows that were left out."
)
PARAMETERS_DESCRIBED = [
    {
        "name": "keep",
        "in": "query",
        "schema": {"type": "string"},
        "description": "Columns to have beside the scores, by comma; `all` for every one.",
    },
    {
        "name": "max_bad",
        "in": "query",
        "schema": {"type": "integer", "minimum": 0, "default": 0},
        "description": "Rows that may be refused and left out.",
    },
]
BINARY = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in FORMATS}
T = TypeVar("T")


class Gone(Exception):
    """Nobody waits for the table any more."""


class Tables:
    """Receives tables, and has them scored in a thread of their own, a few at once."""

    def __init__(self, settings: Settings, lifecycle: Lifecycle) -> None:
        self._limits, self._lifecycle = settings.limits, lifecycle
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="tables")
        self._under_way = 0

    def close(self) -> None:
        """End the thread, when nothing is under way any more."""
        self._threads.shutdown()

    async def respond(self, request: Request) -> Response:
        """The scored table. Raises: RequestInvalid, DataInvalid, RowsRefused, NotReady, Overloaded, ScoreInvalid."""
        scorer = self._lifecycle.scorer
        check_media_type(request, ACCEPTED)
        asked = _asked(request)
        if self._under_way >= self._limits.max_tables:
            raise Overloaded("too many tables are under way", remedy="send the table again a little later")
        self._under_way += 1
        handed_on = False
        try:
            body = await received(request, self._limits.max_table_bytes, self._limits.max_body_chunks)
            table, outcome = await self._scored(request, scorer, body, asked)
            handed_on = True
            return Streamed(self._pieces(table), _headers(scorer, outcome), asked[1], self._left)
        finally:
            if not handed_on:
                self._left()

    def _left(self) -> None:
        self._under_way -= 1

    async def _scored(
        self, request: Request, scorer: Scorer, body: bytes, asked: "tuple[Asked, str]"
    ) -> "tuple[PostedTable, Outcome]":
        gone = threading.Event()

        def proceed() -> None:
            if gone.is_set():
                raise Gone

        work = self._in_thread(lambda: _score(scorer, body, asked[0], self._limits, proceed))
        return await _unless_gone(request, work, gone)

    async def _pieces(self, table: "PostedTable") -> AsyncIterator[bytes]:
        pieces = await self._in_thread(table.pieces)
        while (piece := await self._in_thread(lambda: next(pieces, None))) is not None:
            yield piece

    def _in_thread(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(self._threads, work)


class Streamed(StreamingResponse):
    """An answer in pieces; `left` is called when the last is sent, or the client has gone."""

    def __init__(
        self, pieces: AsyncIterator[bytes], headers: Mapping[str, str], kind: str, left: Callable[[], None]
    ) -> None:
        super().__init__(pieces, headers=dict(headers), media_type=kind)
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._left()


def router(tables: Tables) -> APIRouter:
    """The route of tables."""
    routes = APIRouter()

    @routes.post(
        SCORE,
        tags=["tables"],
        summary=SUMMARY,
        description=DESCRIPTION,
        response_class=Response,
        responses={200: {"content": BINARY}, **PROBLEM},
        openapi_extra={
            "parameters": PARAMETERS_DESCRIBED,
            "requestBody": {"required": True, "content": BINARY},
        },
    )
    async def score(request: Request) -> Response:
        return await tables.respond(request)

    return routes


def _score(
    scorer: Scorer, body: bytes, asked: "Asked", limits: Limits, proceed: Callable[[], None]
) -> "tuple[PostedTable, Outcome]":
    from service.batch.posted import Bounds, PostedTable

    if asked.input_format == "arrow":
        _check_arrow(body, limits)
    bounds = Bounds(limits.max_table_rows, limits.max_table_columns, limits.max_table_expanded_bytes)
    try:
        table = PostedTable(scorer, body, asked, bounds)
    except SettingInvalid as error:
        raise ValueInvalid(error.fact, place="keep", remedy=error.remedy) from None
    return table, table.score(proceed)


def _check_arrow(body: bytes, limits: Limits) -> None:
    """Refuse streams that would grow in memory. Raises: BodyMalformed, TableTooLarge."""
    from service.api.arrow import check_stream

    rows = limits.max_table_rows
    too_many = TableTooLarge(f"more than {rows} rows", place="body", remedy="send it in several requests")
    try:
        check_stream(body, rows, rows, too_many)
    except (struct.error, LookupError, ValueError) as error:
        raise BodyMalformed("the body is not an Arrow stream", remedy="send one, uncompressed") from error


def _asked(request: Request) -> "tuple[Asked, str]":
    """What the query and the headers ask for, and the media type of the answer. Raises: UnknownField, ValueInvalid."""
    from service.batch.job import ALL
    from service.batch.posted import Asked

    for name in request.query_params:
        if name not in PARAMETERS:
            raise UnknownField("there is no such parameter", place="query", remedy=f"known are {', '.join(PARAMETERS)}")
    names = [name for text in request.query_params.getlist("keep") for name in text.split(",") if name]
    keep = (ALL,) if names == ["all"] else tuple(names)
    bad = request.query_params.get("max_bad", "0")
    if not (bad.isdecimal() and bad.isascii() and len(bad) < 10):
        raise ValueInvalid("must be a whole number from 0 on", place="max_bad")
    sent = media_type(request.headers["content-type"])
    wanted = [media_type(one) for one in request.headers.get("accept", "").split(",")]
    answered = next((kind for kind in wanted if kind in FORMATS), sent)
    return Asked(FORMATS[sent], FORMATS[answered], keep, int(bad)), answered


def _headers(scorer: Scorer, outcome: "Outcome") -> Mapping[str, str]:
    from service.batch.posted import told

    model = {"name": scorer.manifest.name, "version": scorer.manifest.version, "digest": scorer.digest}
    headers = {"x-model": json.dumps(model), "x-rows": str(outcome.rows), "x-refused": str(outcome.refused)}
    return headers | ({"x-refused-rows": told(outcome)} if outcome.refused else {})


async def _unless_gone(request: Request, work: "asyncio.Future[T]", gone: threading.Event) -> T:
    """What becomes of the work; it is told to end when the client has hung up. Raises: ClientDisconnect."""
    left = asyncio.ensure_future(request.receive())
    work.add_done_callback(_looked_at)
    try:
        waited: set[asyncio.Future[Any]] = {work, left}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            gone.set()
            raise ClientDisconnect
        return work.result()
    finally:
        gone.set()
        left.cancel()


def _looked_at(work: "asyncio.Future[Any]") -> None:
    """Nobody may be left to hear of the error."""
    if not work.cancelled():
        work.exception()
