"""A leader whose wall clock jumps does not schedule: it says so and hands over (DESIGN §5, Time).

Each second the wall clock's way is compared with that of the clock that never steps. A difference of more than `JUMP` between two looks is a
jump; slewing and drift are far below it. The fires loop asks before each batch, so nothing is decided by a jumped clock. A leader that is
alone cannot hand over: it says so and goes on by its new time, because on a single machine there is no other clock to trust.
"""

from __future__ import annotations

import logging

from igor_node.leader.reign import JUMP, Reign
from igor_node.words import SECOND

LOOK_EVERY_S = 1.0
HAND_OVER_TIMEOUT_S = 5.0

log = logging.getLogger("igor.leader.time")


class Timekeeping:
    def __init__(self, reign: Reign) -> None:
        self._reign = reign

    async def run(self) -> None:
        while True:
            await self._reign.clock.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> bool:
        """True where the clock has jumped."""
        jump = self._reign.wall_jump()
        if abs(jump) <= JUMP:
            self._reign.wall_offset += jump
            return False
        log.error("the wall clock of this machine jumped by %.3f s; handing over the leadership", jump / SECOND)
        if not await self._reign.replica.transfer_leadership(None, HAND_OVER_TIMEOUT_S):
            log.error("nobody could take over the leadership; going on by the new time")
            self._reign.wall_offset += jump
        return True
