"""The application: routes, errors, the edge and the lifecycle put together.

Knows every module of this package but the server. Does not know how it is run.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from contract.errors import FullfunnelError
from service.api.describe import Description
from service.api.edge import Edge
from service.api.jobs import Jobs
from service.api.jobs import router as jobs_router
from service.api.lifecycle import Lifecycle
from service.api.predictions import Predictions
from service.api.problems import kind_of_error, kind_of_status, problem
from service.api.routes import router
from service.api.settings import Settings
from service.api.tables import Tables
from service.api.tables import router as tables_router
from service.api.v2.http import router as v2_router

SOON_S = 0.1  # what is loaded by then is ready before the first connection is taken

log = logging.getLogger("fullfunnel")


def create_app(settings: Settings, lifecycle: Lifecycle) -> FastAPI:
    """The ASGI application. Loads its model when it starts up, and answers 503 until that is done.

    Raises: SettingInvalid, TargetUnwritable.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(lifecycle.start())
        await asyncio.wait([loading], timeout=SOON_S)
        jobs.start()
        yield
        await jobs.close()
        await loading
        tables.close()
        lifecycle.close()

    async def check_key(request: Request) -> None:
        lifecycle.check_key(request.scope["route"].path, request.headers.get("authorization", ""))

    app = FastAPI(
        title="Fullfunnel",
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
        # a browser sends no key, and the documentation shows what the model takes
        openapi_url="/openapi.json" if lifecycle.keys is None else None,
    )
    predictions = Predictions(settings, lifecycle)
    tables = Tables(settings, lifecycle)
    jobs = Jobs(settings, lifecycle)
    for routes in (
        router(settings, lifecycle, predictions),
        tables_router(tables),
        jobs_router(jobs),
        v2_router(lifecycle, predictions),
    ):
        app.include_router(routes, dependencies=[Depends(check_key)])
    app.add_middleware(Edge, lifecycle=lifecycle)
    app.add_exception_handler(FullfunnelError, _refused)
    app.add_exception_handler(HTTPException, _not_served)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.openapi = Description(app, lifecycle, settings.limits)  # type: ignore[method-assign]
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, FullfunnelError)  # noqa: S101
    kind = kind_of_error(error)
    request.state.outcome = kind.slug
    if kind.status == 500:
        log.error("request %s: %s", request.state.request_id, error)
    return problem(kind, request.state.request_id, error, path=request.scope["path"])


async def _not_served(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    kind, headers = kind_of_status(error.status_code), error.headers
    request.state.outcome = kind.slug
    return problem(kind, request.state.request_id, path=request.scope["path"], headers=headers)


async def _gone(request: Request, error: Exception) -> Response:
    """Nobody reads this: the client has hung up."""
    request.state.outcome = None
    return Response(status_code=400)
