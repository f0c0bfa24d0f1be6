"""What must be true after every event, whatever happened: the safety of Raft, and the promises of `raft/`'s interface.

Each check looks at the node that the event touched, so that a history of thousands of events stays cheap. `Broken` names the promise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.engine import State
from raft.interface import Entry, Kind

if TYPE_CHECKING:
    from tests.simulation.node import Ledger, SimNode
    from tests.simulation.world import World


class Broken(AssertionError):
    """A promise does not hold. `promise` is its short name, the text says where and when."""

    def __init__(self, promise: str, detail: str) -> None:
        super().__init__(f"{promise}: {detail}")
        self.promise = promise


class Checks:
    def __init__(self, world: World) -> None:
        self.world = world
        self.leaders: dict[int, str] = {}  # term -> who led it
        self.chain: dict[int, tuple[int, int]] = {}  # index -> term and digest of the ledger, as first applied anywhere
        self.committed: dict[int, int] = {}  # index -> term, as first committed anywhere
        self.highest_committed = 0
        self.highest_acknowledged = 0
        self.acknowledgements = 0
        self.acknowledged_operations: set[int] = set()
        self.reads = 0
        self.commit_seen: dict[str, int] = {}
        self.term_seen: dict[str, int] = {}

    def broken(self, promise: str, detail: str) -> None:
        raise Broken(promise, f"at {self.world.now:.6f} s: {detail}")

    # --- what nodes report

    def started(self, node: SimNode) -> None:
        if node.engine.term < node.highest_term_said:
            self.broken("the term never goes back", f"{node.id} came back with term {node.engine.term}, after {node.highest_term_said}")
        self.term_seen[node.id] = node.engine.term
        self.commit_seen[node.id] = node.engine.commit_index

    def snapshot_installed(self, node: SimNode) -> None:
        self.commit_seen[node.id] = max(self.commit_seen[node.id], node.ledger.index)
        self.after(node)

    def applied(self, node: SimNode, entry: Entry, ledger: Ledger) -> None:
        found = self.chain.setdefault(entry.index, (entry.term, ledger.digest))
        if found != (entry.term, ledger.digest):
            self.broken("the same ledger at the same index", f"{node.id} applied another entry {entry.index} of term {entry.term}, not {found[0]}")

    def acknowledged(self, node: SimNode, entry: Entry, operation: int) -> None:
        self.acknowledgements += 1
        self.acknowledged_operations.add(operation)
        self.highest_acknowledged = max(self.highest_acknowledged, entry.index)

    def read(self, node: SimNode, index: int, needed: int) -> None:
        self.reads += 1
        if index < needed:
            self.broken("reads see what was acknowledged before", f"{node.id} reads at {index}, but {needed} was acknowledged")

    # --- after every event

    def after(self, node: SimNode) -> None:
        engine = node.engine
        term = engine.term
        if term < self.term_seen[node.id]:
            self.broken("the term never goes back", f"{node.id} went from {self.term_seen[node.id]} to {term}")
        self.term_seen[node.id] = term
        if engine.commit_index != self.commit_seen[node.id]:
            self._commit_moved(node)
        if engine.commit_index > engine.last_index:
            self.broken("no committed entry is lost", f"{node.id} committed {engine.commit_index} and holds only {engine.last_index}")
        self._members(node)
        if engine.state is State.LEADER and self.leaders.get(term) != node.id:
            self._new_leader(node)
        self._leaders()

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
            committed = self.committed.get(index)
            if committed is not None and committed < term and index > node.journal.base.index and node.journal.term_at(index) != committed:
                self.broken("no committed entry is lost", f"{node.id} leads term {term} without entry {index} of term {committed}")

    def _commit_moved(self, node: SimNode) -> None:
        engine, journal = node.engine, node.journal
        before, now = self.commit_seen[node.id], engine.commit_index
        if now < before:
            self.broken("no committed entry is lost", f"the commit index of {node.id} fell from {before} to {now}")
        self.commit_seen[node.id] = now
        for index in range(max(before, journal.base.index) + 1, now + 1):
            term = journal.term_at(index)
            if term is None or self.committed.setdefault(index, term) != term:
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

    def _leaders(self) -> None:
        leading = [node for node in self.world.nodes.values() if node.up and node.engine.state is State.LEADER]
        for node in leading:
            self._matches(node)
        if len(leading) > 1:
            leases = [node.id for node in leading if node.engine.has_lease()]
            if len(leases) > 1:
                self.broken("leases are disjoint", f"{' and '.join(leases)} both hold one")

    def _matches(self, leader: SimNode) -> None:
        engine, nodes = leader.engine, self.world.nodes
        term = engine.term
        for peer, match in engine.match_indexes():
            follower = nodes[peer]
            if match and follower.up and follower.engine.term == term and match > follower.journal.base.index:
                held = follower.journal.term_at(match)
                if held is None or (match > leader.journal.base.index and held != leader.journal.term_at(match)):
                    self.broken("a match index lies in the follower's log", f"{leader.id} counts {match} for {peer}, which holds {held} there")
