"""The log in memory: the entries that are kept, the one before them, term and vote. What `journal.py` holds, and what its records say.

The same code replays a disk and follows the calls. It checks that entries join, and nothing else of Raft.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from raft.interface import Entry, NodeId, Term

ENTRY_COST_BYTES = 200  # what an entry holds in memory beside its data


class Base(msgspec.Struct, frozen=True):
    """The entry just before the first one that is kept; index 0 and term 0 at the very beginning."""

    index: int
    term: Term


class Log:
    """The log in memory, as the records say; the same code replays a disk and follows the calls."""

    def __init__(self) -> None:
        self.base = Base(0, 0)
        self.entries: list[Entry] = []
        self.bytes = 0
        self.term: Term = 0
        self.vote: NodeId | None = None

    @property
    def last(self) -> Base:
        return Base(self.entries[-1].index, self.entries[-1].term) if self.entries else self.base

    def append(self, entries: Sequence[Entry]) -> None:
        index, term = self.last.index, self.last.term
        for entry in entries:
            index += 1
            if entry.index != index or entry.term < term:
                raise ValueError(f"entry {entry.index} of term {entry.term} cannot follow entry {index - 1} of term {term}")
            term = entry.term
        self.entries.extend(entries)
        self.bytes += _cost(entries)

    def truncate(self, index: int, previous_term: Term) -> None:
        if index <= self.base.index:  # only in a replay whose older segments are gone: all that is left lies at or above `index`
            self.clear(Base(index - 1, previous_term))
            return
        keep = index - self.base.index - 1
        self.bytes -= _cost(self.entries[keep:])
        del self.entries[keep:]

    def clear(self, base: Base) -> None:
        self.base = base
        self.entries = []
        self.bytes = 0

    def cut(self, base: Base) -> None:
        gone = base.index - self.base.index
        self.bytes -= _cost(self.entries[:gone])
        del self.entries[:gone]
        self.base = base


def _cost(entries: Sequence[Entry]) -> int:
    return sum(len(entry.data) for entry in entries) + ENTRY_COST_BYTES * len(entries)
