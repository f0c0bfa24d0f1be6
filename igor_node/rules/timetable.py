"""The fires of one job as the other rules ask for them: all its schedules merged, with the catch-up rule of each.

`JobTimetable` is a thin view on `definitions/schedule.py`, whose compiled plans are cached: making one costs nothing. `ChangedTimetable` is that of a
job whose schedule was changed by a push: up to the push the old one speaks, after it the new one, so that no schedule ever names a time before
it was there, and none that it named before it went is forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from igor_node.definitions.jobs import CatchUp, Job
from igor_node.definitions.schedule import DueFire, compile, fires, next_fire
from igor_node.words import Instant

SCHEDULES_LIMIT = 1_000  # of one job: in a changed timetable the number of a schedule says which part it is of


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


class Part(NamedTuple):
    """What a timetable said for after < scheduled time <= until (None: still says)."""

    after: int
    until: int | None
    timetable: JobTimetable

    def holds(self, scheduled_at: int | None) -> bool:
        return scheduled_at is not None and (self.until is None or scheduled_at <= self.until)


class ChangedTimetable:
    """Satisfies `rules.fires.Timetable`. `parts` in the order of time, without overlap; the last one is open."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = tuple(parts)

    def between(self, after: int, until: int, limit: int) -> Sequence[DueFire]:
        found: list[DueFire] = []
        for number, part in enumerate(self._parts):
            end = until if part.until is None else min(until, part.until)
            if len(found) < limit and max(after, part.after) < end:
                page = part.timetable.between(max(after, part.after), end, limit - len(found))
                found += [replace(fire, schedule_index=number * SCHEDULES_LIMIT + fire.schedule_index) for fire in page]
        return found

    def next_after(self, after: int, schedule: int | None = None) -> int | None:
        if schedule is not None:
            number, own = divmod(schedule, SCHEDULES_LIMIT)
            part = self._parts[number]
            at = part.timetable.next_after(max(after, part.after), own)
            return at if part.holds(at) else None
        found = (part.timetable.next_after(max(after, part.after)) if part.holds(after + 1) else None for part in self._parts)
        return min((at for at, part in zip(found, self._parts, strict=True) if at is not None and part.holds(at)), default=None)

    def catch_up(self, schedule: int) -> CatchUp:
        number, own = divmod(schedule, SCHEDULES_LIMIT)
        return self._parts[number].timetable.catch_up(own)

    @property
    def longest_window_ns(self) -> int:
        return max(part.timetable.longest_window_ns for part in self._parts)
