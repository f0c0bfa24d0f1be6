"""The backfills loop: has the next runs of each backfill made, as soon as its job's overlap policy has room for them."""

from __future__ import annotations

from igor_node.leader.reign import Reign
from igor_node.ledger import query_backfills
from igor_node.ledger.commands import BackfillRuns
from igor_node.words import new_id

TOPICS = ("backfills", "runs", "jobs")
IDLE_S = 5.0
PACE_S = 0.1  # between two looks: under load runs end all the time
RUNS_A_STEP = 100  # of one backfill


class Backfills:
    def __init__(self, reign: Reign) -> None:
        self._reign = reign

    async def run(self) -> None:
        while True:
            index = await self.look()
            await self._reign.clock.sleep(PACE_S)
            await self._reign.change(TOPICS, index, IDLE_S)

    async def look(self) -> int:
        index, steps = await self._reign.reads.indexed(query_backfills.steps)
        for step in steps:
            now = self._reign.clock.now()
            runs = tuple(new_id(now) for _ in range(min(step.runs, RUNS_A_STEP)))
            await self._reign.propose(BackfillRuns(term=self._reign.term, backfill=step.backfill, runs=runs))
        return index
