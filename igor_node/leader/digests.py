"""Compares the digests of all members, those that heartbeats bring with the leader's own, and tells whoever differs (DESIGN §5, Divergence).

Each member's heartbeat names its newest mark: the digest at the last index that is a multiple of 1,000. Digests are chained, so who agrees with the
leader at an index agrees at all before it. `rules.divergence` judges each index at which somebody differs; the word goes down the stream of the node
that is wrong, also to the leader's own. That node looks at its ledger once more, stops, and takes a copy from another member at its next start
(ledger/distrust.py).
"""

from __future__ import annotations

import logging

from igor_node.leader.hub import Hub
from igor_node.leader.reign import Reign
from igor_node.ledger import query_digests
from igor_node.rules.divergence import who_differs
from igor_node.stream import Differs

LOOK_EVERY_S = 1.0

log = logging.getLogger("igor.leader.digests")


class Digests:
    def __init__(self, reign: Reign, hub: Hub) -> None:
        self._reign = reign
        self._hub = hub
        self._agreed: dict[str, int] = {}  # node -> the last index at which it had the leader's digest
        self._said: set[int] = set()  # indexes at which nobody could be called right, told once

    async def run(self) -> None:
        while True:
            await self.look()
            await self._reign.clock.sleep(LOOK_EVERY_S)

    async def look(self) -> list[str]:
        """The nodes that were told that they differ."""
        reign = self._reign
        kept = (await reign.reads.query(query_digests.digests)).marks
        own = {index: bytes.fromhex(digest) for index, digest in kept.items()}
        members = reign.replica.status().members
        told = []
        for index, digests in sorted(self._at_odds(own, members.ids()).items()):
            verdict = who_differs(digests, {voter.id for voter in members.voters})
            if verdict.undecided and index not in self._said:
                self._said.add(index)
                log.error("the ledgers of the voters differ at entry %d and no majority agrees; nothing is done about it: see igor verify", index)
            for node in sorted(verdict.differ):
                self._tell(node, index, digests[min(verdict.agree)])
                told.append(node)
        return told

    def _at_odds(self, own: dict[int, bytes], members: frozenset[str]) -> dict[int, dict[str, bytes]]:
        """Digests by index and node, of the indexes at which somebody does not have the leader's."""
        marks = {node: mark for node, mark in self._hub.marks().items() if node in members and node != self._reign.node and mark.entry in own}
        agree = {node: mark.entry for node, mark in marks.items() if mark.digest == own[mark.entry]}
        self._agreed.update(agree)
        found: dict[int, dict[str, bytes]] = {}
        for node, mark in marks.items():
            if node not in agree:
                as_leader = [self._reign.node, *(one for one, index in agree.items() if index >= mark.entry)]
                found.setdefault(mark.entry, dict.fromkeys(as_leader, own[mark.entry]))[node] = mark.digest
        return found

    def _tell(self, node: str, index: int, right: bytes) -> None:
        after = max(self._agreed.values(), default=0) if node == self._reign.node else self._agreed.get(node, 0)
        log.error("the ledger of node %s differs from the majority's, by an entry from %d to %d; it is told to stop", node, after + 1, index)
        self._hub.tell(node, Differs(term=self._reign.term, after=after, upto=index, digest=right))
