"""Events as a stream (SSE), and as the last few of them."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from aiohttp import web

from igor_node.http.dispatch import Call, igor_headers
from igor_node.http.events import event_json
from igor_node.http.permissions import Reach
from igor_node.http.routes import Route, Struct
from igor_node.ledger import query_events
from igor_node.words import Malformed


class EventsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`after`: as the header Last-Event-ID, for those who cannot send headers. `last`: not a stream, but the latest N events as JSON."""

    after: int | None = None
    last: int | None = None


async def events(call: Call) -> Any:
    query: EventsQuery = call.query
    if query.last is not None:
        return await last_events(call, query.last)
    last_id = asked_position(call)
    hub = call.front.hub
    await hub.check(last_id)
    headers = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no", **igor_headers(call)}
    response = web.StreamResponse(headers=headers)
    await response.prepare(call.request)

    def drop() -> None:
        transport = call.request.transport
        if transport is not None:
            transport.abort()

    async with aclosing(hub.follow(last_id, drop, call.projects)) as pieces:
        async for piece in pieces:
            await response.write(piece)
    return response


def asked_position(call: Call) -> int | None:
    """Last-Event-ID wins over `after`: a browser that reconnects keeps the address but knows better."""
    text = call.request.headers.get("Last-Event-ID", "")
    if not text:
        return call.query.after  # type: ignore[no-any-return]
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Malformed(f'header Last-Event-ID is "{text[:40]}"', hint="expected the id of an event of this cluster")
    return int(text)


async def last_events(call: Call, count: int) -> Any:
    if not 1 <= count <= 1_000:
        raise Malformed(f'query parameter "last" is {count}', hint="expected 1 to 1000")

    def tail(connection: Any) -> tuple[list[query_events.EventRow], int]:
        first, newest = query_events.event_bounds(connection)
        if call.projects:
            return query_events.last_events(connection, count, call.projects), newest
        return query_events.events_since(connection, max(first - 1, newest - count), count), newest

    rows, newest = await call.read(tail)
    return {"items": [event_json(row) for row in rows], "last": newest}


ROUTES = (
    Route(
        method="GET", path="/v1/events", handler=events, summary="What happens, as server-sent events", query=EventsQuery, reach=Reach.LIST,
        stream="text/event-stream",
    ),
)  # fmt: skip
