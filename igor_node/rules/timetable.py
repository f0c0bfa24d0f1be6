"""The fires of one job as the other rules ask for them: all its schedules merged, with the catch-up rule of each.

A thin view on `definitions/schedule.py`, whose compiled plans are cached: making a `JobTimetable` costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from igor_node.definitions.jobs import CatchUp, Job
from igor_node.definitions.schedule import DueFire, compile, fires, next_fire
from igor_node.words import Instant


class JobTimetable:
    """Satisfies `rules.fires.Timetable`."""

    __slots__ = ("_job",)

    def __init__(self, job: Job) -> None:
        self._job = job

    def between(self, after: int, until: int, limit: int) -> Sequence[DueFire]:
        return fires(self._job, Instant(after), Instant(until), limit)

    def next_after(self, after: int, schedule: int | None = None) -> int | None:
        if schedule is not None:
            return compile(self._job.schedules[schedule], self._job.id).next_after(Instant(after))
        fire = next_fire(self._job, Instant(after))
        return None if fire is None else fire.scheduled_at

    def catch_up(self, schedule: int) -> CatchUp:
        return self._job.schedules[schedule].catch_up

    @property
    def longest_window_ns(self) -> int:
        return max((schedule.catch_up.window_ns for schedule in self._job.schedules), default=0)
