"""What will fire: the coming fires of many jobs in one order. The API's `/v1/upcoming`, `igor upcoming`, `igor plan` and the page show these."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from igor_node.rules.fires import Timetable
from igor_node.rules.pause import Pause

UPCOMING_LIMIT = 1_000
PAGE = 64  # fires asked of one timetable at a time


@dataclass(frozen=True, slots=True)
class Upcoming:
    job: str
    scheduled_at: int
    due_at: int
    paused: bool = False


def upcoming(jobs: Iterable[tuple[str, Timetable, Pause]], after: int, until: int, limit: int = UPCOMING_LIMIT) -> list[Upcoming]:
    """The first `limit` fires of all jobs with after < scheduled time <= until, by scheduled time, then by job."""
    streams = [_of_one(job, timetable, pause, after, until) for job, timetable, pause in jobs]
    merged = heapq.merge(*streams, key=lambda fire: (fire.scheduled_at, fire.job))
    return [fire for fire, _ in zip(merged, range(min(limit, UPCOMING_LIMIT)), strict=False)]


def _of_one(job: str, timetable: Timetable, pause: Pause, after: int, until: int) -> Iterator[Upcoming]:
    while page := timetable.between(after, until, PAGE):
        for fire in page:
            yield Upcoming(job, fire.scheduled_at, fire.due_at, pause.covers(fire.scheduled_at))
        after = page[-1].scheduled_at
