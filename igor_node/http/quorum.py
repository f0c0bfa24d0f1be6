"""How old a read may be: the time since this node last heard a leader, or led with a lease.

A node without a quorum still answers reads; `Igor-Age` and `/v1/cluster` say how old they are. One task looks twice a second, so the age is at most
half a second too large.
"""

from __future__ import annotations

import asyncio

from igor_node.edges import Clock
from igor_node.http.services import Replica
from igor_node.words import SECOND

LOOK_S = 0.5


class Heard:
    def __init__(self, replica: Replica, clock: Clock) -> None:
        self._replica = replica
        self._clock = clock
        self._last_ns = clock.monotonic_ns()

    async def watch(self) -> None:
        while True:
            self.age_s()
            await asyncio.sleep(LOOK_S)

    def age_s(self) -> float:
        """0 while there is a quorum."""
        now = self._clock.monotonic_ns()
        if self._replica.status().quorum:
            self._last_ns = now
            return 0.0
        return (now - self._last_ns) / SECOND


def why_none(replica: Replica) -> str:
    """What a refused write tells a person about the missing leader."""
    status = replica.status()
    if status.halted:
        return f"this node has stopped: {status.halted}"
    voters = [member.id for member in status.members.voters]
    reached = sum(1 for voter in voters if (peer := status.peers.get(voter)) is None or peer.connected)
    if not voters:
        return "no leader is known: this node is in no quorum and reaches no other node"
    if reached <= len(voters) // 2:
        return f"no quorum: {reached} of {len(voters)} voters can be reached from here, {len(voters) // 2 + 1} are needed"
    return f"no leader: {reached} of {len(voters)} voters can be reached, they are electing one"
