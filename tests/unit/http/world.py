"""Nodes that serve the API on real ports, above a real ledger and replicas without consensus (tests/harness/direct.py).

`async with World(tmp_path, "n1", "n2") as world:` gives them; the first one leads. `world.ask(...)` sends a request to a node as a client would, with
the token of a role. What the agent and the leader do is played by small objects that remember what they were asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import yarl

from igor_node.edges import SystemClock
from igor_node.http.app import make_app
from igor_node.http.auth import compose_token, derive_secret, hash_secret
from igor_node.http.listener import Listener, address_of, open_port
from igor_node.http.services import LiveView, Me, Services
from igor_node.http.sessions import cookie_name
from igor_node.ledger import commands
from igor_node.oidc_settings import OidcSettings
from igor_node.output import LogLine, LogPiece
from igor_node.trust.keys import KeyRing, Keys
from igor_node.words import Instant, NotFound, Role
from tests.harness.direct import DirectCluster, DirectReplica

MAGIC = b"\x00igor\x00r1"
KEY = b"the cluster's key, 32 bytes long"
TOKENS = {role: compose_token(f"t-{role}", f"secret-of-{role}") for role in Role}
"""That of role `node` is a join token; `node_token` is that of a node."""


def node_token(name: str) -> str:
    """The one that joining gives it."""
    return compose_token(f"n-{name}", node_secret(name))


def node_secret(name: str) -> str:
    return derive_secret(KEY, f"node {name}")


class MovableClock(SystemClock):
    """The machine's clock, and how far a test has moved it."""

    ahead_ns = 0

    def now(self) -> Instant:
        return Instant(super().now() + self.ahead_ns)

    def monotonic_ns(self) -> int:
        return super().monotonic_ns() + self.ahead_ns


@dataclass
class Output:
    """What the commands of one machine wrote: (attempt, try) -> lines."""

    lines: dict[tuple[str, int], list[str]] = field(default_factory=dict)

    async def read(self, attempt: str, try_n: int, offset: int, limit: int) -> LogPiece:
        """Offsets count lines here: whoever reads must not care."""
        if (attempt, try_n) not in self.lines:
            raise NotFound(f"no output of {attempt}, try {try_n}")
        wanted = self.lines[attempt, try_n][offset : offset + limit]
        found = tuple(
            LogLine(offset=offset + n, at=1_700_000_000 * 10**9 + n, stream="stdout", text=text.removesuffix("…"), partial=text.endswith("…"))
            for n, text in enumerate(wanted)
        )
        return LogPiece(lines=found, next=offset + len(found), more=offset + len(found) < len(self.lines[attempt, try_n]))


@dataclass
class Echo:
    """A leader's end of the nodes' streams that sends back what it gets."""

    nodes: list[str] = field(default_factory=list)

    async def serve(self, node_id: str, receive: AsyncIterator[bytes], send: Callable[[bytes], Awaitable[None]]) -> None:
        self.nodes.append(node_id)
        async for frame in receive:
            if frame == b"bye":
                return
            await send(frame)


@dataclass
class Node:
    name: str
    url: str
    replica: DirectReplica
    output: Output
    streams: Echo
    services: Services
    renewals: list[tuple[str, str]]
    holds_ledger: bool = True


@dataclass
class Answer:
    status: int
    headers: Any
    value: Any


class World:
    def __init__(
        self,
        folder: Path,
        *names: str,
        auth: bool = True,
        workers: Sequence[str] = (),
        cluster: str = "test-cluster",
        oidc: OidcSettings | None = None,
    ) -> None:
        self._oidc = oidc
        self.folder = folder
        self.cluster = DirectCluster(folder, cluster)
        self.nodes: dict[str, Node] = {}
        self._names = names
        self._auth = auth
        self.clock = MovableClock()
        self.heard_s: dict[str, float] = {}
        self._workers = workers
        self._stack = contextlib.AsyncExitStack()
        self._listeners: dict[str, contextlib.AsyncExitStack] = {}
        self.session: aiohttp.ClientSession

    async def __aenter__(self) -> World:
        for role in Role:
            self.cluster.do(commands.CreateToken(token=f"t-{role}", hash=hash_secret(f"secret-of-{role}"), role=role, name=f"the {role}"))
        for name in self._names:
            await self._start(name)
        self.session = await self._stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.aclose()
        self.cluster.close()

    async def _start(self, name: str) -> None:
        sock = open_port("127.0.0.1", 0)
        address = address_of(sock)
        replica = self.cluster.add(name, address, voter=name not in self._workers, token_hash=hash_secret(node_secret(name)))
        url = f"http://{address}"
        node: Node

        def renew(attempt: str, token: str) -> bool:
            node.renewals.append((attempt, token))
            return token == "good"

        services = Services(
            me=Me(id=name, name=name, address=url, cluster=self.cluster.cluster, version="1.2.3"),
            clock=self.clock,
            keys=Keys(KeyRing(1, {1: KEY})),
            make_key=self._make_key,
            node_token=lambda: node_token(name),
            replica=replica,
            reads=self.cluster.reads,
            changes=self.cluster.changes,
            holds_ledger=lambda: node.holds_ledger,
            peers=lambda: [other.url for other in self.nodes.values() if other.name != name and other.holds_ledger],
            leader_address=lambda: self.nodes[leader].url if (leader := replica.leader()) in self.nodes else None,
            streams=(streams := Echo()),
            renew=renew,
            views=lambda: [self._view(one) for one in self.nodes] if replica.is_leader() else [],
            logs=(output := Output()),
            own_token=lambda attempt, token: token == "good",
            auth=self._auth,
            oidc=self._oidc,
        )
        node = self.nodes[name] = Node(name, url, replica, output, streams, services, [], holds_ledger=name not in self._workers)
        listener = self._listeners[name] = contextlib.AsyncExitStack()
        await listener.enter_async_context(Listener(sock, make_app(services), MAGIC, lambda sock: sock.close()))
        self._stack.push_async_callback(listener.aclose)

    async def stop(self, name: str) -> None:
        """As SIGTERM does."""
        await self._listeners[name].aclose()

    @property
    def cookie(self) -> str:
        """The name of the session's."""
        return cookie_name(self.cluster.cluster, tls=False)

    @property
    def leader(self) -> Node:
        assert self.cluster.leader is not None
        return self.nodes[self.cluster.leader]

    @property
    def follower(self) -> Node:
        return next(node for node in self.nodes.values() if node.name != self.cluster.leader)

    async def _make_key(self) -> commands.KeyMade:
        return commands.KeyMade(generation=2, mark=b"the next")

    def _view(self, node: str) -> LiveView:
        return LiveView(node=node, heard_s=self.heard_s.get(node, 0.5), clock_error_s=0.001)

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        node: Node | None = None,
        role: Role | None = Role.ADMIN,
        data: bytes | None = None,
        **headers: str,
    ) -> Answer:
        """Headers are given with underscores: `If_Match='"1"'`. The role `node` is that of the node that is asked."""
        send = {name.replace("_", "-"): value for name, value in headers.items()}
        if role is not None:
            send["Authorization"] = f"Bearer {node_token((node or self.leader).name) if role is Role.NODE else TOKENS[role]}"
        url = yarl.URL((node or self.leader).url + path, encoded=True)
        async with self.session.request(method, url, json=body if data is None else None, data=data, headers=send, allow_redirects=False) as answer:
            raw = await answer.read()
            value = await answer.json(content_type=None) if "json" in answer.content_type and "ndjson" not in answer.content_type and raw else raw
            return Answer(answer.status, answer.headers, value)

    async def push(self, project: str, *jobs: dict[str, Any], role: Role = Role.DEPLOYER, **headers: str) -> Answer:
        objects = [{"apiVersion": "igor/v1", "kind": "Job", **job} for job in jobs]
        condition = headers or {"If_None_Match": "*"}
        return await self.ask("PUT", f"/v1/projects/{project}", {"definitions": objects}, role=role, **condition)
