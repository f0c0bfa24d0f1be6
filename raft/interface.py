"""What the rest of Igor sees of consensus, and what `raft` needs of the rest: types and Protocols, no behaviour.

`igor_node` uses `raft.replica.Replica` (see DESIGN: propose, read_barrier, leadership, …) with the types of this module, gives it a
`StateMachine`, and never sees the engine. Times in this package are seconds as floats on a monotonic clock; nothing here reads the wall clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, Protocol

import msgspec

NodeId = str
Term = int

ENTRY_LIMIT_BYTES = 1024 * 1024  # refused at `propose`; the engine's batch limit lies above it


class Kind(IntEnum):
    COMMAND = 0
    NOOP = 1  # the first entry of a term
    MEMBERS = 2  # the data is an encoded `Members`: the whole list, never a difference


class Member(msgspec.Struct, frozen=True, order=True):
    id: NodeId
    address: str  # HOST:PORT


class Members(msgspec.Struct, frozen=True):
    """Both tuples sorted by id. A learner gets every entry and has no vote; nobody is in both."""

    voters: tuple[Member, ...] = ()
    learners: tuple[Member, ...] = ()

    def ids(self) -> frozenset[NodeId]:
        return frozenset(member.id for member in (*self.voters, *self.learners))

    def find(self, node: NodeId) -> Member | None:
        return next((member for member in (*self.voters, *self.learners) if member.id == node), None)

    def is_voter(self, node: NodeId) -> bool:
        return any(member.id == node for member in self.voters)


class Entry(msgspec.Struct, frozen=True, array_like=True):
    index: int
    term: Term
    kind: int
    data: bytes


class Applied(msgspec.Struct, frozen=True):
    """Where a state machine stands; from one transaction. Index 0 and term 0: nothing was ever applied."""

    index: int
    term: Term
    members: Members


class StateMachine(Protocol):
    """Called by the Raft thread alone, but for `snapshot`, which runs in a thread of its own and must see one consistent state."""

    def apply(self, entries: Sequence[Entry]) -> list[Any]:
        """Applies entries of every kind in one transaction, index, term and members with it; one result an entry. Total: a raise halts the node."""

    def applied(self) -> Applied: ...

    def durable_index(self) -> int:
        """The index that a power cut now would leave; the journal is cut only up to here. May start work in a thread to raise it."""

    def snapshot(self, path: Path) -> Applied:
        """Writes a complete copy to `path` (a file that does not exist yet), synced and checked, and says where it stands.

        It should write by and by (`pace.py`): what is synced in one heap stops the journal's syncs.
        """

    def restore(self, path: Path) -> None:
        """Puts the file in place of the state by an atomic rename, synced, and goes on from it. A crash leaves the old or the new state."""


class Proposed(msgspec.Struct, frozen=True):
    """An entry that was applied here: its index, its term, and what apply answered."""

    index: int
    term: Term
    result: Any


class NotLeader(Exception):
    """Surely not in the log. `leader` is the node to ask, where one is known."""

    def __init__(self, leader: NodeId | None, reason: str = "") -> None:
        super().__init__(reason or (f"the leader is {leader}" if leader else "no leader is known"))
        self.leader = leader


class Busy(NotLeader):
    """Surely not in the log: this leader has too much waiting already. Try again in a moment."""


class Unknown(Exception):
    """Perhaps in the log, perhaps not: ask again by the command's own id."""


class Halted(Exception):
    """This replica stopped (disk, damage, an apply that raised) and serves nothing until it is started again. The text says why."""
