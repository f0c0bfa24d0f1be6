"""A cluster without consensus: a real ledger, and replicas that apply what is proposed at once. For tests of what stands on top of `Replica`.

    cluster = DirectCluster(tmp_path)
    node = cluster.add("n1")             # its replica, to be made leader: cluster.lead("n1")
    cluster.do(commands.CreateToken(...))   # straight into the ledger

All nodes share one ledger file, so a follower is never behind; what a follower must do (refuse, forward) is seen all the same. A test decides
who leads, whether there is a quorum, and can make the next proposal fail in the two ways a real one can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from igor_node.ledger import commands
from igor_node.ledger.changes import Changes
from igor_node.ledger.ledger import Ledger
from igor_node.ledger.reads import Reads
from igor_node.words import Instant, new_id, wall_now
from raft.interface import Entry, Kind, Member, Members, NotLeader, Proposed, Unknown


@dataclass(frozen=True)
class DirectPeer:
    connected: bool = True


@dataclass(frozen=True)
class DirectStatus:
    state: str
    term: int
    leader: str | None
    members: Members
    commit_index: int
    applied_index: int
    halted: str | None
    quorum: bool
    leaderless_s: float
    last_index: int = 0
    peers: Mapping[str, DirectPeer] = field(default_factory=dict)


class DirectReplica:
    """Satisfies what `http` and `leader` use of a replica."""

    def __init__(self, cluster: DirectCluster, node: str) -> None:
        self.cluster = cluster
        self.node = node
        self.quorum = True
        self.behind = 0  # entries of the log that are not applied here
        self.halted: str | None = None
        self.lose_next = False  # the next proposal: not in the log, the caller is told it may be
        self.hide_next = False  # the next proposal: in the log, the caller is told it may be
        self.proposals = 0

    async def propose(self, command: bytes, timeout: float) -> Proposed:
        if not self.is_leader():
            raise NotLeader(self.leader())
        self.proposals += 1
        if self.lose_next:
            self.lose_next = False
            raise Unknown("the connection to the majority broke")
        done = self.cluster.apply(Kind.COMMAND, command)
        if self.hide_next:
            self.hide_next = False
            raise Unknown("stepped down before it was applied")
        return done

    async def read_barrier(self, timeout: float) -> int:
        if not self.is_leader():
            raise NotLeader(self.leader())
        return self.cluster.index

    def is_leader(self) -> bool:
        return self.quorum and self.cluster.leader == self.node

    def leader(self) -> str | None:
        return self.cluster.leader if self.quorum else None

    def term(self) -> int:
        return self.cluster.term

    def status(self) -> DirectStatus:
        others = [node for node in self.cluster.replicas if node != self.node]
        return DirectStatus(
            state="leader" if self.is_leader() else "follower",
            term=self.cluster.term,
            leader=self.leader(),
            members=self.cluster.members,
            commit_index=self.cluster.index,
            applied_index=self.cluster.index,
            halted=self.halted,
            quorum=self.quorum and self.cluster.leader is not None,
            leaderless_s=0.0 if self.quorum and self.cluster.leader is not None else 60.0,
            last_index=self.cluster.index + self.behind,
            peers={node: DirectPeer(self.quorum) for node in others},
        )


class DirectCluster:
    def __init__(self, folder: Path, cluster: str = "test-cluster") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.cluster = cluster
        self.leader: str | None = None
        self.term = 1
        self.index = 0
        self.members = Members()
        self.replicas: dict[str, DirectReplica] = {}
        self.changes = Changes()
        self.ledger = Ledger(folder / "ledger.sqlite", self._committed)
        self.reads = Reads(folder / "ledger.sqlite")
        self.index = self.ledger.applied().index
        self.do(commands.FoundCluster(cluster=cluster, tzdata="test"))

    def _committed(self, index: int, topics: frozenset[str]) -> None:
        self.changes.notify(index, topics)

    def add(self, node: str, address: str = "127.0.0.1:1", *, voter: bool = True, token_hash: str = "") -> DirectReplica:
        """A node with its row in the ledger. The first one leads."""
        replica = self.replicas[node] = DirectReplica(self, node)
        if voter:
            self.members = Members(voters=tuple(sorted((*self.members.voters, Member(node, address)))))
            self.apply(Kind.MEMBERS, msgspec.msgpack.encode(self.members))
        token = f"n-{node}" if token_hash else ""
        self.do(commands.RegisterNode(node=node, name=node, address=address, slots=4, version="test", token_id=token, token_hash=token_hash))
        self.leader = self.leader or node
        return replica

    def lead(self, node: str | None) -> None:
        """Another node leads from now on, or none."""
        self.leader = node
        self.term += 1

    def do(self, command: commands.AnyCommand, *, at: int | None = None) -> Any:
        """Applies a command; the value of what was done. A refusal is an AssertionError."""
        now = Instant(at) if at is not None else wall_now()
        envelope = commands.Envelope(id=new_id(now), at=now, actor="test", command=command)
        result = self.apply(Kind.COMMAND, commands.encode_envelope(envelope)).result
        assert isinstance(result, commands.Done), result
        return result.value

    def apply(self, kind: Kind, data: bytes) -> Proposed:
        self.index += 1
        (result,) = self.ledger.apply([Entry(self.index, self.term, kind, data)])
        self.changes.notify(self.index, ())
        return Proposed(self.index, self.term, result)

    def close(self) -> None:
        self.reads.close()
        self.ledger.close()
