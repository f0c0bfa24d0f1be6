"""Sending a request on to the node that can answer it, and finding that node.

Any node answers everything: a write goes to the leader, a read of a node without a ledger to one that holds it. The forwarded request is the client's
own, with its token; `Igor-Forwarded: 1` stops loops, and `Igor-Command` gives the id under which the ledger does a write once. Because of that id a
write whose connection broke can be sent again, to the same leader or the next, until it is answered or the time is up.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from igor_node.http.limits import CONNECT_S, PEER_READ_S, PEER_WRITE_S

FORWARDED = "Igor-Forwarded"
COMMAND = "Igor-Command"
LEADER = "Igor-Leader"
NOT_LEADER = "Igor-Not-Leader"
OUTCOME = "Igor-Outcome"
BEHALF = web.RequestKey("BEHALF", dict[str, str])
"""Under this key a request keeps the headers that say for whom it is forwarded (identity.behalf)."""

PASSED_ON = ("Authorization", "Cookie", "Content-Type", "Accept", "Idempotency-Key", "If-Match", "If-None-Match", "Igor-Index", "Last-Event-ID")
PASSED_BACK = ("Content-Type", "ETag", "Cache-Control", "Retry-After", "WWW-Authenticate", "Location", "Content-Disposition", "Set-Cookie")
LOOK_S = 0.1  # how often a write that waits for its answer asks whether the leader is still the leader
ANSWER_LIMIT_BYTES = 256 * 1024 * 1024


class NotReached(Exception):
    """No connection: surely nothing was done."""


class BrokenOff(Exception):
    """The connection broke, or the leader changed, before the answer: perhaps it was done."""


class Forwarder:
    """Owns the connections to other nodes."""

    def __init__(self, asking: Callable[[], ssl.SSLContext | bool] = lambda: True) -> None:
        """`asking`: the context for each connection; another one counts from the next connection on."""
        self._asking = asking
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            connector=aiohttp.TCPConnector(limit=200, limit_per_host=100, keepalive_timeout=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def close(self) -> None:
        await self._session.close()

    async def write(self, base: str, request: web.Request, body: bytes, *, command_id: str, still: Callable[[], bool]) -> web.Response:
        """`still` says whether `base` still leads; one that does not any more is given up. Raises NotReached or BrokenOff."""
        headers = {**passed_on(request), COMMAND: command_id}
        asking = asyncio.ensure_future(self._whole(base, request, body, headers, PEER_WRITE_S))
        try:
            while not asking.done():
                await asyncio.wait({asking}, timeout=LOOK_S)
                if not asking.done() and not still():
                    await asyncio.wait({asking}, timeout=LOOK_S)
                    break
            if asking.done():
                return asking.result()
            raise BrokenOff(f"{base} stopped leading before it answered")
        finally:
            asking.cancel()

    async def read(self, base: str, request: web.Request, body: bytes) -> web.Response:
        return await self._whole(base, request, body, passed_on(request), PEER_READ_S)

    async def stream(self, base: str, request: web.Request) -> web.StreamResponse:
        """Passes an answer on piece by piece, for as long as both sides stay. Raises NotReached before anything was passed on; a stream that breaks
        later is broken off here too, so that its reader sees that it was not the end."""
        response: web.StreamResponse | None = None
        try:
            async with self._session.get(base + request.raw_path, headers=passed_on(request), ssl=self._asking()) as answer:
                response = web.StreamResponse(status=answer.status, headers=passed_back(answer))
                await response.prepare(request)
                async for part in answer.content.iter_any():
                    await response.write(part)
                await response.write_eof()
                return response
        except aiohttp.ClientError as problem:
            if response is None:
                raise NotReached(f"{base}: {problem}") from None
            if request.transport is not None:
                request.transport.abort()
            return response

    async def get_json(self, base: str, path: str, headers: Mapping[str, str], within_s: float) -> tuple[int, bytes]:
        """One small question of this node's own. Raises NotReached, because nothing that is asked this way changes anything."""
        try:
            async with asyncio.timeout(within_s), self._session.get(base + path, headers={FORWARDED: "1", **headers}, ssl=self._asking()) as answer:
                return answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError) as problem:
            raise NotReached(f"{base}: {problem or 'no answer in time'}") from None

    async def post_json(self, base: str, path: str, body: bytes, headers: Mapping[str, str], within_s: float) -> tuple[int, bytes, int]:
        """One small write of this node's own, whose `COMMAND` lets it be sent again; the index at which it was done. Raises NotReached or
        BrokenOff."""
        sent = {FORWARDED: "1", "Content-Type": "application/json", **headers}
        try:
            async with asyncio.timeout(within_s), self._session.post(base + path, data=body, headers=sent, ssl=self._asking()) as answer:
                index = answer.headers.get("Igor-Index", "")
                return answer.status, await answer.read(), int(index) if index.isdigit() else 0
        except aiohttp.ClientConnectorError as problem:
            raise NotReached(f"{base}: {problem}") from None
        except (aiohttp.ClientError, TimeoutError) as problem:
            raise BrokenOff(f"{base}: {problem or 'no answer in time'}") from None

    async def _whole(self, base: str, request: web.Request, body: bytes, headers: Mapping[str, str], within_s: float) -> web.Response:
        try:
            async with (
                asyncio.timeout(within_s),
                self._session.request(
                    request.method, base + request.raw_path, data=body or None, headers=headers, allow_redirects=False, ssl=self._asking()
                ) as answer,
            ):
                return web.Response(body=await answer.read(), status=answer.status, headers=passed_back(answer))
        except aiohttp.ClientConnectorError as problem:
            raise NotReached(f"{base}: {problem}") from None
        except aiohttp.ConnectionTimeoutError:
            raise NotReached(f"{base}: no connection in time") from None
        except aiohttp.ClientError as problem:
            raise BrokenOff(f"{base}: {problem}") from None
        except TimeoutError:
            raise BrokenOff(f"{base}: no answer within {within_s:.0f} s") from None


def passed_on(request: web.Request) -> dict[str, str]:
    return {FORWARDED: "1", **request.get(BEHALF, {}), **{name: request.headers[name] for name in PASSED_ON if name in request.headers}}


def passed_back(answer: aiohttp.ClientResponse) -> CIMultiDict[str]:
    known = frozenset(name.lower() for name in PASSED_BACK)
    return CIMultiDict((name, value) for name, value in answer.headers.items() if name.lower() in known or name.lower().startswith("igor-"))
