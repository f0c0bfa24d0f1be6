"""The seams between PySyncObj and our own parts: nodes, log and network as it wants them, made of ours.

`engine.py` hands them in and is called back; they decide nothing. The names of their methods are PySyncObj's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

from pysyncobj.node import Node

from raft.interface import Entry, Kind, NodeId, Term
from raft.journal import Journal


class Peer(Node):  # type: ignore[misc]
    """A node as PySyncObj wants it. One object a node, hashed by a checksum of its id: sets of peers have one order in every process."""

    def __init__(self, node: NodeId) -> None:
        super().__init__(node)
        self._hash = crc32(node.encode())

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other


class JournalAsLog:
    """The journal as PySyncObj's log. Only the first item (the entry before the kept ones) and the last are ever asked for.

    PySyncObj keeps entries as (command, index, term). What it adds here is its own first entry of a term, or a list of entries of an append,
    which it takes for one command: it looks at nothing but the index and term of the last.
    """

    def __init__(self, journal: Journal, commit: int, append: Callable[[list[Entry]], None], cut: Callable[[int], None]) -> None:
        self._journal = journal
        self._commit = commit
        self._append = append
        self._cut = cut

    def __len__(self) -> int:
        return self._journal.last_index - self._journal.base.index + 1

    def __getitem__(self, position: int) -> tuple[None, int, Term]:
        journal = self._journal
        if position == -1:
            return None, journal.last_index, journal.last_term
        assert position == 0
        return None, journal.base.index, journal.base.term

    def add(self, command: bytes | list[Entry], index: int, term: Term) -> None:
        self._append(command if isinstance(command, list) else [Entry(index, term, Kind.NOOP, b"")])

    def deleteEntriesFrom(self, position: int) -> None:
        self._cut(self._journal.base.index + position)

    def setCurrentTerm(self, term: Term, vote: NodeId | None) -> None:
        self._journal.set_vote(term, vote)

    def getCurrentTerm(self) -> Term:
        return self._journal.term

    def getVotedForNodeId(self) -> NodeId | None:
        return self._journal.vote

    def getRaftCommitIndex(self) -> int:
        return self._commit

    def setRaftCommitIndex(self, index: int) -> None:
        """Not kept: at a start everything applied is known to be committed, and the leader tells the rest."""

    def onOneSecondTimer(self) -> None:
        """Nothing to do: the pump syncs."""


class OutboxAsNetwork:
    """The outbox as PySyncObj's network. It sets callbacks for what a network may report, and none comes: the driver calls the engine itself."""

    ready = True

    def __init__(self, send: Callable[[Peer, dict[str, Any]], None]) -> None:
        self.send = send

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.startswith("setOn"):
            raise AttributeError(name)
        return lambda *_: None
