"""The leader: all loops of one term in one task group, from the first entry of the term to the loss of the leadership.

`node.py` calls `serve` for each term that `Replica.leadership()` yields. A loop that fails by a mistake of ours is logged with its name and begun
again: a fault in one concern must not stop the others. Reading order: reign.py, fires.py, placement.py, hub.py, leases.py, watch.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from igor_node.edges import Clock
from igor_node.leader.autopilot import Autopilot
from igor_node.leader.backfills import Backfills
from igor_node.leader.digests import Digests
from igor_node.leader.fires import FiresLoop
from igor_node.leader.hub import Hub, LiveView, NodeStreams
from igor_node.leader.needs import Ledger, Reads, Replica
from igor_node.leader.placement import PlacementLoop
from igor_node.leader.reign import Deposed, Reign
from igor_node.leader.retention import Retention
from igor_node.leader.rotation import Rotation
from igor_node.leader.timekeeping import Timekeeping
from igor_node.leader.versions import Versions
from igor_node.leader.watch import NodeWatch
from igor_node.ledger.changes import Changes
from igor_node.trust.keys import Keys
from raft.interface import Halted, Term

RESTART_S = 1.0  # between the failure of a loop and its next begin

log = logging.getLogger("igor.leader")

Loop = tuple[str, Callable[[], Callable[[], Awaitable[None]]]]


class Leader:
    """`streams` is given to `http` for the nodes' WebSockets; `renew` and `views` too."""

    def __init__(
        self,
        *,
        node: str,
        replica: Replica,
        ledger: Ledger,
        reads: Reads,
        changes: Changes,
        clock: Clock,
        keys: Keys,
        leader_address: Callable[[], str | None],
        epoch: int = 0,
        tls: bool = False,
    ) -> None:
        self._node = node
        self._replica = replica
        self._ledger = ledger
        self._reads = reads
        self._changes = changes
        self._clock = clock
        self._keys = keys
        self._tls = tls
        self._epoch = epoch
        self.streams = NodeStreams(leader_address)

    async def serve(self, term: Term) -> None:
        """Returns when this node does not lead the term any more."""
        reign = Reign(term, self._node, self._replica, self._ledger, self._reads, self._changes, self._clock, self._keys, self._epoch, self._tls)
        hub = Hub(reign)
        log.info("leading term %d", term)
        self._clock.guard(True)
        self.streams.begin(hub)
        try:
            await self._run_all(reign, hub)
        finally:
            self.streams.end()
            self._clock.guard(False)
            log.info("not leading term %d any more", term)

    def renew(self, attempt: str, token: str) -> bool:
        return self.streams.renew(attempt, token)

    def views(self) -> list[LiveView]:
        return self.streams.views()

    async def _run_all(self, reign: Reign, hub: Hub) -> None:
        timekeeping = Timekeeping(reign, hub)
        timekeeping.begin()  # before anything is scheduled
        loops: list[Loop] = [
            ("fires", lambda: FiresLoop(reign).run),
            ("placement", lambda: PlacementLoop(reign, hub).run),
            ("watch", lambda: NodeWatch(reign, hub).run),
            ("autopilot", lambda: Autopilot(reign, hub).run),
            ("retention", lambda: Retention(reign).run),
            ("versions", lambda: Versions(reign, hub).run),
            ("digests", lambda: Digests(reign, hub).run),
            ("timekeeping", lambda: timekeeping.run),
            ("rotation", lambda: Rotation(reign, hub).run),
            ("backfills", lambda: Backfills(reign).run),
        ]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._until_lost(reign.term), name="until the leadership is lost")
                for name, make in loops:
                    group.create_task(self._keep_going(name, make), name=name)
        except* (Deposed, Halted) as over:
            log.info("%s", over.exceptions[0])

    async def _until_lost(self, term: Term) -> None:
        await self._replica.lost(term)
        raise Deposed(f"the leadership of term {term} is lost")

    async def _keep_going(self, name: str, make: Callable[[], Callable[[], Awaitable[None]]]) -> None:
        """The edge of each loop's task. `make` builds the loop anew, so that it begins from the ledger."""
        while True:
            try:
                await make()()
            except (Deposed, Halted):
                raise
            except Exception:
                log.exception("the leader's loop for %s failed and begins again", name)
                await self._clock.sleep(RESTART_S)
