"""What the HTTP side needs of the rest of the node. `node.py` fills `Services`; tests fill it with objects in memory.

Nothing here acts. Every Protocol names only what handlers call, so that `http` knows neither `leader` nor `agent` nor the Raft engine. All is called
on the event loop. Seconds are floats with `_s`, instants whole nanoseconds.
"""

from __future__ import annotations

import sqlite3
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from igor_node.edges import Clock
from igor_node.ledger.changes import Changes
from igor_node.ledger.commands import Envelope, KeyMade, SetAuthority, encode_envelope
from igor_node.oidc_settings import OidcSettings
from igor_node.output import LogPiece
from igor_node.trust.keys import Keys
from igor_node.words import base_url
from raft.interface import Members, NodeId, Proposed, Term

T = TypeVar("T")


class PeerStatus(Protocol):
    @property
    def connected(self) -> bool: ...


class Status(Protocol):
    """`raft.replica.Status`. `quorum`: heard a leader within an election time-out, or leads with a lease."""

    @property
    def state(self) -> str: ...
    @property
    def term(self) -> Term: ...
    @property
    def leader(self) -> NodeId | None: ...
    @property
    def members(self) -> Members: ...
    @property
    def commit_index(self) -> int: ...
    @property
    def applied_index(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    @property
    def halted(self) -> str | None: ...
    @property
    def quorum(self) -> bool: ...
    @property
    def leaderless_s(self) -> float:
        """For how long no leader was heard or helped to lead."""

    @property
    def peers(self) -> Mapping[NodeId, PeerStatus]: ...


class Replica(Protocol):
    """`raft.replica.Replica`, as far as requests need it."""

    async def propose(self, command: bytes, timeout: float) -> Proposed: ...
    async def read_barrier(self, timeout: float) -> int: ...
    def is_leader(self) -> bool: ...
    def leader(self) -> NodeId | None: ...
    def status(self) -> Status: ...


class Reads(Protocol):
    """`ledger.reads.Reads`: one read transaction on a read-only connection, in a small pool of threads."""

    async def query(self, function: Callable[[sqlite3.Connection], T]) -> T: ...
    async def indexed(self, function: Callable[[sqlite3.Connection], T]) -> tuple[int, T]: ...


class Signed(Protocol):
    """What a node gets for its signing request; PEM."""

    @property
    def certificate(self) -> str: ...
    @property
    def authorities(self) -> str: ...


class NodeStreams(Protocol):
    """`leader`: one call for each node's WebSocket; returns when the stream shall end."""

    async def serve(self, node_id: str, receive: AsyncIterator[bytes], send: Callable[[bytes], Awaitable[None]]) -> None: ...


class LiveView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What only the leader knows of a node, from its heartbeats."""

    node: str
    heard_s: float
    clock_error_s: float | None = None
    load: float | None = None
    memory_free_bytes: int | None = None
    behind: tuple[str, ...] = ()


class NodeView(Protocol):
    """The same as whoever leads gives it."""

    @property
    def node(self) -> str: ...
    @property
    def heard_s(self) -> float: ...
    @property
    def clock_error_s(self) -> float | None: ...
    @property
    def load(self) -> float | None: ...
    @property
    def memory_free_bytes(self) -> int | None: ...
    @property
    def behind(self) -> tuple[str, ...]: ...


class Logs(Protocol):
    """`agent`: the output of attempts whose folders are on this machine."""

    async def read(self, attempt: str, try_n: int, offset: int, limit: int) -> LogPiece:
        """At most `limit` whole lines from the stored byte `offset` on; an empty piece at the end. Raises words.NotFound."""


@dataclass(frozen=True, kw_only=True)
class Me:
    """This node. `address` is its base URL as others reach it, `version` the program's."""

    id: str
    name: str
    address: str
    cluster: str
    version: str
    epoch: int = 0


@dataclass(frozen=True, kw_only=True)
class Services:
    """All that `make_app` needs. Callables are asked anew each time, because their answers change while the node runs."""

    me: Me
    clock: Clock
    keys: Keys  # the cluster's: sessions are signed with the newest, secrets of tokens derived from it
    node_token: Callable[[], str]  # this node's own, for asking other nodes
    replica: Replica
    reads: Reads
    changes: Changes
    holds_ledger: Callable[[], bool]  # true once the ledger here is caught up; a node that holds none asks a peer
    peers: Callable[[], Sequence[str]]  # base URLs of other nodes that hold the ledger, likely leader first
    leader_address: Callable[[], str | None]  # base URL of the leader that this node knows (itself included), however it learned of it
    streams: NodeStreams
    renew: Callable[[str, str], bool]  # (attempt, token) -> renewed; only asked while this node leads
    views: Callable[[], Sequence[NodeView]]  # of the leader; empty elsewhere
    logs: Logs
    own_token: Callable[[str, str], bool] = lambda attempt, token: False  # whether this is the attempt's own; false where no key is
    auth: bool = True
    oidc: OidcSettings | None = None  # where people log in by a provider of identities
    make_key: Callable[[], Awaitable[KeyMade]] | None = None  # one of the cluster's that is to come, kept here
    next_authority: Callable[[], Awaitable[SetAuthority]] | None = None  # None: a cluster without TLS
    tls: bool = False  # whether this cluster's listeners are TLS; its nodes then prove by certificate who they are
    asking: Callable[[], ssl.SSLContext | bool] = lambda: True  # for connections to other nodes
    permitted: Callable[[NodeId], bool] = lambda node: True  # whether a node's certificate is (still) good, as far as this node knows
    sign: Callable[[str, NodeId], Awaitable[Signed]] | None = None  # a node's signing request, on a node that holds the ledger and the key
    fingerprint: Callable[[], str] = lambda: "none"  # of the CA, for tokens
    leave: Callable[[str], Awaitable[None]] | None = None  # leader: takes a node out of the Raft members before it is removed
    entry: Callable[[Envelope], bytes] = encode_envelope  # a command as the cluster understands it; raises where it does not yet
    snapshot: Callable[[Path], Any] | None = None  # writes a copy of the ledger, in any thread
    folder: Path = Path()  # where such a copy may stand meanwhile
    addresses: Callable[[], Mapping[NodeId, str]] = dict  # HOST:PORT of each member as this node reaches it
    hosts: frozenset[str] = field(default_factory=frozenset)  # further host names under which this node may be asked
    metrics: Callable[[], Mapping[str, Any]] = dict  # name -> number, for /metrics

    @property
    def key(self) -> bytes:
        return self.keys.key

    def url_of(self, address: str) -> str:
        return base_url(address, tls=self.tls)
