"""The autopilot: makes stable nodes learners and learners voters, and replaces a voter that is lost, as `rules.membership` says.

One change at a time; each is asked for and then looked at anew. Failures are told in the log and tried again: membership is never urgent.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping, Sequence

from igor_node.leader.hub import Hub
from igor_node.leader.reign import Deposed, Reign
from igor_node.ledger import query_cluster
from igor_node.ledger.query_cluster import NodeRow
from igor_node.rules.membership import AddLearner, Candidate, MemberNow, Promote, Remove, Step, next_step
from igor_node.words import SECOND, NodeState
from raft.interface import Member, NotLeader, Unknown

LOOK_EVERY_S = 0.5
STABLE = SECOND  # connected for so long without a break
CHANGE_TIMEOUT_S = 10.0
NEXT_STEP_S = 0.02  # after one that worked: a quorum of two out of two shall not last
RETRY_S = 2.0
WANTED_DEFAULT = 3

log = logging.getLogger("igor.leader.autopilot")
WORDS = {
    AddLearner: "node %s becomes a learner: %s",
    Promote: "node %s becomes a voter: %s",
    Remove: "node %s is taken out of the members: %s",
}


class Autopilot:
    def __init__(self, reign: Reign, hub: Hub) -> None:
        self._reign = reign
        self._hub = hub
        self._since: dict[str, int] = {}  # node -> when it was seen connected first, without a break
        self._told: dict[str, str] = {}  # node -> the address consensus was told in this term, so that one it writes otherwise is told once

    async def run(self) -> None:
        while True:
            step = await self.look()
            if step is None:
                await self._reign.clock.sleep(LOOK_EVERY_S)
            else:
                await self._reign.clock.sleep(NEXT_STEP_S if await self._do(step) else RETRY_S)

    async def look(self) -> Step | None:
        wanted, nodes = await self._reign.reads.query(_wanted_and_nodes)
        self._note_connected()
        status = self._reign.replica.status()
        members = [MemberNow(member.id, member.address, voter=True) for member in status.members.voters]
        members += [MemberNow(member.id, member.address, voter=False) for member in status.members.learners]
        peers = status.peers
        caught_up = {node for node, peer in peers.items() if peer.connected and peer.caught_up}
        addresses = {member.node: member.address for member in members}
        return next_step(members, self._candidates(nodes, caught_up, addresses), self._reign.node, wanted)

    def _note_connected(self) -> None:
        now, connected = self._reign.clock.monotonic_ns(), self._hub.connected
        self._since = {node: self._since.get(node, now) for node in connected}

    def _candidates(self, nodes: Sequence[NodeRow], caught_up: set[str], members: Mapping[str, str]) -> list[Candidate]:
        now, announced, version = self._reign.clock.monotonic_ns(), self._hub.announced(), self._reign.ledger.version
        return [
            Candidate(
                node=node.node,
                address=self._address(node, members),
                stable=node.state == NodeState.UP
                and now - self._since.get(node.node, now) >= STABLE
                and node.node in announced
                and announced[node.node].version >= version,  # an older program halts at its first look into the ledger
                gone=node.state == NodeState.LOST,
                caught_up=node.node in caught_up,
                ephemeral=node.ephemeral,
            )
            for node in nodes
        ]

    def _address(self, node: NodeRow, members: Mapping[str, str]) -> str:
        address = host_and_port(node.address)
        return members.get(node.node, address) if self._told.get(node.node) == address else address

    async def _do(self, step: Step) -> bool:
        """True where it was done."""
        replica = self._reign.replica
        log.info(WORDS[type(step)], step.node, step.why)
        try:
            match step:
                case AddLearner():
                    await replica.add_learner(Member(step.node, step.address), CHANGE_TIMEOUT_S)
                    self._told[step.node] = step.address
                case Promote():
                    await replica.add_voter(step.node, CHANGE_TIMEOUT_S)
                case Remove():
                    await replica.remove(step.node, CHANGE_TIMEOUT_S)
        except NotLeader as problem:
            if not replica.leads(self._reign.term):
                raise Deposed(str(problem)) from problem
            return False
        except (ValueError, Unknown, TimeoutError) as problem:
            log.warning("%s %s did not work and is tried again: %s", type(step).__name__, step.node, problem)
            return False
        return True


def _wanted_and_nodes(connection: sqlite3.Connection) -> tuple[int, list[NodeRow]]:
    cluster = query_cluster.cluster(connection)
    return WANTED_DEFAULT if cluster is None else cluster.wanted_voters, query_cluster.nodes(connection)


def host_and_port(address: str) -> str:
    """Of a base URL; a bare HOST:PORT stays what it is."""
    return address.partition("://")[2].rstrip("/") if "://" in address else address
