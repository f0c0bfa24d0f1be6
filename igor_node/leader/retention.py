"""Retention: proposes to forget what is older than it is kept. Each entry forgets a bounded number, so it goes on until nothing old is left."""

from __future__ import annotations

import sqlite3

from igor_node.leader.reign import Reign
from igor_node.ledger import query_prune
from igor_node.ledger.apply_staged import STAGED_KEPT_NS
from igor_node.ledger.commands import Done, Prune
from igor_node.ledger.query_prune import Ages
from igor_node.words import SECOND, id_time

LOOK_EVERY_S = 60.0
MORE_AFTER_S = 0.2  # between two entries while there is more: a thousand runs a second, and forgetting never crowds out scheduling
DAY = 86_400 * SECOND
RUNS_KEPT_FOR = 90 * DAY
RUNS_KEPT = 1_000_000
RESULTS_KEPT_FOR = DAY
EVENTS_KEPT_FOR = DAY
ACTIVITY_KEPT_FOR = 400 * DAY  # a year, and the weeks in which somebody asks about it


class Retention:
    def __init__(self, reign: Reign) -> None:
        self._reign = reign

    async def run(self) -> None:
        while True:
            pruned = await self.look()
            await self._reign.clock.sleep(MORE_AFTER_S if pruned else LOOK_EVERY_S)

    async def look(self) -> bool:
        """One entry where something is older than it is kept. True where something was forgotten, so that there may be more."""
        now = self._reign.clock.now()
        ages, created_before = await self._reign.reads.query(_what_is_kept)
        prune = cutoffs(now, created_before)
        if not is_due(ages, prune, now):
            return False
        answer = await self._reign.propose(prune)
        return isinstance(answer, Done) and any(answer.value.values())


def cutoffs(now: int, created_before: int | None) -> Prune:
    """`created_before`: up to where runs are too many, where they are."""
    return Prune(
        runs_before=now - RUNS_KEPT_FOR,
        created_before=created_before or 0,
        results_before=now - RESULTS_KEPT_FOR,
        events_before=now - EVENTS_KEPT_FOR,
        activity_before=now - ACTIVITY_KEPT_FOR,
    )


def is_due(ages: Ages, prune: Prune, now: int) -> bool:
    return (
        prune.created_before > 0
        or (ages.oldest_run_created_at is not None and ages.oldest_run_created_at < prune.runs_before)
        or (ages.oldest_result is not None and _made_at(ages.oldest_result) < prune.results_before)
        or (ages.oldest_event_at is not None and ages.oldest_event_at < prune.events_before)
        or (ages.oldest_activity_at is not None and ages.oldest_activity_at < prune.activity_before)
        or (ages.oldest_staged_at is not None and ages.oldest_staged_at < now - STAGED_KEPT_NS)
    )


def _made_at(identifier: str) -> int:
    try:
        return id_time(identifier)
    except ValueError:
        return 0


def _what_is_kept(connection: sqlite3.Connection) -> tuple[Ages, int | None]:
    return query_prune.ages(connection), query_prune.created_before(connection, RUNS_KEPT)
