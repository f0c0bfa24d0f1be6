"""A state machine in memory for the tests of the replica, whose snapshot is a file of MessagePack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from raft.interface import Applied, Entry, Kind, Members


class Copy(msgspec.Struct):
    stands: Applied
    commands: list[bytes]


class ListMachine:
    def __init__(self) -> None:
        self.stands = Applied(0, 0, Members())
        self.commands: list[bytes] = []
        self.batches: list[int] = []
        self.restored = 0
        self.before_apply = lambda: None

    def apply(self, entries: Sequence[Entry]) -> list[object]:
        self.before_apply()
        self.batches.append(len(entries))
        members = self.stands.members
        results: list[object] = []
        for entry in entries:
            assert entry.index == self.stands.index + len(results) + 1, "entries come in order, without a gap, once"
            if entry.kind == Kind.MEMBERS:
                members = msgspec.msgpack.decode(entry.data, type=Members)
            if entry.kind == Kind.COMMAND:
                self.commands.append(entry.data)
            results.append(len(self.commands))
        self.stands = Applied(entries[-1].index, entries[-1].term, members)
        return results

    def applied(self) -> Applied:
        return self.stands

    def durable_index(self) -> int:
        return self.stands.index

    def snapshot(self, path: Path) -> Applied:
        path.write_bytes(msgspec.msgpack.encode(Copy(self.stands, self.commands)))
        return self.stands

    def restore(self, path: Path) -> None:
        copy = msgspec.msgpack.decode(path.read_bytes(), type=Copy)
        self.stands, self.commands = copy.stands, copy.commands
        self.restored += 1
