"""What the leader needs of the rest of the node, as Protocols: consensus, and reading the ledger. `node.py` gives the real ones, tests give others.

Nothing here acts. The clock is `edges.Clock`; what wakes the loops is `ledger.changes.Changes`, used as it is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from igor_node.ledger.versions import CommandSet
from raft.interface import Member, Members, NodeId, Proposed, Term

T = TypeVar("T")


class Peer(Protocol):
    """`raft.replica.PeerStatus`."""

    @property
    def connected(self) -> bool: ...
    @property
    def caught_up(self) -> bool: ...


class Status(Protocol):
    """`raft.replica.Status`, as far as the autopilot looks."""

    @property
    def members(self) -> Members: ...
    @property
    def peers(self) -> Mapping[NodeId, Peer]: ...


class Replica(Protocol):
    """`raft.replica.Replica`."""

    async def propose(self, command: bytes, timeout: float) -> Proposed: ...
    def is_leader(self) -> bool: ...
    def leads(self, term: Term) -> bool: ...
    async def lost(self, term: Term) -> None: ...
    def status(self) -> Status: ...
    async def add_learner(self, member: Member, timeout: float) -> None: ...
    async def add_voter(self, node: NodeId, timeout: float) -> None: ...
    async def remove(self, node: NodeId, timeout: float) -> None: ...
    async def transfer_leadership(self, to: NodeId | None, timeout: float) -> bool: ...


class Ledger(Protocol):
    """`ledger.ledger.Ledger`: what may be proposed to it."""

    @property
    def version(self) -> int: ...
    @property
    def known(self) -> CommandSet: ...


class Reads(Protocol):
    """`ledger.reads.Reads`."""

    async def query(self, function: Callable[[sqlite3.Connection], T]) -> T: ...
    async def indexed(self, function: Callable[[sqlite3.Connection], T]) -> tuple[int, T]: ...
