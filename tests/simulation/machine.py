"""The ledger of a simulated node, and what the commands in the log mean: registers to write, read, and compare and set, by the command's id.

A node's own ledger is one value, `Stand`: index, term, members and a digest over every entry so far. Nodes with the same digest have applied the
same entries, so what these entries amount to is kept once, in `Registers`, and not by every node again: `checks.py` compares the digests.

An *attempt* is one proposal of an operation: a client that does not know what came of one makes another, under the same operation's id. The
registers remember the first result of each operation, as the production ledger does.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from raft import membership
from raft.interface import Applied, Entry, Kind, Members

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.simulation.node import SimNode

_COMMAND = struct.Struct(">QHBBQQ")


class Verb(IntEnum):
    FILL = 0  # changes no register: work for the log
    WRITE = 1
    COMPARE_AND_SET = 2


class Command(NamedTuple):
    operation: int
    attempt: int
    verb: int
    key: int = 0
    value: int = 0
    expected: int = 0

    def encode(self, size: int = 0) -> bytes:
        return _COMMAND.pack(*self).ljust(size, b"\0")


def decode(data: bytes) -> Command:
    return Command(*_COMMAND.unpack_from(data))


class Registers:
    """The state that the log amounts to, entry by entry, with every register's value at every index; all begin with 0."""

    def __init__(self) -> None:
        self.results: dict[int, Any] = {}  # by operation: the first one counts
        self._versions: dict[int, tuple[list[int], list[int]]] = {}  # key -> indexes and values

    def apply(self, index: int, command: Command) -> Any:
        if command.operation not in self.results:
            self.results[command.operation] = self._execute(index, command)
        return self.results[command.operation]

    def _execute(self, index: int, command: Command) -> Any:
        if command.verb == Verb.FILL:
            return None
        if command.verb == Verb.COMPARE_AND_SET and self.read(command.key, index) != command.expected:
            return False
        indexes, values = self._versions.setdefault(command.key, ([], []))
        indexes.append(index)
        values.append(command.value)
        return True

    def read(self, key: int, index: int) -> int:
        """As a ledger that stands at `index` shows it."""
        indexes, values = self._versions.get(key, ((), ()))
        position = bisect_right(indexes, index)
        return values[position - 1] if position else 0


class Stand(NamedTuple):
    index: int
    term: int
    members: Members
    digest: int

    def after(self, entry: Entry) -> Stand:
        members = membership.decode(entry.data) if entry.kind == Kind.MEMBERS else self.members
        return Stand(entry.index, entry.term, members, crc32(entry.data, crc32(b"%d %d" % (entry.term, entry.kind), self.digest)))


EMPTY = Stand(0, 0, Members(), 0)


class Machine:
    """A node's state machine for the pump. What of it is durable lags behind, as with SQLite in WAL mode."""

    def __init__(self, node: SimNode) -> None:
        self.node = node
        self.now = EMPTY
        self.durable = EMPTY
        self.fails = False

    def apply(self, entries: Sequence[Entry]) -> list[Any]:
        if self.fails:
            self.node.trouble.failed = True
            raise ValueError("it was asked to")
        stand, checks = self.now, self.node.world.checks
        results = []
        for entry in entries:
            if entry.index != stand.index + 1:
                checks.broken("every entry is applied once", f"{self.node.id} is told to apply {entry.index} after {stand.index}")
            stand = stand.after(entry)
            results.append(checks.applied(self.node, entry, stand))
        self.node.step("apply")
        self.now = stand
        return results

    def applied(self) -> Applied:
        return Applied(self.now.index, self.now.term, self.now.members)

    def durable_index(self) -> int:
        return self.durable.index

    def restore(self, copy: Copy) -> None:
        self.node.step("restore")
        self.now = self.durable = copy.stand


class Copy:
    """A snapshot on its way, in place of the file's path."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand

    def unlink(self, *, missing_ok: bool) -> None:
        pass
