"""Puts the HTTP side together: `make_app(services)` gives the aiohttp application that `listener.Listener` serves.

The application owns what its requests share: connections to other nodes, and four tasks (events, tokens, streams whose token ends, the age of
what is read), which end with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import HttpVersion11, web

from igor_node.http import limits, problems
from igor_node.http.api.table import ROUTES
from igor_node.http.dispatch import Front, check_host, check_origin, cross_origin, endpoint
from igor_node.http.routes import Route, check_headers
from igor_node.http.services import Services
from igor_node.words import Unavailable

log = logging.getLogger("igor.http")
AGAIN_S = 1.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE",
    "Access-Control-Allow-Headers": "Content-Type, Idempotency-Key, If-Match, If-None-Match, Igor-Index, Last-Event-ID",
    "Access-Control-Max-Age": "600",
}
FRONT = web.AppKey("front", Front)


def make_app(services: Services, table: tuple[Route, ...] = ROUTES) -> web.Application:
    app = web.Application(middlewares=[problems.middleware, closed], client_max_size=limits.PUSH_BODY_LIMIT_BYTES)

    async def owned(app: web.Application) -> AsyncIterator[None]:
        front = app[FRONT] = Front(services, table)
        works = (front.heard.watch, front.identities.watch, front.identities.tell_uses, front.watch_streams, front.hub.watch)
        tasks = [asyncio.create_task(kept_going(work)) for work in works]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await front.forwarder.close()
        if front.provider is not None:
            await front.provider.close()

    async def end_streams(app: web.Application) -> None:
        app[FRONT].end_streams()

    app.on_shutdown.append(end_streams)
    app.cleanup_ctx.append(owned)
    for route in table:
        app.router.add_route(route.method, route.path, handler_of(app, route), expect_handler=go_on)
        if route.method == "GET" and route.stream is None:
            app.router.add_route("HEAD", route.path, handler_of(app, route), expect_handler=go_on)
    return app


async def kept_going(work: Callable[[], Awaitable[None]]) -> None:
    """Runs a task of the application for as long as it lives: a ledger that cannot be read at this moment is tried again."""
    while True:
        try:
            await work()
        except Unavailable as problem:  # no ledger here yet
            log.debug("%s: %s", work.__qualname__, problem)
        except Exception:  # the edge of a task
            log.exception("in %s", work.__qualname__)
        await asyncio.sleep(AGAIN_S)


async def go_on(request: web.Request) -> web.StreamResponse | None:
    """Answers `Expect`: "100 Continue" where that is expected, a problem where anything else is."""
    if request.headers["Expect"].lower() != "100-continue":
        return problems.answer(web.HTTPExpectationFailed())
    if request.transport is not None and request.version >= HttpVersion11:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return None


def handler_of(app: web.Application, route: Route) -> Handler:
    answer: Handler | None = None

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal answer
        if answer is None:
            answer = endpoint(app[FRONT], route)
        return await answer(request)

    return handle


@web.middleware
async def closed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What no route is for is told only to whom the node knows; OPTIONS, which browsers send without a session, only to pages of this cluster."""
    front = request.app[FRONT]
    services = front.services
    if request.method == "OPTIONS":
        check_host(services, request)
        if check_origin(services, request):
            return web.Response(status=204, headers={**cross_origin(request.headers["Origin"]), **PREFLIGHT})
        await front.identities.known(request)
        return web.Response(status=204, headers={"Allow": "GET, HEAD, POST, PUT, DELETE"})
    if request.match_info.http_exception is not None:
        check_headers(request)
        check_host(services, request)
        check_origin(services, request)
        await front.identities.known(request)
    return await handler(request)
