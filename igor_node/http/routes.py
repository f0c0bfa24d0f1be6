"""The shape of a route, and the decoding of what was sent to it.

A route is a row: method, path, role and reach (permissions.py), where it may be answered, what goes in and what comes out. The application, the
OpenAPI page, the table of permissions and the tests that walk all routes are made from the same rows, so that they cannot name different things.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from aiohttp import web

from igor_node.http.limits import BODY_LIMIT_BYTES, BODY_S, HEADERS_LIMIT_BYTES, JSON_DEPTH, QUERY_DEFAULT, QUERY_LIMIT
from igor_node.http.permissions import Reach
from igor_node.words import Instant, Malformed, Role, TooLarge, Unauthenticated, parse_instant

if TYPE_CHECKING:
    from igor_node.http.dispatch import Call

JOB = "{job:[^/]+(?:/[^/]+)?}"
"""`name`, `project/name`, or that with its slash encoded."""
RUN = "{run:[^/]+(?:/[^/]+)?}"
"""An id, a prefix of one, or `JOB@latest` and its like."""


class Where(StrEnum):
    """Which node answers."""

    HERE = "here"  # the one that was asked, whatever it knows
    KEYED = "keyed"  # any that holds the ledger and the cluster's key, without a word about how new its ledger is
    READ = "read"  # any that holds the ledger; with `?consistent=1` the leader
    WRITE = "write"  # the leader


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What clients send: a field that is not known is a fault, never ignored."""


class NoQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class AnyQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whatever it holds: others wrote it. The handler reads what it knows."""


class NoBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Page(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    limit: int = QUERY_DEFAULT
    cursor: str | None = None


@dataclass(frozen=True)
class Reply:
    """What a handler gives back: a value to be encoded, or bytes as they are."""

    value: Any = None
    status: int = 200
    headers: Mapping[str, str] | None = None


Handler = Callable[["Call"], Awaitable[Any]]


@dataclass(frozen=True, kw_only=True)
class Route:
    method: str
    path: str
    handler: Handler
    summary: str
    role: Role | None = Role.VIEWER  # None: no token of the ledger is asked for
    nodes: bool = False  # whether a token of role `node` may call it too
    join: bool = False  # whether it is part of joining: for join tokens too, and where it is for nodes also for an admin
    reach: Reach = Reach.CLUSTER  # closed by default: a token that is bound to projects may not
    where: Where = Where.READ
    query: type[msgspec.Struct] = NoQuery
    body: type[msgspec.Struct] | None = None
    answer: Any = None
    statuses: Sequence[int] = (200,)
    content_types: Sequence[str] = ("application/json",)  # of a good answer
    body_limit: int = BODY_LIMIT_BYTES
    stream: str | None = None  # the content type of an answer that goes on
    own_token: bool = False  # asks for a token that is none of the ledger's tokens, and checks it itself
    any_host: bool = False  # answered under any host name: for probes
    hidden: bool = False  # not part of the API: pages and files
    closed: Callable[[Call, Unauthenticated], web.Response] | None = None  # what says 401 instead of a problem: for browsers
    keyed: bool = True  # whether an Idempotency-Key may stand for the id of the ledger's command


def template(path: str) -> str:
    """`/v1/jobs/{job:…}/runs` as people write it: `/v1/jobs/{job}/runs`."""
    return path.replace(JOB, "{job}").replace(RUN, "{run}").replace("{path:.+}", "{path}")


# --- decoding


def decode_query(kind: type[msgspec.Struct], pairs: Sequence[tuple[str, str]]) -> Any:
    """The query as `kind`. Every fault names its parameter: unknown, repeated, of the wrong type, out of range."""
    if kind is AnyQuery:
        return AnyQuery()
    given: dict[str, Any] = {}
    wire = _parameters(kind)
    for name, value in pairs:
        if name not in wire:
            known = ", ".join(sorted(wire)) or "none here"
            raise Malformed(f'query parameter "{name}" is not known', hint=f"known are: {known}")
        if name in given:
            raise Malformed(f'query parameter "{name}" is given twice')
        given[name] = parse_parameter(name, value, wire[name])
    decoded = msgspec.convert(given, kind)
    _check_limit(decoded)
    return decoded


@cache
def _parameters(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The type of each parameter by its name in the query: one of some dozens of structs, and looking into one takes longer than most requests."""
    hints = get_type_hints(kind)
    return {field.encode_name: hints[field.name] for field in msgspec.structs.fields(kind)}


def _check_limit(decoded: Any) -> None:
    limit = getattr(decoded, "limit", None)
    if limit is not None and not 1 <= limit <= QUERY_LIMIT:
        raise Malformed(f'query parameter "limit" is {limit}', hint=f"expected 1 to {QUERY_LIMIT}")


TRUE, FALSE = ("1", "true", "yes", ""), ("0", "false", "no")


def parse_parameter(name: str, text: str, hint: Any) -> Any:
    kind = _plain(hint)
    try:
        if kind is bool:
            return _parse_bool(text)
        if kind is Instant:
            return parse_instant(text.replace(" ", "+"))  # a plus sign that was not encoded
        if kind is int:
            return _parse_whole(text)
        if kind is float:
            return float(text)
    except ValueError as fault:
        raise Malformed(f'query parameter "{name}": {fault}') from None
    if "\0" in text:
        raise Malformed(f'query parameter "{name}" holds a NUL character')
    return text


def _parse_bool(text: str) -> bool:
    if text.lower() in TRUE:
        return True
    if text.lower() in FALSE:
        return False
    raise ValueError(f'"{text}" is neither yes nor no; expected 1 or 0')


def _parse_whole(text: str) -> int:
    if not text.lstrip("-").isascii() or not text.lstrip("-").isdigit() or len(text) > 18:
        raise ValueError(f'"{text}" is not a whole number')
    return int(text)


def _plain(hint: Any) -> Any:
    """`T` of `T | None`."""
    if get_origin(hint) in (Union, types.UnionType):
        return next(part for part in get_args(hint) if part is not type(None))
    return hint


def check_headers(request: web.Request) -> None:
    size = len(request.raw_path) + sum(len(name) + len(value) + 4 for name, value in request.raw_headers)
    if size > HEADERS_LIMIT_BYTES:
        raise web.HTTPRequestHeaderFieldsTooLarge


async def read_body(request: web.Request, limit: int) -> bytes:
    """The whole body. Refused before it is read where its length is told, at the limit where it is not."""
    if request.content_length is not None and request.content_length > limit:
        raise TooLarge(f"the body has {request.content_length} bytes", hint=f"at most {limit} are allowed here")
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.content.iter_any():
                size += len(part)
                if size > limit:
                    raise TooLarge(f"the body has more than {limit} bytes")
                parts.append(part)
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except web.RequestPayloadError as fault:
        raise Malformed(f"the body cannot be read: {fault}") from None
    return b"".join(parts)


def decode_body(kind: type[msgspec.Struct], body: bytes) -> Any:
    """The body as `kind`; a fault names the field by its path. An empty body is an empty object."""
    try:
        decoded = msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as fault:
        raise Malformed(f"the body is not as expected: {in_words(fault)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise Malformed(f"the body is not JSON: {fault}") from None
    except RecursionError:
        raise Malformed(f"the body is nested deeper than {JSON_DEPTH}") from None
    check_depth(decoded)
    return decoded


def in_words(fault: msgspec.ValidationError) -> str:
    """msgspec ends its message in `- at `$.params``; people begin with the field."""
    message, separator, where = str(fault).rpartition(" - at ")
    if not separator:
        return str(fault)
    return f"{where.strip('`').removeprefix('$.').removeprefix('$') or 'body'}: {message}"


def check_depth(decoded: Any) -> None:
    """Bounds nesting without recursion, for those who walk free-form parts later with it."""
    level: list[Any] = [getattr(decoded, name) for name in decoded.__struct_fields__]
    for _ in range(JSON_DEPTH):
        level = [
            child
            for value in level
            if isinstance(value, dict | list | tuple)
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, dict | list | tuple)
        ]
        if not level:
            return
    raise Malformed(f"the body is nested deeper than {JSON_DEPTH}")
