"""The second listener: what operators and their machines ask, apart from the predictions and on its own address.

Any worker answers for all of them, since counts lie in memory that they share. Knows the paths of this listener. Does
not know what is counted.
"""

import asyncio
import socket
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.server import ServerState

from contract.errors import NotReady
from service.api.edge import new_request_id
from service.api.lifecycle import Lifecycle
from service.api.metrics.exposition import CONTENT_TYPE, exposition
from service.api.problems import kind_of_error, kind_of_status, problem
from service.api.protocol import GuardedProtocol
from service.api.settings import Limits


async def start(listener: socket.socket, lifecycle: Lifecycle, limits: Limits) -> asyncio.Server:
    """A server that answers on `listener` until it is closed."""
    protocol = type("Guarded", (GuardedProtocol,), {"limits": limits})
    config = uvicorn.Config(
        create_app(lifecycle), http=protocol, ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False,
    )  # fmt: skip
    config.load()
    state, loop = ServerState(), asyncio.get_running_loop()

    def connection() -> Any:
        return protocol(config, state, {}, loop)

    return await loop.create_server(connection, sock=listener)


def create_app(lifecycle: Lifecycle) -> Starlette:
    """The paths of the second listener."""

    async def metrics(_: Request) -> Response:
        content = await asyncio.get_running_loop().run_in_executor(None, exposition, lifecycle.recorder)
        return Response(content, headers={"content-type": CONTENT_TYPE})

    async def ready(_: Request) -> Response:
        try:
            lifecycle.check_ready()
        except NotReady as error:
            return problem(kind_of_error(error), new_request_id(), error)
        return Response('{"status":"ready"}', media_type="application/json")

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        return problem(kind_of_status(error.status_code), new_request_id(), headers=error.headers)

    return Starlette(
        routes=[Route("/metrics", metrics), Route("/readyz", ready)], exception_handlers={HTTPException: refused}
    )
