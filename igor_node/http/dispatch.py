"""What happens to every request, in one order: host and origin, who asks, whether they may, which node answers, decode, call, encode.

`Front` holds what requests share (services, links, the way to other nodes); `Call` is one request while it is being answered and all that a handler
sees. A handler may run twice for one request when a leader changes under it, so it does one `propose`, whose id stays the same: the ledger answers
the second with the first's result.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from igor_node import words
from igor_node.http import auth, forward, limits, origins, permissions, problems, quorum, routes, sessions
from igor_node.http.events import Hub
from igor_node.http.failures import Failures
from igor_node.http.identity import Identities, Known, behalf, client_address
from igor_node.http.oidc import Provider
from igor_node.http.routes import Reply, Route, Where
from igor_node.http.services import LiveView, NodeView, Services
from igor_node.ledger import commands
from igor_node.words import Instant, Invalid, Malformed, OutcomeUnknown, TooMany, Unauthenticated, Unavailable
from raft.interface import ENTRY_LIMIT_BYTES, NotLeader, Unknown

T = TypeVar("T")
RETRY_S = 0.05  # between two looks for a leader
KEY_AGE = 23 * 3600 * words.SECOND  # the ledger refuses ids older than 24 h; an hour is left for clocks that differ
VIEWS_WITHIN_S = 0.5
TOKENS = frozenset({"tokens"})
STREAMS_LOOKED_AT_S = 0.5  # for tokens that end by themselves; a revoked one wakes at once
VIEWS_KEPT_NS = 2 * words.SECOND


class Front:
    """What all requests of this node share."""

    def __init__(self, services: Services, table: Sequence[Route]) -> None:
        self.services = services
        self.routes = tuple(table)
        self.links = sessions.Links()
        self.forwarder = forward.Forwarder(services.asking)
        self.heard = quorum.Heard(services.replica, services.clock)
        self.failures = Failures(services.clock.monotonic_ns)
        self.identities = Identities(services, self.forwarder, self.failures)
        self.hub = Hub(services)
        self.provider = Provider(services.oidc, services.keys, services.clock) if services.oidc is not None else None
        self.backing_up = False
        self._streams: dict[asyncio.Task[Any], Call] = {}
        self._in_flight = 0
        self._views: tuple[NodeView, ...] = ()
        self._views_at = 0

    @contextlib.contextmanager
    def answering(self, call: Call) -> Iterator[None]:
        """Counts a request while it is answered. Streams may be many and long, and end with their token or the node; others are bounded."""
        if call.route.stream is not None:
            task = asyncio.current_task()
            assert task is not None
            self._streams[task] = call
            try:
                yield
            finally:
                del self._streams[task]
            return
        if self._in_flight >= limits.IN_FLIGHT and not call.route.any_host:
            raise TooMany(f"{limits.IN_FLIGHT} requests are being answered", hint="ask again in a moment, or another node")
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    def end_streams(self) -> None:
        """The node stops: whoever follows something goes on at another node."""
        for task in self._streams:
            task.cancel()

    async def watch_streams(self) -> None:
        """Ends what is still being sent to somebody whose token was revoked or has expired, or whose session is over."""
        since = self.services.changes.index
        while True:
            changed = await self.services.changes.wait(TOKENS, since, STREAMS_LOOKED_AT_S)
            followed = {task: call.known for task, call in self._streams.items() if call.known is not None}
            ended = await self.identities.ended(followed.values(), looked_up=changed > since)
            since = max(since, changed)
            for task, known in followed.items():
                if known in ended:
                    task.cancel()

    async def live_views(self) -> tuple[NodeView, ...]:
        """What the leader knows of the nodes; asked for at most every two seconds, empty where it cannot be had at once."""
        if self.services.replica.is_leader():
            return tuple(self.services.views())
        now = self.services.clock.monotonic_ns()
        if now - self._views_at < VIEWS_KEPT_NS and self._views_at:
            return self._views
        self._views_at = now
        self._views = await self._ask_views()
        return self._views

    async def _ask_views(self) -> tuple[NodeView, ...]:
        leader = self.services.leader_address()
        if leader is None or leader == self.services.me.address:
            return ()
        try:
            status, body = await self.forwarder.get_json(leader, "/v1/nodes/live", self.own_token(), VIEWS_WITHIN_S)
        except forward.NotReached:
            return ()
        return msgspec.json.decode(body, type=tuple[LiveView, ...]) if status == 200 else ()

    def own_token(self) -> dict[str, str]:
        """The headers with which this node asks another one."""
        return {"Authorization": f"Bearer {self.services.node_token()}"}


@dataclass
class Call:
    """One request while it is being answered."""

    front: Front
    request: web.Request
    route: Route
    caller: auth.Caller = auth.ANYONE
    known: Known | None = None  # by what the caller was known
    query: Any = None
    body: Any = None
    command_id: str = ""
    index: int | None = None
    age_s: float | None = None
    deadline: float = 0.0
    busy: str = ""  # what the leader here said when it took no more
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def services(self) -> Services:
        return self.front.services

    @property
    def forwarded(self) -> bool:
        return forward.FORWARDED in self.request.headers

    @property
    def address(self) -> str:
        """The client's, also behind a node that forwarded."""
        return client_address(self.request, self.services)

    @property
    def projects(self) -> tuple[str, ...]:
        """What the answer may be about; none for all. Whoever reads the ledger for a person hands this on."""
        return self.caller.projects

    def now(self) -> Instant:
        return self.services.clock.now()

    def part(self, name: str) -> str:
        """A piece of the path, decoded."""
        text = self.request.match_info[name].replace("%2F", "/").replace("%2f", "/")
        if not text or "\0" in text or len(text) > 512:
            raise Malformed(f"{name} in the path is not a name")
        return text

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Reads the ledger as of one index, which the answer tells in `Igor-Index`."""
        index, found = await self.services.reads.indexed(function)
        if self.route.where is not Where.WRITE:
            self.index = index if self.index is None else min(self.index, index)  # two reads are as new as the older one
        return found

    async def propose(self, command: commands.AnyCommand, *, command_id: str = "") -> Any:
        """The value of what was done, under this request's id unless it is one of several. A refusal raises its error of `words`."""
        origin = commands.Origin(token=self.caller.token, address=client_address(self.request, self.services))
        envelope = commands.Envelope(id=command_id or self.command_id, at=self.now(), actor=self.caller.actor, origin=origin, command=command)
        entry = self.services.entry(envelope)
        if len(entry) > ENTRY_LIMIT_BYTES:
            raise words.TooLarge(
                f"this makes an entry of {len(entry)} bytes in the ledger, at most {ENTRY_LIMIT_BYTES} are possible",
                hint="split the project, or send fewer sources",
            )
        left = max(0.1, self.deadline - asyncio.get_running_loop().time())
        done = await self.services.replica.propose(entry, left)
        self.index = done.index
        if isinstance(done.result, commands.Refused):
            raise refusal(done.result)
        return done.result.value


def refusal(refused: commands.Refused) -> words.IgorError:
    kind = words.ERROR_BY_NAME.get(refused.error, words.Conflict)
    if kind is Invalid:
        return Invalid(refused.message, hint=refused.hint)
    return kind(refused.message, hint=refused.hint)


def endpoint(front: Front, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The aiohttp handler of one route."""

    async def answer(request: web.Request) -> web.StreamResponse:
        call = Call(front, request, route)
        routes.check_headers(request)
        if not route.any_host:
            check_host(front.services, request)
        if other := check_origin(front.services, request):
            call.headers |= cross_origin(request.headers["Origin"])
        if has_session(front.services, request) and not call.forwarded:
            origins.check_page(request.method, request.headers, known_origin=other)
        request[forward.BEHALF] = behalf(request, front.services)
        with front.answering(call):
            try:
                return await answer_call(call)
            except Unauthenticated as problem:
                if route.closed is None:
                    raise
                return route.closed(call, problem)

    return answer


def check_host(services: Services, request: web.Request) -> None:
    origins.check_host(request.headers.get("Host"), services.hosts | {origins.host_of(services.me.address)})


def check_origin(services: Services, request: web.Request) -> bool:
    """Whether the page of another node asks. Raises Denied for a stranger's."""
    here = f"{'https' if services.tls else 'http'}://{request.headers.get('Host')}"
    outside = {services.oidc.redirect} if services.oidc is not None and services.oidc.redirect else set()
    if request.headers.get("Origin") in outside:  # our own page, behind a proxy
        return False
    return origins.check_origin(request.headers.get("Origin"), here, {services.me.address, *services.peers()})


def has_session(services: Services, request: web.Request) -> bool:
    """A token goes before a session, so a request with both has none."""
    return "Authorization" not in request.headers and sessions.cookie_name(services.me.cluster, tls=services.tls) in request.cookies


async def answer_call(call: Call) -> web.StreamResponse:
    if call.route.where is not Where.HERE and not call.services.holds_ledger():
        return await ask_a_peer(call)
    await identify(call)
    match call.route.where:
        case Where.WRITE:
            return await answer_write(call)
        case Where.READ:
            return await answer_read(call)
        case Where.HERE | Where.KEYED:
            return await answer_here(call)


def cross_origin(origin: str) -> dict[str, str]:
    """Lets a page that another node of this cluster served go on here when that node is down."""
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "Igor-Index, Igor-Age, ETag, Retry-After",
        "Vary": "Origin",
    }


async def identify(call: Call) -> None:
    """Who asks, and whether they may. A token may be younger than this node's ledger: the `Igor-Index` of its making is waited for before it is
    called unknown."""
    if call.route.own_token and not call.services.own_token(call.part("attempt"), given_token(call.request)):
        raise call.front.identities.failed(call.request, Unauthenticated("the attempt or its token is not known here"))
    if call.route.role is None:
        return
    try:
        call.known = await call.front.identities.known(call.request)
    except Unauthenticated:
        wanted = asked_index(call)
        if wanted <= call.services.changes.index or not await wait_for_index(call, wanted):
            raise
        call.known = await call.front.identities.known(call.request)
    call.caller = call.known.caller
    permissions.check(call.route, call.caller, call.request.match_info.get("project"))


def given_token(request: web.Request) -> str:
    """What stands in the header, for routes that check it themselves."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise Unauthenticated("this needs the attempt's own token", hint="send Authorization: Bearer TOKEN")
    return token.strip()


# --- the three places where a request is answered


async def answer_here(call: Call) -> web.StreamResponse:
    try:
        body = await routes.read_body(call.request, call.route.body_limit) if call.route.body else b""
        await decode(call, body, call.request.query.items())
    except (Malformed, words.TooLarge):
        if call.route.role is None and not (call.route.own_token or call.route.any_host):
            await call.front.identities.known(call.request)  # somebody unknown is told nothing but 401
        raise
    return await handle(call)


async def answer_read(call: Call) -> web.StreamResponse:
    pairs = list(call.request.query.items())
    consistent = routes.parse_parameter("consistent", dict(pairs).get("consistent", "0"), bool)
    body = await routes.read_body(call.request, call.route.body_limit) if call.route.body else b""
    wanted = 0
    if consistent:
        if not call.services.replica.is_leader():
            return await ask_the_leader(call, body)
        wanted = await barrier(call)
    wanted = max(wanted, asked_index(call))
    if not await wait_for_index(call, wanted):
        raise Unavailable(f"this node has applied {call.services.changes.index}, not yet {wanted}", hint="ask again, or another node")
    call.age_s = call.front.heard.age_s()
    return await run(call, body, [pair for pair in pairs if pair[0] != "consistent"])


async def barrier(call: Call) -> int:
    try:
        return await call.services.replica.read_barrier(limits.BARRIER_WITHIN_S)
    except Unknown as problem:
        raise Unavailable(f"a read as of now is not possible: {problem}", hint="without consistent=1 this node answers from what it has") from None


async def answer_write(call: Call) -> web.StreamResponse:
    """On the leader; elsewhere sent on to it. Tries until it is done, refused, or the time is up: the command's id makes that safe."""
    body = await routes.read_body(call.request, call.route.body_limit)
    call.command_id = command_id(call)
    loop = asyncio.get_running_loop()
    patience = limits.WRITE_WITHIN_S if call.front.heard.age_s() < limits.WRITE_WITHIN_S else limits.NO_QUORUM_WITHIN_S
    call.deadline = loop.time() + patience
    perhaps = False
    while True:
        try:
            done = await write_once(call, body)
            if done is not None:
                return done
        except (Unknown, forward.BrokenOff):
            perhaps = True
            if call.forwarded:
                raise
        if call.forwarded:
            raise problems.NotTheLeader(quorum.why_none(call.services.replica))
        if loop.time() > call.deadline:
            break
        await asyncio.sleep(RETRY_S)
    reason = call.busy or quorum.why_none(call.services.replica)
    if perhaps:
        raise OutcomeUnknown(f"it may or may not have been done: {reason}", hint="ask again with the same Idempotency-Key or If-Match")
    raise Unavailable(reason, hint="reads are still answered; writes are when most voters are back")


async def write_once(call: Call, body: bytes) -> web.StreamResponse | None:
    """None: surely not done, ask again. Raises Unknown or BrokenOff: perhaps done."""
    services = call.services
    if services.replica.is_leader():
        try:
            return await run(call, body, call.request.query.items())
        except NotLeader as problem:
            call.busy = str(problem) if services.replica.is_leader() else ""
            return None
    leader = services.leader_address()
    if call.forwarded or leader is None or leader == services.me.address:
        return None
    try:
        answer = await call.front.forwarder.write(
            leader, call.request, body, command_id=call.command_id, still=lambda: services.leader_address() == leader
        )
    except forward.NotReached:
        return None
    if forward.NOT_LEADER in answer.headers:
        return None
    if answer.headers.get(forward.OUTCOME) == "unknown":
        raise Unknown(f"{leader} does not know")
    return answer


def command_id(call: Call) -> str:
    """The id under which the ledger does this once: from a key that tells its own time, from the node that forwarded, or a new one."""
    key = call.request.headers.get("Idempotency-Key", "")
    if call.route.keyed and (prefix := _timed(key, call.now())):
        return derived_id(prefix, f"{key}\0{call.caller.token}\0{call.request.method}\0{call.request.path}")
    sent = call.request.headers.get(forward.COMMAND, "") if call.forwarded else ""
    return sent if _timed(sent, call.now()) else words.new_id(call.now())


def part_id(command: str, number: int) -> str:
    """The id of one of several commands that a request takes; of the same time, so that it is refused when the request's own would be."""
    return derived_id(command[:10], f"{command}\0{number}")


def derived_id(time: str, scope: str) -> str:
    chance = int.from_bytes(hashlib.sha256(scope.encode()).digest()[:8], "big")
    return time + "".join("0123456789abcdefghijklmnopqrstuv"[chance >> shift & 31] for shift in range(0, 50, 5))


def _timed(identifier: str, now: int) -> str | None:
    """The part of an id that tells its time, where the ledger would still take it."""
    try:
        return identifier[:10] if abs(now - words.id_time(identifier)) < KEY_AGE else None
    except ValueError:
        return None


# --- running the handler


async def run(call: Call, body: bytes, pairs: Any) -> web.StreamResponse:
    await decode(call, body, pairs)
    return await handle(call)


async def decode(call: Call, body: bytes, pairs: Any) -> None:
    call.query = routes.decode_query(call.route.query, list(pairs))
    if call.route.body is not None:
        kind = call.route.body
        big = len(body) > 256 * 1024  # decoding this takes longer than a heartbeat may wait
        call.body = await asyncio.to_thread(routes.decode_body, kind, body) if big else routes.decode_body(kind, body)


async def handle(call: Call) -> web.StreamResponse:
    """Call, encode."""
    result = await call.route.handler(call)
    if isinstance(result, web.StreamResponse):
        if not result.prepared:
            for name, value in igor_headers(call).items():
                result.headers.setdefault(name, value)
        return result
    reply = result if isinstance(result, Reply) else Reply(result)
    headers = {**igor_headers(call), **(reply.headers or {})}
    return web.Response(body=msgspec.json.encode(reply.value), status=reply.status, headers=headers, content_type="application/json")


def igor_headers(call: Call) -> dict[str, str]:
    headers = {"Cache-Control": "no-store", **call.headers}
    if call.index is not None:
        headers["Igor-Index"] = str(call.index)
    if call.age_s is not None:
        headers["Igor-Age"] = f"{call.age_s:.1f}" if call.age_s else "0"
    return headers


# --- how new a read must be


def asked_index(call: Call) -> int:
    text = call.request.headers.get("Igor-Index", "")
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Malformed(f'header Igor-Index is "{text[:40]}"', hint="expected the whole number that an earlier answer gave")
    return int(text)


async def wait_for_index(call: Call, wanted: int) -> bool:
    """Whether this node's ledger is as new as `wanted`, at once or soon. False where nothing was asked for too."""
    changes = call.services.changes
    if wanted <= changes.index:
        return wanted > 0 or call.route.where is Where.READ
    return await changes.reached(wanted, limits.INDEX_WITHIN_S)


# --- nodes that cannot answer by themselves


async def ask_the_leader(call: Call, body: bytes) -> web.StreamResponse:
    leader = call.services.leader_address()
    if call.forwarded or leader is None or leader == call.services.me.address:
        raise Unavailable(quorum.why_none(call.services.replica), hint="without consistent=1 this node answers from what it has")
    return await ask(call, [leader], body)


async def ask_a_peer(call: Call) -> web.StreamResponse:
    """A node without a ledger checks no token: the one that is asked does. It takes no body of somebody unknown, though."""
    if call.forwarded:
        raise problems.NotTheLeader("this node holds no ledger")
    if call.route.role is not None:
        call.front.identities.demand(call.request)
        if call.route.body is not None:
            await identify(call)
    body = await routes.read_body(call.request, call.route.body_limit)
    if call.route.where is Where.WRITE:
        call.command_id = command_id(call)
        return await answer_write_elsewhere(call, body)
    return await ask(call, call.services.peers(), body)


async def answer_write_elsewhere(call: Call, body: bytes) -> web.StreamResponse:
    loop = asyncio.get_running_loop()
    end = loop.time() + limits.WRITE_WITHIN_S
    perhaps = False
    while loop.time() < end:
        try:
            done = await write_once(call, body)
            if done is not None:
                return done
        except (Unknown, forward.BrokenOff):
            perhaps = True
        await asyncio.sleep(RETRY_S)
    if perhaps:
        raise OutcomeUnknown("it may or may not have been done: no leader answered", hint="ask again with the same Idempotency-Key or If-Match")
    raise Unavailable("no leader is known to this node", hint="ask again, or another node")


async def ask(call: Call, addresses: Any, body: bytes) -> web.StreamResponse:
    """The first answer. A read that broke off can be asked again elsewhere, unless its answer has begun."""
    failures: list[str] = []
    for address in addresses:
        if address == call.services.me.address:
            continue
        try:
            if call.route.stream is not None:
                return await call.front.forwarder.stream(address, call.request)
            return await call.front.forwarder.read(address, call.request, body)
        except (forward.NotReached, forward.BrokenOff) as problem:
            failures.append(str(problem))
    raise Unavailable(
        "no node that holds the ledger could be asked" + (f" ({'; '.join(failures)})" if failures else ""), hint="ask again in a moment"
    )
