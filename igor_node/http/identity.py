"""From a request to whoever sent it: the token in its header, or the session of the page, looked up in the ledger.

Tokens that were found are remembered until the ledger's tokens change, so that a request costs no query. A token that this node's ledger does not
know (yet) is asked for at the leader: it may have been made a moment ago. A node without a ledger asks a peer.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict

import msgspec
from aiohttp import web

from igor_node.http import auth, forward
from igor_node.http.auth import Caller
from igor_node.http.limits import TOKENS_CACHED
from igor_node.http.services import Services
from igor_node.words import Role, Unauthenticated, Unavailable, format_instant

TOKENS = frozenset({"tokens"})
ASKING_AT_ONCE = 5  # strangers with made-up tokens cannot make this node flood the leader
ASK_WITHIN_S = 1.0


class Kept(msgspec.Struct, frozen=True):
    caller: Caller
    hash: str
    expires_at: int | None


class Identities:
    def __init__(self, services: Services, forwarder: forward.Forwarder) -> None:
        self._services = services
        self._forwarder = forwarder
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._asking = 0

    async def watch(self) -> None:
        """Forgets what was remembered whenever a token was made or revoked."""
        changes = self._services.changes
        since = changes.index
        while True:
            since = await changes.wait(TOKENS, since)
            self._kept.clear()

    async def caller(self, request: web.Request) -> Caller:
        """Raises Unauthenticated."""
        if not self._services.auth:
            return auth.ANYONE
        header = request.headers.get("Authorization")
        if header is not None:
            return await self._of_header(request, header)
        cookie = request.cookies.get(auth.COOKIE)
        if cookie is None:
            raise Unauthenticated("this needs a token", hint="send Authorization: Bearer TOKEN; igor finds it in the data directory")
        return await self._of_session(request, cookie)

    async def _of_header(self, request: web.Request, header: str) -> Caller:
        kind, _, text = header.partition(" ")
        if kind.lower() != "bearer":
            raise Unauthenticated(f"{kind[:20]} is not how Igor is told a token", hint="send Authorization: Bearer TOKEN")
        given = auth.parse_token(text.strip())
        kept = await self._find(given.id)
        if kept is None:
            return await self._ask_elsewhere(request)
        if not auth.same(kept.hash, given.hash):
            raise Unauthenticated("the token is not known")
        return self._current(kept)

    async def _of_session(self, request: web.Request, cookie: str) -> Caller:
        kept = await self._find(auth.read_session(self._services.key, cookie, self._services.clock.now()))
        if kept is None:
            return await self._ask_elsewhere(request)
        return self._current(kept)

    def _current(self, kept: Kept) -> Caller:
        if kept.expires_at is not None and kept.expires_at <= self._services.clock.now():
            raise Unauthenticated("the token has expired", hint="igor token create makes another")
        return kept.caller

    async def _find(self, token: str) -> Kept | None:
        if not self._services.holds_ledger():
            return None
        kept = self._kept.get(token)
        if kept is None:
            since = self._services.changes.index
            kept = await self._services.reads.query(lambda connection: find_token(connection, token))
            if kept is not None and self._services.changes.index == since:  # else a revocation may have come in between
                self._kept[token] = kept
                if len(self._kept) > TOKENS_CACHED:
                    self._kept.popitem(last=False)
        return kept

    async def _ask_elsewhere(self, request: web.Request) -> Caller:
        unknown = Unauthenticated("the token is not known", hint="it may be revoked, or of another cluster")
        if forward.FORWARDED in request.headers or self._asking >= ASKING_AT_ONCE:
            raise unknown
        headers = {name: request.headers[name] for name in ("Authorization", "Cookie") if name in request.headers}
        self._asking += 1
        try:
            for address in self._whom_to_ask():
                try:
                    status, body = await self._forwarder.get_json(address, "/v1/whoami", headers, ASK_WITHIN_S)
                except forward.NotReached:
                    continue
                if status == 200:
                    return msgspec.json.decode(body, type=Caller)
                raise unknown
        finally:
            self._asking -= 1
        if self._services.holds_ledger():
            raise unknown
        raise Unavailable("no node that knows tokens could be asked", hint="ask again in a moment, or another node")

    def _whom_to_ask(self) -> list[str]:
        leader = self._services.leader_address()
        addresses = [leader] if leader is not None else []
        if not self._services.holds_ledger():
            addresses += [peer for peer in self._services.peers() if peer != leader]
        return [address for address in addresses if address != self._services.me.address]


FIND_TOKEN = "SELECT hash, role, name, project, node, expires_at FROM tokens WHERE token = ? AND revoked_at IS NULL"


def find_token(connection: sqlite3.Connection, token: str) -> Kept | None:
    row = connection.execute(FIND_TOKEN, (token,)).fetchone()
    if row is None:
        return None
    hashed, role, name, project, node, expires_at = row
    ends = None if expires_at is None else format_instant(expires_at)
    return Kept(Caller(token=token, role=Role(role), name=name, project=project, node=node, expires_at=ends), hashed, expires_at)
