"""A leader whose clock cannot be trusted does not schedule: it says so and hands over (DESIGN §5, Time).

Two things are looked at, all the time. *Steps:* the wall clock against the clock that never steps; more than `JUMP` is taken for an accident, and
until it is believed the node goes on by the steady one (`edges.Clock`), so that no stepped time gets into the ledger. *Agreement:* the distance
from the median of the voters' clocks, by the rule of `rules/clocks.py`; a young leader schedules nothing until a majority of the voters has agreed,
or `AGREEMENT_WAIT_S` has passed without enough of them, or `DISPUTE_WAIT_S` where those that were heard differ.

A leader that is alone has no other clock to trust: it says so and goes on by its new time. So does one that nobody relieves for `PATIENCE` looks.
Nodes whose clocks are off work: what they start they start by the leader's clock. Here they are named, once.
"""

from __future__ import annotations

import logging

from igor_node.edges import JUMP
from igor_node.leader.hub import Hub
from igor_node.leader.reign import Reign
from igor_node.rules.clocks import LIMIT, Judged, Verdict, judge
from igor_node.words import SECOND
from raft.interface import NotLeader, Unknown

LOOK_EVERY_S = 1.0
DOUBT_LOOK_S = 0.05
AGREEMENT_WAIT_S = 2.0  # less than the lookahead, so that what is due in the meantime starts in time
DISPUTE_WAIT_S = 10.0  # of two clocks that differ; a third may come back and say which is wrong
HAND_OVER_TIMEOUT_S = 5.0
PATIENCE = 10  # looks

log = logging.getLogger("igor.leader.time")


class Timekeeping:
    def __init__(self, reign: Reign, hub: Hub) -> None:
        self._reign = reign
        self._hub = hub
        self._in_vain = 0  # hand-overs that nobody took
        self._named: set[str] = set()  # nodes whose clocks were said to be off

    def begin(self) -> None:
        """What it has to know before the first fire is decided."""
        self._doubt(self._judged())

    async def run(self) -> None:
        while True:
            await self._reign.clock.sleep(DOUBT_LOOK_S if self._reign.time_in_doubt else LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        self._name_nodes()
        if abs(jump := self._reign.clock.jump()) > JUMP:
            await self._hand_over(f"the wall clock of this machine jumped by {jump / SECOND:.3f} s", None)
            return
        judged = self._judged()
        self._doubt(judged)
        if judged.verdict is Verdict.OFF:
            await self._hand_over(f"this machine's clock is {judged.by / SECOND:.3f} s off the median of the voters' clocks", judged.successor)
        elif judged.verdict is Verdict.AGREES:
            self._in_vain = 0

    def _judged(self) -> Judged:
        reign = self._reign
        voters = [member.id for member in reign.replica.status().members.voters]
        readings = self._hub.readings()
        return judge(len(voters), {node: readings[node] for node in voters if node in readings and node != reign.node})

    def _doubt(self, judged: Judged) -> None:
        disputed = any(abs(reading.error) - reading.within > LIMIT for reading in self._hub.readings().values())
        young = self._reign.age_s < (DISPUTE_WAIT_S if disputed else AGREEMENT_WAIT_S)
        self._reign.time_in_doubt = (judged.verdict is Verdict.OFF and self._in_vain < PATIENCE) or (judged.verdict is Verdict.UNKNOWN and young)

    async def _hand_over(self, why: str, to: str | None) -> None:
        reign = self._reign
        if self._in_vain in (0, PATIENCE):
            log.error("%s; handing over the leadership", why)
        if await self._transferred(to):
            return
        self._in_vain += 1
        alone = len(reign.replica.status().members.voters) <= 1
        if alone or self._in_vain >= PATIENCE:
            log.error("nobody could take over the leadership; going on by this machine's clock")
            reign.clock.believe()
        else:
            await reign.clock.sleep(LOOK_EVERY_S)

    async def _transferred(self, to: str | None) -> bool:
        try:
            return await self._reign.replica.transfer_leadership(to, HAND_OVER_TIMEOUT_S)
        except (NotLeader, Unknown):
            return False

    def _name_nodes(self) -> None:
        readings = self._hub.readings()
        off = {node for node, reading in readings.items() if abs(reading.error) - reading.within > LIMIT}
        for node in sorted(off - self._named):
            log.warning(
                "the clock of node %s is %.3f s off this leader's; what it starts it starts by the leader's", node, readings[node].error / SECOND
            )
        self._named = off
