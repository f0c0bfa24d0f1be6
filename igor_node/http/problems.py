"""Errors as `application/problem+json`: one table from whatever was raised to status, title, detail and hint.

The statuses and titles stand at the classes of `words.IgorError`; this module adds what aiohttp and msgspec raise. Nothing else writes an error.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web

from igor_node.words import IgorError, Invalid, OutcomeUnknown, TooMany, Unavailable, WrongHost
from raft.interface import Halted, NotLeader, Unknown

CONTENT_TYPE = "application/problem+json"
log = logging.getLogger("igor.http")


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457. `type` ends in the error's name in words.py, by which the command line finds its exit code."""

    type: str
    title: str
    status: int
    detail: str
    hint: str = ""
    faults: tuple[str, ...] = ()


class NotTheLeader(Unavailable):
    """A forwarded request reached a node that does not lead. Surely nothing was done, so the node that forwarded it asks the next one."""

    title = "Not the leader"


class NotHere(WrongHost):
    """Only the leader does this. Its address, where it is known, stands in the header `Igor-Leader`."""

    title = "Not the leader"

    def __init__(self, leader: str | None) -> None:
        super().__init__("this node does not lead", hint=f"go to {leader}" if leader else "no leader is known; try again in a moment")
        self.leader = leader


class Gone(IgorError):
    status, exit_code, title = 410, 4, "Gone"


HTTP_TITLES: Mapping[int, tuple[str, str]] = {
    404: ("NotFound", "there is nothing at this address"),
    405: ("MethodNotAllowed", "this address does not know that method"),
    408: ("Timeout", "the request did not arrive in time"),
    413: ("TooLarge", "the request is too large"),
    417: ("ExpectationFailed", "nothing but 100-continue can be expected"),
    431: ("TooLarge", "the request's headers are too large"),
}


def problem(error: BaseException) -> Problem:
    """What a person is told about `error`. An unforeseen one tells nothing of its inside; the log has it."""
    match error:
        case IgorError():
            return from_igor(error)
        case web.HTTPException():
            name, words = HTTP_TITLES.get(error.status, ("HTTP", error.reason))
            return Problem(type=urn(name), title=error.reason, status=error.status, detail=words)
        case NotLeader():
            return from_igor(Unavailable(str(error), hint="ask again in a moment"))
        case Unknown():
            return Problem(
                type=urn("OutcomeUnknown"),
                title="Outcome unknown",
                status=503,
                detail=f"it may or may not have been done: {error}",
                hint="ask again with the same Idempotency-Key or If-Match",
            )
        case Halted():
            return from_igor(Unavailable(f"this node has stopped: {error}", hint="ask another node; see this one's log"))
        case _:
            return Problem(type=urn("Internal"), title="Internal error", status=500, detail="the node's log says more")


def from_igor(error: IgorError) -> Problem:
    return Problem(
        type=urn(type(error).__name__),
        title=error.title,
        status=error.status,
        detail=error.message,
        hint=error.hint,
        faults=error.faults if isinstance(error, Invalid) else (),
    )


def urn(name: str) -> str:
    return f"urn:igor:{name}"


def answer(error: BaseException) -> web.Response:
    """The whole response. A refusal changes nothing and is never cached."""
    told = problem(error)
    headers = {"Cache-Control": "no-store"}
    if isinstance(error, Unavailable | TooMany):
        headers["Retry-After"] = str(error.retry_after_s)
    elif told.status == 503:
        headers["Retry-After"] = "1"
    if isinstance(error, NotTheLeader):
        headers["Igor-Not-Leader"] = "1"
    if isinstance(error, Unknown | OutcomeUnknown):
        headers["Igor-Outcome"] = "unknown"
    if isinstance(error, NotHere) and error.leader is not None:
        headers["Igor-Leader"] = error.leader
    if told.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, web.HTTPMethodNotAllowed):
        headers["Allow"] = error.headers.get("Allow", "")
    return web.Response(body=msgspec.json.encode(told), status=told.status, headers=headers, content_type=CONTENT_TYPE)


@web.middleware
async def middleware(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """Outermost: whatever leaves a handler as an exception becomes a problem; only the unforeseen is logged. Where a stream had begun, its
    connection is broken off, so that its reader sees that this was not the end."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return refuse(request, error)
    except (IgorError, NotLeader, Unknown, Halted) as error:
        return refuse(request, error)
    except ConnectionResetError:
        raise
    except Exception as error:  # the edge of a request's task
        log.exception("while answering %s %s", request.method, request.path)
        return refuse(request, error)


def refuse(request: web.Request, error: Exception) -> web.Response:
    if request.writer.output_size == 0:
        return answer(error)
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError(str(error))
