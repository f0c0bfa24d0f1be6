"""When a job's schedules fire: arithmetic on schedules and zones.

The leader, `audit`, `igor schedule`, `igor plan` and the page all call this module, so what people preview is what happens. No clock is read:
`after` and `until` are the caller's. The rules around a change of the clock are SEMANTICS, "Schedules": a plan walks the stretches of constant
offset of its zone, because what fires at a change depends on both sides of it. `compile` is cached, `Plan.next_after` costs some microseconds.
Units: an Instant is whole nanoseconds; within a plan times are whole seconds, local ones counted from 1970-01-01T00:00 on the wall.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from heapq import merge
from itertools import islice
from typing import Protocol

from igor_node.definitions.cron import BadExpression, Cron, days_in_month, parse
from igor_node.definitions.jobs import Job, Schedule
from igor_node.definitions.zones import DAY_S, EPOCH_ORDINAL, LAST_YEAR, Zone, zone
from igor_node.words import SECOND, Instant

COMPILED_PLANS = 262_144  # more than twice the 100,000 jobs that a cluster is built for; a plan is some 300 bytes
YEARS_AHEAD = 400  # the calendar repeats after that: what did not match by then never will


class Plan(Protocol):
    """When one schedule of one job fires."""

    def next_after(self, t: Instant) -> Instant | None:
        """The first fire strictly after `t`; None where there is none any more."""

    def between(self, after: Instant, until: Instant, limit: int) -> list[Instant]:
        """The first `limit` fires strictly after `after`, up to and with `until`."""


@dataclass(frozen=True, slots=True)
class DueFire:
    """One fire of a job. `due_at` is `scheduled_at` plus jitter; `schedule_index` is the schedule that named it (the first, where two do)."""

    scheduled_at: Instant
    due_at: Instant
    schedule_index: int


@lru_cache(maxsize=COMPILED_PLANS)
def compile(schedule: Schedule, job_id: str) -> Plan:
    """`job_id` is `project/name`; `H` and jitter are spread by it. Raises BadExpression or UnknownZone, which are ValueErrors."""
    place = zone(schedule.timezone)
    dates = Dates.of(schedule)
    if schedule.cron is not None:
        plan: Plan = CronPlan(parse(schedule.cron, job_id or None), place, dates)
    elif schedule.every_ns is not None:
        plan = EveryPlan(schedule.every_ns, place, dates)
    elif schedule.at is not None:
        plan = AtPlan(Instant(schedule.at), place, dates)
    else:
        raise BadExpression("the schedule is empty; expected one of cron, every, at")
    if schedule.starts_at is None and schedule.ends_at is None:
        return plan
    return BoundedPlan(plan, schedule.starts_at, schedule.ends_at)


def due_time(schedule: Schedule, job_id: str, scheduled: Instant) -> Instant:
    """The scheduled time plus its jitter, which is the same on every node and in every year: drawn from job and time by SHA-256."""
    if schedule.jitter_ns == 0:
        return scheduled
    digest = hashlib.sha256(f"{job_id}@{scheduled}".encode()).digest()
    return Instant(scheduled + int.from_bytes(digest[:8], "big") % schedule.jitter_ns)


def fires(job: Job, after: Instant, until: Instant, limit: int) -> list[DueFire]:
    """The first `limit` fires of all schedules of a job in (after, until], in order. Two schedules that name one instant make one fire."""
    if len(job.schedules) == 1:
        schedule = job.schedules[0]
        return [DueFire(at, due_time(schedule, job.id, at), 0) for at in compile(schedule, job.id).between(after, until, limit)]
    found: list[DueFire] = []
    for at, index in merge(*(_numbered(schedule, job.id, index, after, until, limit) for index, schedule in enumerate(job.schedules))):
        if len(found) == limit and found[-1].scheduled_at != at:
            break
        if not found or found[-1].scheduled_at != at:
            found.append(DueFire(at, due_time(job.schedules[index], job.id, at), index))
    return found


def next_fire(job: Job, after: Instant) -> DueFire | None:
    """The next fire of a job strictly after `after`."""
    best: tuple[Instant, int] | None = None
    for index, schedule in enumerate(job.schedules):
        at = compile(schedule, job.id).next_after(after)
        if at is not None and (best is None or at < best[0]):
            best = (at, index)
    if best is None:
        return None
    at, index = best
    return DueFire(at, due_time(job.schedules[index], job.id, at), index)


def zone_of_fire(job: Job, scheduled: Instant | None) -> str:
    """The zone whose date a run shows: that of the schedule which named the time, else of the first, else UTC."""
    for schedule in job.schedules:
        if scheduled is not None and compile(schedule, job.id).next_after(Instant(scheduled - 1)) == scheduled:
            return schedule.timezone
    return job.schedules[0].timezone if job.schedules else "UTC"


def shortest_interval_ns(schedule: Schedule, job_id: str) -> int | None:
    """The shortest time between two fires, changes of the clock left aside; None for `at`."""
    if schedule.every_ns is not None:
        return schedule.every_ns
    if schedule.cron is not None:
        return parse(schedule.cron, job_id or None).shortest_gap_s() * SECOND
    return None


def _numbered(schedule: Schedule, job_id: str, index: int, after: Instant, until: Instant, limit: int) -> Iterator[tuple[Instant, int]]:
    return ((at, index) for at in compile(schedule, job_id).between(after, until, limit))


class Dates:
    """Which dates a calendar allows. Lists are in order; `include` None allows every date that is not excluded."""

    def __init__(self, exclude: Sequence[str], include: Sequence[str] | None) -> None:
        self._exclude = _by_month(exclude)
        self._include = None if include is None else _by_month(include)
        self.last_month = (LAST_YEAR, 12) if self._include is None else max(self._include, default=(0, 0))
        ordinals = sorted(date.fromisoformat(text).toordinal() for text in include or ())
        self._included_days = [ordinal - EPOCH_ORDINAL for ordinal in ordinals]

    @classmethod
    def of(cls, schedule: Schedule) -> Dates | None:
        return cls(schedule.exclude, schedule.include) if schedule.exclude or schedule.include is not None else None

    def allowed(self, year: int, month: int, mask: int) -> int:
        """Those days of `mask` (bit 1 to 31) that the calendar allows in that month."""
        if self._include is not None:
            mask &= self._include.get((year, month), 0)
        return mask & ~self._exclude.get((year, month), 0)

    def next_day(self, day: int) -> int | None:
        """The first allowed day from `day` on (days since the epoch)."""
        while True:
            if self._include is not None:
                at = bisect_left(self._included_days, day)
                if at == len(self._included_days):
                    return None
                day = self._included_days[at]
            on = date.fromordinal(day + EPOCH_ORDINAL)
            if not self._exclude.get((on.year, on.month), 0) >> on.day & 1:
                return day
            day += 1


def _by_month(texts: Sequence[str]) -> dict[tuple[int, int], int]:
    masks: dict[tuple[int, int], int] = {}
    for text in texts:
        on = date.fromisoformat(text)
        masks[on.year, on.month] = masks.get((on.year, on.month), 0) | 1 << on.day
    return masks


class _Walk(ABC):
    """`between` by walking `next_after`."""

    __slots__ = ()

    @abstractmethod
    def next_after(self, t: Instant) -> Instant | None: ...

    def between(self, after: Instant, until: Instant, limit: int) -> list[Instant]:
        return list(islice(self._walk(after, until), limit))

    def _walk(self, after: Instant, until: Instant) -> Iterator[Instant]:
        at = self.next_after(after)
        while at is not None and at <= until:
            yield at
            at = self.next_after(at)


class CronPlan(_Walk):
    __slots__ = ("_cron", "_dates", "_zone")

    def __init__(self, cron: Cron, place: Zone, dates: Dates | None) -> None:
        self._cron, self._zone, self._dates = cron, place, dates

    def next_after(self, t: Instant) -> Instant | None:
        second = self._next_second(t // SECOND + 1)
        return None if second is None else Instant(second * SECOND)

    def _next_second(self, from_s: int) -> int | None:
        """The first fire at `from_s` or later.

        Within a stretch of constant offset, local time and instants go along: the next matching local time is the next fire. At its end there
        may be a gap (matching times in it fire at the first instant after) or a second pass (skipped, except for the plans that take part in it).
        """
        cron = self._cron
        starts, offsets = self._zone.table(from_s)
        index = bisect_right(starts, from_s - 1) - 1  # one second back, so that a fire in a gap that ends at `from_s` is seen
        local_from = from_s + offsets[index]
        if index and not (cron.follows_clock or cron.repeats):
            local_from = max(local_from, starts[index] + offsets[index - 1])  # the first pass has shown what is before
        local = self._next_local(local_from)
        while local is not None:
            at = local - offsets[index]
            if at >= starts[-1]:
                starts, offsets = self._zone.table(at)
            if index + 1 == len(starts) or at < starts[index + 1]:
                return at
            index += 1
            begin, begin_local = starts[index], starts[index] + offsets[index]
            if offsets[index] > offsets[index - 1]:
                if local < begin_local and not cron.follows_clock:
                    return begin
                if local < begin_local:
                    local = self._next_local(begin_local)
            elif cron.follows_clock or cron.repeats:
                local = self._next_local(begin_local)
        return None

    def _next_local(self, local: int) -> int | None:
        """The first matching local time at `local` or later."""
        day, of_day = divmod(local, DAY_S)
        time = self._next_time(of_day)
        if time is None:
            day += 1
        found = self._next_day(day)
        if found is None:
            return None
        if time is None or found != day:
            time = self._next_time(0)
            assert time is not None, "no field is ever empty"
        return found * DAY_S + time

    def _next_time(self, of_day: int) -> int | None:
        """The first matching second of a day at `of_day` or later."""
        cron = self._cron
        hour, rest = divmod(of_day, 3_600)
        minute, second = divmod(rest, 60)
        if not (cron.hours >> hour & 1 and cron.minutes >> minute & 1):
            second = 0
        later = cron.seconds >> second
        if later and cron.hours >> hour & 1 and cron.minutes >> minute & 1:
            return hour * 3_600 + minute * 60 + second + _lowest(later)
        minute = minute + 1 if cron.hours >> hour & 1 else 0
        later = cron.minutes >> minute
        if later and cron.hours >> hour & 1:
            return hour * 3_600 + (minute + _lowest(later)) * 60 + _lowest(cron.seconds)
        later = cron.hours >> hour + 1
        if later:
            return (hour + 1 + _lowest(later)) * 3_600 + _lowest(cron.minutes) * 60 + _lowest(cron.seconds)
        return None

    def _next_day(self, day: int) -> int | None:
        """The first matching day at `day` or later, in days since the epoch."""
        on = date.fromordinal(day + EPOCH_ORDINAL) if day < _END_OF_DAYS else None
        if on is None:
            return None
        year, month, first_day = on.year, on.month, on.day
        last_year, last_month = self._last_month(year)
        while (year, month) <= (last_year, last_month):
            mask = self._days(year, month) >> first_day
            if mask:
                return day + _lowest(mask)
            day += days_in_month(year, month) - first_day + 1
            first_day = 1
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
        return None

    def _last_month(self, year: int) -> tuple[int, int]:
        ahead = (min(year + YEARS_AHEAD, LAST_YEAR), 12)
        return ahead if self._dates is None else min(ahead, self._dates.last_month)

    def _days(self, year: int, month: int) -> int:
        mask = self._cron.days_of(year, month)
        return mask if self._dates is None or mask == 0 else self._dates.allowed(year, month, mask)


_END_OF_DAYS = date.max.toordinal() - EPOCH_ORDINAL  # the last day is left out: a zone east of Greenwich has it a day later


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


class EveryPlan(_Walk):
    """Multiples of the interval since the epoch. A calendar skips whole days of its zone at once."""

    __slots__ = ("_dates", "_every", "_zone")

    def __init__(self, every_ns: int, place: Zone, dates: Dates | None) -> None:
        self._every, self._zone, self._dates = every_ns, place, dates

    def next_after(self, t: Instant) -> Instant | None:
        at = t - t % self._every + self._every
        while self._dates is not None:
            second = at // SECOND
            local_day = (second + self._zone.offset(second)) // DAY_S
            day = self._dates.next_day(local_day)
            if day is None:
                return None
            if day == local_day:
                break
            begin = self._zone.first_instant(day * DAY_S) * SECOND
            at = -(-begin // self._every) * self._every
        return Instant(at)


class AtPlan(_Walk):
    __slots__ = ("_at",)

    def __init__(self, at: Instant, place: Zone, dates: Dates | None) -> None:
        second = at // SECOND
        day = (second + place.offset(second)) // DAY_S
        self._at = at if dates is None or dates.next_day(day) == day else None

    def next_after(self, t: Instant) -> Instant | None:
        return self._at if self._at is not None and t < self._at else None


class BoundedPlan(_Walk):
    """From `starts_at` on, and before `ends_at`."""

    __slots__ = ("_ends_at", "_plan", "_starts_at")

    def __init__(self, plan: Plan, starts_at: int | None, ends_at: int | None) -> None:
        self._plan, self._starts_at, self._ends_at = plan, starts_at, ends_at

    def next_after(self, t: Instant) -> Instant | None:
        after = t if self._starts_at is None else max(t, self._starts_at - 1)
        at = self._plan.next_after(Instant(after))
        return None if at is None or (self._ends_at is not None and at >= self._ends_at) else at
