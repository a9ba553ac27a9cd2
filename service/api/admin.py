"""The second listener: what operators and their machines ask, apart from the predictions and on its own address.

Any worker answers for all of them: counts lie in memory that they share, and a change of the model is made by all.
Knows the paths of this listener. Does not know what is counted, nor how a model is changed.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.server import ServerState

from contract.errors import BodyMalformed, FullfunnelError, SwapForbidden, ValueInvalid
from service.api.edge import new_request_id
from service.api.lifecycle import Lifecycle
from service.api.metrics.exposition import CONTENT_TYPE, exposition
from service.api.problems import kind_of_error, kind_of_status, problem
from service.api.protocol import GuardedProtocol
from service.api.ranking import name_of
from service.api.receiving import check_media_type, received
from service.api.settings import Settings
from service.api.swap.switch import Switch

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")  # of a folder beside the bundle, never a way out of there
MAX_BYTES, MAX_PIECES = 1024, 16  # of a body
Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


async def start(listener: socket.socket, lifecycle: Lifecycle, switch: Switch, settings: Settings) -> asyncio.Server:
    """A server that answers on `listener` until it is closed."""
    protocol = type("Guarded", (GuardedProtocol,), {"limits": settings.limits})
    app = create_app(lifecycle, switch, remote=settings.remote_swaps)
    config = uvicorn.Config(
        app, http=protocol, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False
    )
    config.load()
    state, loop = ServerState(), asyncio.get_running_loop()

    def connection() -> Any:
        return protocol(config, state, {}, loop)

    return await loop.create_server(connection, sock=listener)


def create_app(lifecycle: Lifecycle, switch: Switch, *, remote: bool = False) -> Starlette:
    """The paths of the second listener; `remote`: whether other machines may change the model."""

    async def metrics(_: Request) -> Response:
        content = await asyncio.get_running_loop().run_in_executor(None, exposition, lifecycle.recorder)
        return Response(content, headers={"content-type": CONTENT_TYPE})

    async def ready(_: Request) -> Response:
        lifecycle.check_ready()
        return Response('{"status":"ready"}', media_type="application/json")

    async def models(_: Request) -> Response:
        found = {role: None if scorer is None else name_of(scorer) for role, scorer in switch.models.items()}
        return Response(orjson.dumps(found), media_type="application/json")

    def check_allowed(request: Request) -> None:
        if not remote and lifecycle.keys is None:
            _check_local(request)

    def changes(change: Callable[[str | None], Coroutine[Any, Any, None]], *, named: bool) -> Any:
        async def endpoint(request: Request) -> Response:
            check_allowed(request)
            lifecycle.check_ready()
            name = await _bundle_of(request)
            if named and name is None:
                raise ValueInvalid(
                    "must be given", place="bundle", remedy="name a folder beside the bundle that is served"
                )
            await change(name)
            return await models(request)

        return endpoint

    async def back(_: str | None) -> None:
        await switch.back()

    async def unshadow(request: Request) -> Response:
        check_allowed(request)
        await switch.shadow(None)
        return await models(request)

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, FullfunnelError)  # noqa: S101
        return problem(kind_of_error(error), new_request_id(), error)

    async def not_served(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        return problem(kind_of_status(error.status_code), new_request_id(), headers=error.headers)

    def route(path: str, endpoint: Endpoint, method: str = "GET") -> Route:
        async def checked(request: Request) -> Response:
            lifecycle.check_key(path, request.headers.get("authorization", ""))
            return await endpoint(request)

        return Route(path, checked, methods=[method])

    return Starlette(
        routes=[
            route("/metrics", metrics),
            route("/readyz", ready),
            route("/models", models),
            route("/swap", changes(switch.swap, named=False), "POST"),
            route("/swap/back", changes(back, named=False), "POST"),
            route("/shadow", changes(switch.shadow, named=True), "POST"),
            route("/shadow", unshadow, "DELETE"),
        ],
        exception_handlers={FullfunnelError: refused, HTTPException: not_served},
    )


def _check_local(request: Request) -> None:
    """Raises: SwapForbidden."""
    if request.client is None or not ipaddress.ip_address(request.client.host).is_loopback:
        raise SwapForbidden(
            "asked from another machine", remedy="ask on the machine itself, or set FULLFUNNEL_REMOTE_SWAPS=true"
        )


async def _bundle_of(request: Request) -> str | None:
    """The bundle that a change is to, `{"bundle": NAME}` or `{}`. Only as application/json, which no web page may send.

    Raises: BodyMalformed, BodyTooLarge, ValueInvalid, HTTPException.
    """
    check_media_type(request)
    try:
        asked = orjson.loads(await received(request, MAX_BYTES, MAX_PIECES))
    except orjson.JSONDecodeError:
        raise BodyMalformed("not JSON") from None
    if not isinstance(asked, dict) or not asked.keys() <= {"bundle"}:
        raise ValueInvalid('must be {"bundle": NAME} or {}', place="body")
    name = asked.get("bundle")
    if name is not None and not (isinstance(name, str) and NAME.fullmatch(name)):
        raise ValueInvalid(
            "must be the name of a folder", place="bundle", remedy="name a folder beside the bundle that is served"
        )
    return name
