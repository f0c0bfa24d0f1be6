"""What must be true after every event, whatever happened: the safety of Raft, and the promises of `raft/`'s interface.

Each check looks at the node that the event touched, so that a history of thousands of events stays cheap. `Broken` names the promise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn
from zlib import crc32

from raft.engine import State
from raft.interface import Entry, Kind
from tests.simulation import machine
from tests.simulation.machine import Command, Registers, Stand

if TYPE_CHECKING:
    from tests.simulation.node import SimNode
    from tests.simulation.world import World


class Broken(BaseException):
    """A promise does not hold. `promise` is its short name, the text says where and when. Not an Exception: no code under test may catch it."""

    def __init__(self, promise: str, detail: str) -> None:
        super().__init__(f"{promise}: {detail}")
        self.promise = promise


class Checks:
    def __init__(self, world: World) -> None:
        self.world = world
        self.leaders: dict[int, str] = {}  # term -> who led it
        self.chain: dict[int, tuple[int, int]] = {}  # index -> term and digest of the ledger, as first applied anywhere
        self.registers = Registers()
        self.committed: dict[int, tuple[int, int]] = {}  # index -> the entry's term, and the term of the leader that committed it
        self.highest_committed = 0
        self.visible = 0  # somebody was told of the ledger at this index: that a command is in it, or what it holds
        self.acknowledgements = 0
        self.acknowledged_operations: set[int] = set()
        self.reads = 0
        self._logs: dict[tuple[int, int], tuple[int, int]] = {}  # index and term -> the term before it, and a sum of the entry
        self._results: dict[int, Any] = {}  # by index
        self._places: dict[tuple[int, int], int] = {}  # operation and attempt -> index
        self._refused: set[tuple[int, int]] = set()
        self._votes: dict[tuple[str, int], str] = {}
        self._commit_seen: dict[str, int] = {}
        self._term_seen: dict[str, int] = {}

    def broken(self, promise: str, detail: str) -> NoReturn:
        raise Broken(promise, f"at {self.world.now:.6f} s: {detail}")

    # --- what nodes report

    def started(self, node: SimNode) -> None:
        if node.engine.term < node.highest_term_said:
            self.broken("the term never goes back", f"{node.id} came back with term {node.engine.term}, after {node.highest_term_said}")
        self._term_seen[node.id] = node.engine.term
        self._commit_seen[node.id] = node.engine.commit_index
        journal = node.journal
        self.log_grew(node, journal.base.term, journal.entries(journal.first_index, journal.last_index + 1))

    def may_halt(self, node: SimNode, problem: Exception) -> None:
        if not node.trouble.failed:
            self.broken("no node halts without a cause", f"{node.id}: {problem}")

    def snapshot_installed(self, node: SimNode) -> None:
        self._commit_seen[node.id] = max(self._commit_seen[node.id], node.ledger.index)

    def voted(self, node: SimNode, term: int, candidate: str) -> None:
        if self._votes.setdefault((node.id, term), candidate) != candidate:
            self.broken("one vote a term", f"{node.id} votes for {candidate} in term {term}, after {self._votes[node.id, term]}")

    def speaks(self, node: SimNode) -> None:
        """What leaves it may carry a commit index that is new to the world: it is judged here, by the list of members that the leader counts by.
        The follower that hears of it may have an older list, and the leader be dead."""
        if node.engine.commit_index != self._commit_seen[node.id]:
            self._commit_moved(node)

    def log_grew(self, node: SimNode, before: int, entries: Sequence[Entry]) -> None:
        """Log matching: entries of one index and term are the same everywhere and follow the same term; so, one by one, all before them are."""
        logs = self._logs
        for entry in entries:
            index, term, kind, data = entry.index, entry.term, entry.kind, entry.data
            here = (before, crc32(data, kind))
            if logs.setdefault((index, term), here) != here:
                self.broken("logs match", f"entry {index} of term {term} at {node.id} is not the one that another log holds")
            before = term

    # --- the ledger, and what clients are told of it

    def applied(self, node: SimNode, entry: Entry, stand: Stand) -> Any:
        """The result of the entry: there is one, whoever applies it."""
        index = entry.index
        found = self.chain.get(index)
        if found is None:
            self.chain[index] = (entry.term, stand.digest)
            self._results[index] = self._first_applied(entry) if entry.kind == Kind.COMMAND else None
        elif found != (entry.term, stand.digest):
            self.broken("the same ledger at the same index", f"{node.id} applied another entry {index} of term {entry.term}, not {found[0]}")
        return self._results[index]

    def _first_applied(self, entry: Entry) -> Any:
        command = machine.decode(entry.data)
        attempt = command[:2]
        if attempt in self._places:
            self.broken("no command is applied twice", f"operation {command.operation} stands at {self._places[attempt]} and at {entry.index}")
        if attempt in self._refused:
            self.broken("what was refused is not in the log", f"operation {command.operation} is applied at {entry.index}")
        self._places[attempt] = entry.index
        return self.registers.apply(entry.index, command)

    def refused(self, node: SimNode, command: Command) -> None:
        attempt = command[:2]
        if attempt in self._places:
            self.broken("what was refused is not in the log", f"{node.id} refuses operation {command.operation}, entry {self._places[attempt]}")
        self._refused.add(attempt)

    def acknowledged(self, node: SimNode, command: Command, index: int, term: int, result: Any) -> None:
        self.acknowledgements += 1
        if self._places.get(command[:2]) != index or self.chain[index][0] != term or result != self.registers.results[command.operation]:
            self.broken("an answer is the command's own", f"{node.id} answers operation {command.operation} by entry {index} of term {term}")
        self.acknowledged_operations.add(command.operation)
        self.visible = max(self.visible, index)

    def read(self, node: SimNode, index: int, confirmed: int, needed: int) -> None:
        self.reads += 1
        if index < needed or index < confirmed:
            self.broken("reads see what was acknowledged before", f"{node.id} reads at {index}, but {max(needed, confirmed)} is needed")
        self.visible = max(self.visible, index)

    # --- after every event

    def after(self, node: SimNode) -> None:
        engine = node.engine
        term, commit = engine.term, engine.commit_index
        if term != self._term_seen[node.id]:
            if term < self._term_seen[node.id]:
                self.broken("the term never goes back", f"{node.id} went from {self._term_seen[node.id]} to {term}")
            self._term_seen[node.id] = term
        if commit != self._commit_seen[node.id]:
            self._commit_moved(node)
        if commit > engine.last_index:
            self.broken("no committed entry is lost", f"{node.id} committed {commit} and holds only {engine.last_index}")
        self._members(node)
        if engine.state is State.LEADER and self.leaders.get(term) != node.id:
            self._new_leader(node)
        self._leaders(node)

    def _members(self, node: SimNode) -> None:
        index, journal = node.engine.members_index, node.journal
        if index <= max(node.ledger.index, journal.base.index):
            return
        if index > journal.last_index or journal.entry(index).kind != Kind.MEMBERS:
            self.broken("the members are those of the log", f"{node.id} follows a list of entry {index}, which its log does not hold")

    def _new_leader(self, node: SimNode) -> None:
        term = node.engine.term
        if term in self.leaders:
            self.broken("one leader a term", f"{node.id} and {self.leaders[term]} lead term {term}")
        self.leaders[term] = node.id
        self.world.note(f"{node.id} leads term {term}")
        for index in range(self.highest_committed, max(0, self.highest_committed - 5), -1):
            if index in self.committed and index > node.journal.base.index:
                entry_term, committed_in = self.committed[index]
                # A leader of a term before that one may be elected late, by votes that were long on their way. It commits nothing any more.
                if committed_in < term and node.journal.term_at(index) != entry_term:
                    self.broken("no committed entry is lost", f"{node.id} leads term {term} without entry {index} of term {entry_term}")

    def _commit_moved(self, node: SimNode) -> None:
        engine, journal = node.engine, node.journal
        before, now = self._commit_seen[node.id], engine.commit_index
        if now < before:
            self.broken("no committed entry is lost", f"the commit index of {node.id} fell from {before} to {now}")
        self._commit_seen[node.id] = now
        for index in range(max(before, journal.base.index) + 1, now + 1):
            term = journal.term_at(index)
            if term is None or self.committed.setdefault(index, (term, engine.term))[0] != term:
                self.broken("no committed entry is lost", f"{node.id} commits entry {index} of term {term}, not of {self.committed.get(index)}")
        if now > self.highest_committed:
            self.highest_committed = now
            self._on_a_majority(node, now)

    def _on_a_majority(self, node: SimNode, index: int) -> None:
        """A commit index that is new to the world was counted by a leader: a majority must have it on disk."""
        term = node.journal.term_at(index)
        voters = node.engine.members.voters
        holding = sum(1 for voter in voters if self.world.nodes[voter.id].has_on_disk(index, term))
        if holding * 2 <= len(voters):
            self.broken("committed is durable on a majority", f"{node.id} commits {index} of term {term}; {holding} of {len(voters)} disks hold it")

    def _leaders(self, node: SimNode) -> None:
        holding = []
        for other in self.world.nodes.values():
            if not other.up:
                continue
            pump = other.pump
            if pump.engine.state is State.LEADER:
                self._matches(other, node)
            # By what a node's other threads see: the view that the pump published last, as in `Replica.is_leader`.
            if pump.view.lease_until > 0 and other.clock() < pump.view.lease_until:
                holding.append(other.id)
        if len(holding) > 1:
            self.broken("leases are disjoint", f"{' and '.join(holding)} both hold one")

    def _matches(self, leader: SimNode, touched: SimNode) -> None:
        """What `leader` counts for its peers, as far as the event can have changed it or them."""
        nodes, term = self.world.nodes, leader.engine.term
        counted = leader.engine.match_indexes()
        if leader is not touched:
            counted = [(peer, match) for peer, match in counted if peer == touched.id]
        for peer, match in counted:
            follower = nodes[peer]
            if match and follower.up and match > follower.journal.base.index and follower.engine.term == term:
                held = follower.journal.term_at(match)
                if held is None or (match > leader.journal.base.index and held != leader.journal.term_at(match)):
                    self.broken("a match index lies in the follower's log", f"{leader.id} counts {match} for {peer}, which holds {held} there")
                if match > follower.synced_last:
                    self.broken(
                        "a match index lies on the follower's disk", f"{leader.id} counts {match} for {peer}: {follower.synced_last} is synced"
                    )
