"""The node watch: which nodes are silent, which attempts are lost, and what the nodes should be told again.

Twice a second it compares three things: the ledger's nodes and open attempts (read anew only when they changed), the hub's last signs of life, and
the book of leases. What follows is `rules.node_loss`; it proposes `NodeChanged` and `AttemptsLost`, condemning the attempts first (leases.py),
and hands the open attempts to the hub, which sends what is new or was not answered.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence

from igor_node.leader.hub import Hub
from igor_node.leader.reign import Reign
from igor_node.ledger import query_attempts, query_cluster
from igor_node.ledger.commands import AttemptsLost, NodeChanged, RemoveNode
from igor_node.ledger.query_attempts import OpenAttempt
from igor_node.ledger.query_cluster import NodeRow
from igor_node.rules.membership import gave_up_its_name
from igor_node.rules.node_loss import NODE_LOST_AFTER, OnNodeLoss, fallen_silent, is_lost
from igor_node.words import SECOND, NodeState, format_span

LOOK_EVERY_S = 0.5
LOST_A_BATCH = 1_000
TOPICS = ("attempts", "runs", "nodes", "jobs")

log = logging.getLogger("igor.leader.watch")


class NodeWatch:
    def __init__(self, reign: Reign, hub: Hub) -> None:
        self._reign = reign
        self._hub = hub
        self._read_at = -1
        self._nodes: list[NodeRow] = []
        self._attempts: list[OpenAttempt] = []
        self._came: dict[str, int] = {}  # node -> when it was first seen, of those that joined in this term: they were not silent before

    async def run(self) -> None:
        while True:
            await self.look()
            await self._reign.clock.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        if self._read_at < 0 or self._reign.changes.last(TOPICS) > self._read_at:
            await self._read()
        self._hub.dispatch(self._attempts)
        by_node: dict[str, list[OpenAttempt]] = {}
        for attempt in self._attempts:
            by_node.setdefault(attempt.node, []).append(attempt)
        for node in self._nodes:
            await self._judge(node, by_node.get(node.node, []))

    async def _read(self) -> None:
        def read(connection: sqlite3.Connection) -> tuple[list[NodeRow], list[OpenAttempt]]:
            return query_cluster.nodes(connection), query_attempts.open_attempts(connection)

        asked = self._reign.clock.monotonic_ns()
        first, known = self._read_at < 0 and not self._nodes, {node.node for node in self._nodes}
        self._read_at, (self._nodes, self._attempts) = await self._reign.reads.indexed(read)
        self._hub.leases.keep_only((attempt.attempt for attempt in self._attempts), asked)
        self._hub.keep_only((node.node for node in self._nodes), asked)
        if not first:
            self._came.update({node.node: asked for node in self._nodes if node.node not in known})

    async def _judge(self, node: NodeRow, attempts: Sequence[OpenAttempt]) -> None:
        now = self._reign.clock.monotonic_ns()
        heard = max(self._hub.heard_mono(node.node), self._came.get(node.node, 0))
        silent = fallen_silent(heard, now)
        lost = [attempt for attempt in attempts if self._is_lost(attempt, now)]
        given_up = [attempt for attempt in lost if attempt.on_node_loss == OnNodeLoss.WAIT]
        await self._lose(node, [attempt for attempt in lost if attempt not in given_up])
        await self._lose(node, given_up, decision=OnNodeLoss.FAIL)
        if not silent and node.state in (NodeState.SILENT, NodeState.LOST) and self._hub.was_heard(node.node):
            await self._say(node, NodeState.UP, "heard again")
        elif node.state == NodeState.LOST and not attempts and (reason := _reason_to_remove(node)):
            await self._reign.propose(RemoveNode(node=node.node, reason=reason))
            self._read_at = -1
        elif silent and node.state == NodeState.UP:
            await self._say(node, NodeState.SILENT, f"no heartbeat for {format_span((now - heard) // SECOND * SECOND)}")
        elif silent and node.state != NodeState.LOST and _is_gone(attempts, lost, now - heard):
            await self._say(node, NodeState.LOST, f"no sign of life for {format_span((now - heard) // SECOND * SECOND)}")

    def _is_lost(self, attempt: OpenAttempt, now: int) -> bool:
        if self._hub.leases.is_condemned(attempt.attempt):
            return False
        # `wait` leaves the process alone and so nothing is rerun; a cancel is recorded all the same when the lease is out (SEMANTICS, Pause): whoever
        # asked for it decided that nobody waits for that node, so it is proposed as such a decision.
        rule = OnNodeLoss.RERUN if attempt.cancel is not None else attempt.on_node_loss
        return is_lost(rule, attempt.lease_ns, self._hub.leases.renewed_at(attempt.attempt), self._reign.began_mono, now)

    async def _lose(self, node: NodeRow, lost: Sequence[OpenAttempt], decision: str = "") -> None:
        for start in range(0, len(lost), LOST_A_BATCH):
            names = tuple(attempt.attempt for attempt in lost[start : start + LOST_A_BATCH])
            self._hub.leases.condemn(names)
            log.warning("node %s gave no sign of %d attempts for their whole lease: they are lost", node.name, len(names))
            reason = f"node {node.name} did not renew the lease"
            await self._reign.propose(AttemptsLost(term=self._reign.term, attempts=names, reason=reason, decision=decision))

    async def _say(self, node: NodeRow, state: NodeState, reason: str) -> None:
        log.info("node %s is %s: %s", node.name, state, reason)
        await self._reign.propose(NodeChanged(node=node.node, state=state, reason=reason))
        self._read_at = -1


def _reason_to_remove(node: NodeRow) -> str:
    """Of a lost node about whose attempts nothing is to be decided any more; empty: it may come back."""
    if gave_up_its_name(node.name, node.node):
        return "another node has its name"
    return "it was ephemeral, and is lost" if node.ephemeral else ""


def _is_gone(attempts: Sequence[OpenAttempt], lost: Sequence[OpenAttempt], unheard: int) -> bool:
    """A silent node is lost with the last of its attempts, or where it has none, after a while."""
    if lost:
        return len(lost) == len(attempts)
    return unheard >= NODE_LOST_AFTER
