"""From a request to whoever sent it: the token in its header, or the session of the page, looked up in the ledger.

Tokens that were found are remembered until the ledger's tokens change, so that a request costs no query. A token that this node's ledger does not
know (yet) is asked for at the leader: it may have been made a moment ago. A node without a ledger asks a peer, each time.

An id that nobody has costs what a wrong secret costs: one look into memory, one query, one comparison in constant time, one question to the leader.
Failures are counted per address (failures.py); what was once good here is let through to be checked, whatever others at its address do.

In a cluster with TLS the token of a node counts only on a connection whose certificate is that node's, so a token that was copied from a node is of
no use elsewhere. A node that forwards says for whom (`Igor-Client`, `Igor-Peer`); it is believed if it has itself proven to be a node.
"""

from __future__ import annotations

import asyncio
import ipaddress
import sqlite3
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import msgspec
import structlog
from aiohttp import web

from igor_node.http import auth, forward, sessions
from igor_node.http.auth import Caller
from igor_node.http.failures import Failures
from igor_node.http.limits import TOKENS_CACHED
from igor_node.http.services import Services
from igor_node.http.sessions import NotOurs, Session
from igor_node.words import SECOND, Instant, Role, Unauthenticated, Unavailable, format_instant, new_id, parse_instant

TOKENS = frozenset({"tokens"})
ASKING_AT_ONCE = 5  # strangers with made-up tokens cannot make this node flood the leader
ASK_WITHIN_S = 1.0
WHO = "/v1/whoami"  # what nodes ask each other; it is not asked on
NOT_NOW = (502, 503)  # of a node that cannot say
TELL_USES_S = 60.0
USES_LIMIT = 500  # told at once
USED_EVERY_NS = 60 * SECOND  # a token's last use is told to the minute
log = structlog.get_logger("http")

CLIENT, PEER, HOST = "Igor-Client", "Igor-Peer", "Igor-Host"


class Kept(msgspec.Struct, frozen=True):
    caller: Caller
    hash: str
    expires_at: int | None
    revoked: bool


class Known(msgspec.Struct, frozen=True):
    """Who asks, and by which session where it is one."""

    caller: Caller
    session: Session | None = None


class Identities:
    def __init__(self, services: Services, forwarder: forward.Forwarder, failures: Failures) -> None:
        self._services = services
        self._forwarder = forwarder
        self._failures = failures
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._open: OrderedDict[str, bool] = OrderedDict()  # sessions: whether nobody has logged out of them
        self._once_good: OrderedDict[str, str] = OrderedDict()  # token -> hash: not forgotten when tokens change
        self._asking = 0
        self._goal: int | None = None  # where the log here ended when a leader was first heard
        self._caught_up = False
        self._noted: OrderedDict[str, Instant] = OrderedDict()  # token -> when its use was noted last
        self.uses: OrderedDict[str, Instant] = OrderedDict()  # and what of that the leader was not told yet

    async def watch(self) -> None:
        """Forgets what was remembered whenever a token was made or revoked."""
        changes = self._services.changes
        since = changes.index
        while True:
            since = await changes.wait(TOKENS, since)
            self._kept.clear()
            self._open.clear()

    async def known(self, request: web.Request) -> Known:
        """Raises Unauthenticated, or TooMany."""
        if not self._services.auth:
            return Known(auth.ANYONE)
        self.demand(request)
        header = request.headers.get("Authorization")
        if header is not None:
            found = Known(await self._of_header(request, header))
        else:
            found = await self._of_session(request, request.cookies[self._cookie])
        check_certificate(found.caller, request, self._services)
        self._note_use(found.caller)
        return found

    def demand(self, request: web.Request) -> None:
        """That there is a token or a session at all."""
        if self._services.auth and "Authorization" not in request.headers and self._cookie not in request.cookies:
            raise Unauthenticated("this needs a token", hint="send Authorization: Bearer TOKEN; igor finds it in the data directory")

    @property
    def _cookie(self) -> str:
        return sessions.cookie_name(self._services.me.cluster, tls=self._services.tls)

    def failed(self, request: web.Request, problem: Unauthenticated) -> Unauthenticated:
        """Counts it. Raises TooMany where this address has failed too often."""
        address = client_address(request, self._services)
        self._failures.check(address)
        self._failures.count(address)
        log.info("a log-in failed", address=address, path=request.path[:200], reason=problem.message, token=_id_given(request))
        return problem

    # --- tokens

    async def _of_header(self, request: web.Request, header: str) -> Caller:
        kind, _, text = header.partition(" ")
        if kind.lower() != "bearer":
            raise self.failed(request, Unauthenticated(f"{kind[:20]} is not how Igor is told a token", hint="send Authorization: Bearer TOKEN"))
        try:
            given = auth.parse_token(text.strip())
        except Unauthenticated as problem:
            raise self.failed(request, problem) from None
        kept = self._kept.get(given.id)
        if not _fits(kept, given):
            if not auth.same(self._once_good.get(given.id, auth.NOBODY), given.hash):
                self._failures.check(client_address(request, self._services))
            current = self._is_current()
            kept = await self._look_up(given.id)
            if not _fits(kept, given):
                return await self._ask_elsewhere(request, current=current)
        assert kept is not None
        self._once_good[given.id] = given.hash
        _shorten(self._once_good)
        return self._current(kept)

    def _current(self, kept: Kept) -> Caller:
        """Only whoever has the secret is told so much."""
        if kept.revoked:
            raise Unauthenticated("the token was revoked", hint="igor token create makes another")
        if kept.expires_at is not None and kept.expires_at <= self._services.clock.now():
            raise Unauthenticated("the token has expired", hint="igor token create makes another")
        return kept.caller

    async def _look_up(self, token: str) -> Kept | None:
        """From the ledger, whatever is remembered."""
        if not self._services.holds_ledger():
            return None
        since = self._services.changes.index
        kept = await self._services.reads.query(lambda connection: find_token(connection, token))
        if kept is not None and self._services.changes.index == since:  # else a revocation may have come in between
            self._kept[token] = kept
            _shorten(self._kept)
        return kept

    def _note_use(self, caller: Caller) -> None:
        """To the minute; nodes use theirs all the time."""
        now = self._services.clock.now()
        if caller.token and caller.node is None and now - self._noted.get(caller.token, 0) >= USED_EVERY_NS:
            self._noted[caller.token] = self.uses[caller.token] = now
            _shorten(self._noted)
            _shorten(self.uses)

    async def tell_uses(self) -> None:
        """Tells the leader when tokens were last used here. What it could not be told waits."""
        while True:
            await asyncio.sleep(TELL_USES_S)
            leader, told = self._services.leader_address(), dict(list(self.uses.items())[:USES_LIMIT])
            if not told or leader is None:
                continue
            headers = {"Authorization": f"Bearer {self._services.node_token()}", forward.COMMAND: new_id(self._services.clock.now())}
            try:
                status, _, _ = await self._forwarder.post_json(leader, "/v1/tokens/uses", msgspec.json.encode({"uses": told}), headers, ASK_WITHIN_S)
            except (forward.NotReached, forward.BrokenOff):
                continue
            if status == 200:
                self.uses = OrderedDict((token, at) for token, at in self.uses.items() if at != told.get(token))

    # --- sessions

    async def _of_session(self, request: web.Request, cookie: str) -> Known:
        current = self._is_current()
        if not self._services.holds_ledger():
            return Known(await self._ask_elsewhere(request, current=current))
        try:
            session = sessions.read_session(self._services.key, cookie, self._services.clock.now())
        except NotOurs as problem:
            raise self.failed(request, problem) from None
        kept = self._kept.get(session.token) or await self._look_up(session.token)
        if kept is None:
            return Known(await self._ask_elsewhere(request, current=current))
        if not await self._is_open(session):
            raise Unauthenticated("the session was logged out of", hint=sessions.AGAIN)
        return Known(self._current(kept), session)

    async def _is_open(self, session: Session) -> bool:
        known = self._open.get(session.id)
        if known is None:
            since = self._services.changes.index
            known = not await self._services.reads.query(lambda connection: session_ended(connection, session.id))
            if self._services.changes.index == since:
                self._open[session.id] = known
                _shorten(self._open)
        return known

    # --- what was good and is no more

    async def ended(self, among: Iterable[Known], *, looked_up: bool) -> list[Known]:
        """Those whose token or session has ended; `looked_up`: also by the ledger, whose tokens have changed."""
        now = self._services.clock.now()
        ended: list[Known] = []
        asked: list[Known] = []
        for known in among:
            expires_at = known.caller.expires_at
            over = (known.session is not None and known.session.expires_at <= now) or (expires_at is not None and parse_instant(expires_at) <= now)
            (ended if over else asked).append(known)
        if not looked_up or not asked or not self._services.holds_ledger():
            return ended

        def gone(connection: sqlite3.Connection) -> list[Known]:
            found = []
            for known in asked:
                kept = find_token(connection, known.caller.token)
                if (kept is not None and kept.revoked) or (known.session is not None and session_ended(connection, known.session.id)):
                    found.append(known)
            return found

        return ended + await self._services.reads.query(gone)

    # --- other nodes

    async def _ask_elsewhere(self, request: web.Request, *, current: bool) -> Caller:
        """`current`: whether the ledger here was, before it was looked into."""
        unknown = Unauthenticated("the token is not known", hint="it may be of another cluster")
        is_such_a_question = forward.FORWARDED in request.headers and request.path == WHO
        if is_such_a_question and not self._services.holds_ledger():
            raise Unavailable("this node knows no tokens", hint="ask another node")  # nor whether this is a failure
        if is_such_a_question or self._asking >= ASKING_AT_ONCE:
            raise self._unknown(request, unknown, current=current)
        self._failures.check_node()
        self._asking += 1
        try:
            for address in self._whom_to_ask():
                try:
                    status, body = await self._forwarder.get_json(address, WHO, self._on_behalf(request), ASK_WITHIN_S)
                except forward.NotReached:
                    continue
                if status == 200:
                    return msgspec.json.decode(body, type=Caller)
                if status not in NOT_NOW:
                    raise self._unknown(request, unknown, current=current)
        finally:
            self._asking -= 1
        if self._services.holds_ledger():
            raise self._unknown(request, unknown, current=current)
        raise Unavailable("no node that knows tokens could be asked", hint="ask again in a moment, or another node")

    def _unknown(self, request: web.Request, problem: Unauthenticated, *, current: bool) -> Unauthenticated | Unavailable:
        """A failure, unless the ledger here was still behind its own log, as after a power cut: whoever made the token was told that it is there."""
        if self._services.holds_ledger() and not current:
            return Unavailable("the ledger of this node is not up to date yet", hint="ask again in a moment, or another node")
        return self.failed(request, problem)

    def _is_current(self) -> bool:
        """Whether the ledger here was, since this process began, where the log ended when it first heard a leader, or led."""
        if not self._caught_up:
            status = self._services.replica.status()
            if self._goal is None and status.quorum:
                self._goal = status.last_index
            self._caught_up = self._goal is not None and status.applied_index >= self._goal
        return self._caught_up

    def _on_behalf(self, request: web.Request) -> dict[str, str]:
        headers = {name: request.headers[name] for name in ("Authorization", "Cookie") if name in request.headers}
        return {**headers, **behalf(request, self._services)}

    def _whom_to_ask(self) -> list[str]:
        leader = self._services.leader_address()
        addresses = [leader] if leader is not None else []
        if not self._services.holds_ledger():
            addresses += [peer for peer in self._services.peers() if peer != leader]
        return [address for address in addresses if address != self._services.me.address]


def _id_given(request: web.Request) -> str:
    """The id in the token, which is no secret; empty where there is none."""
    found = auth.TOKEN.fullmatch(request.headers.get("Authorization", "").partition(" ")[2].strip())
    return found[2] if found is not None else ""


def _fits(kept: Kept | None, given: auth.GivenToken) -> bool:
    """The same work whether there is such a token or not."""
    return auth.same(kept.hash if kept is not None else auth.NOBODY, given.hash) and kept is not None


def _shorten(kept: OrderedDict[str, Any]) -> None:
    if len(kept) > TOKENS_CACHED:
        kept.popitem(last=False)


# --- who is at the other end of the connection


def behalf(request: web.Request, services: Services) -> dict[str, str]:
    """What a node that forwards says of the one it forwards for."""
    # The peer is said also where there is none: else this node's own certificate would vouch for whoever asked it.
    return {CLIENT: client_address(request, services), HOST: asked_host(request), PEER: proven_node(request, services) or ""}


def asked_host(request: web.Request) -> str:
    """The Host header of the client's own request. It decides nothing but where a browser is sent."""
    forwarded = request.headers.get(HOST) if forward.FORWARDED in request.headers else None
    return (forwarded or request.headers.get("Host") or "")[:300]


def client_address(request: web.Request, services: Services) -> str:
    """The client's, whoever forwarded it; a forwarder is believed only if it is a node (without TLS: if it is on this machine)."""
    given = request.headers.get(CLIENT)
    if given is not None and len(given) <= 100 and _is_forwarder(request, services):
        return given
    return request.remote or ""


def proven_node(request: web.Request, services: Services) -> str | None:
    """The node whose certificate the connection has, or the one that a node that forwards speaks for."""
    if not services.tls:
        return None
    if PEER in request.headers and _is_forwarder(request, services):
        return request.headers[PEER] or None
    return certified(request, services)


def certified(request: web.Request, services: Services) -> str | None:
    """The node in the certificate of the connection, which has been checked against the cluster's CA. None: there was none, or it was taken out."""
    certificate: Any = request.transport.get_extra_info("peercert") if request.transport is not None else None
    if not certificate:
        return None
    names = {name: value for part in certificate.get("subject", ()) for name, value in part}
    node = names.get("commonName")
    return node if node is not None and names.get("organizationName") == services.me.cluster and services.permitted(node) else None


def _is_forwarder(request: web.Request, services: Services) -> bool:
    if forward.FORWARDED not in request.headers:
        return False
    if services.tls:
        return certified(request, services) is not None
    try:
        return ipaddress.ip_address(request.remote or "").is_loopback
    except ValueError:
        return False


def check_certificate(caller: Caller, request: web.Request, services: Services) -> None:
    """The token of a node is good with its certificate alone. Raises Unauthenticated."""
    if services.tls and caller.role is Role.NODE and caller.node is not None and proven_node(request, services) != caller.node:
        raise Unauthenticated("the token of a node is good only on a connection with that node's certificate")


FIND_TOKEN = "SELECT hash, role, name, projects, node, expires_at, revoked_at, subject FROM tokens WHERE token = ?"


def find_token(connection: sqlite3.Connection, token: str) -> Kept | None:
    row = connection.execute(FIND_TOKEN, (token,)).fetchone()
    if row is None:
        return None
    hashed, role, name, projects, node, expires_at, revoked_at, subject = row
    ends = None if expires_at is None else format_instant(expires_at)
    bound = tuple(msgspec.json.decode(projects))
    caller = Caller(token=token, role=Role(role), name=name, projects=bound, node=node, expires_at=ends, login=subject is not None)
    return Kept(caller, hashed, expires_at, revoked_at is not None)


def session_ended(connection: sqlite3.Connection, session: str) -> bool:
    return connection.execute("SELECT 1 FROM ended_sessions WHERE session = ?", (session,)).fetchone() is not None
