"""What a change of the clock does to a schedule, and why a schedule does not name a time: in words, for people.

The fires themselves come from `schedule.py`, which knows nothing of this module: what is said here is found by asking it again, without the calendar,
or about the hour on both sides of a change.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from igor_node.definitions.cron import parse
from igor_node.definitions.jobs import Job, Schedule
from igor_node.definitions.schedule import compile
from igor_node.definitions.zones import Zone, zone
from igor_node.words import SECOND, Instant, format_instant, format_span

FIRES_OF_A_CHANGE = 10_000  # of one job; the longest change there ever was is a day


class Change(NamedTuple):
    """A change of the clock at `at` (seconds since the epoch), from one offset to another."""

    at: int
    before: int
    after: int

    @property
    def length(self) -> int:
        return abs(self.after - self.before)


class Noted(NamedTuple):
    """A fire with what the change did to it. `kind`: gap | fold."""

    scheduled_at: Instant
    zone: str
    kind: str
    note: str


def changes(place: Zone, since_s: int, until_s: int) -> list[Change]:
    """Those with since <= at < until that move the clock."""
    starts, offsets = place.table(until_s)
    first = max(1, bisect_right(starts, since_s - 1))
    found = (Change(starts[index], offsets[index - 1], offsets[index]) for index in range(first, len(starts)) if starts[index] < until_s)
    return [change for change in found if change.length]


def note(schedule: Schedule, job_id: str, at: Instant) -> str:
    """Of a fire of the schedule: what a change of the clock has to do with it; empty: nothing."""
    noted = _noted(schedule, job_id, at)
    return "" if noted is None else noted.note


def notes(job: Job, since: Instant, until: Instant) -> Iterator[Noted]:
    """The job's fires with since <= time < until that a change of the clock moved, joined or doubled."""
    for schedule in job.schedules:
        if schedule.cron is None:
            continue
        for change in changes(zone(schedule.timezone), since // SECOND, -(-until // SECOND)):
            first, last = change.at - (change.length if change.after < change.before else 0), change.at + change.length
            for at in compile(schedule, job.id).between(Instant(first * SECOND - 1), Instant(last * SECOND - 1), FIRES_OF_A_CHANGE):
                noted = _noted(schedule, job.id, at)
                if noted is not None and since <= at < until:
                    yield noted


def _noted(schedule: Schedule, job_id: str, at: Instant) -> Noted | None:
    if schedule.cron is None:
        return None
    place, second = zone(schedule.timezone), at // SECOND
    day = 86_400
    for change in changes(place, second - day, second + day + 1):
        if change.after > change.before and second == change.at:
            missing = _missing(schedule, job_id, change)
            if missing:
                return Noted(at, place.name, "gap", f"{missing} does not exist on that day; it fires at the first instant after the gap")
        if change.after < change.before and change.at - change.length <= second < change.at + change.length:
            cron, wall = parse(schedule.cron, job_id or None), _wall(second, change.before if second < change.at else change.after)
            if second >= change.at:
                return Noted(at, place.name, "fold", f"{wall} comes twice on that day; this is the second time")
            again = " and at the second too" if cron.follows_clock or cron.repeats else ", and not at the second"
            return Noted(at, place.name, "fold", f"{wall} comes twice on that day; it fires at the first time{again}")
    return None


def _missing(schedule: Schedule, job_id: str, change: Change) -> str:
    """The first local time of the schedule that the change leaves out, as it would be without the change; empty where there is none."""
    assert schedule.cron is not None
    if parse(schedule.cron, job_id or None).follows_clock:
        return ""
    unchanged = msgspec.structs.replace(schedule, timezone="UTC", starts_at=None, ends_at=None)
    begin = (change.at + change.before) * SECOND
    found = compile(unchanged, job_id).next_after(Instant(begin - 1))
    missing = found is not None and found < begin + change.length * SECOND
    return _wall(found // SECOND, 0) if missing and found is not None else ""


def _wall(second: int, offset: int) -> str:
    local = datetime.fromtimestamp(0, UTC) + timedelta(seconds=second + offset)
    return f"{local:%H:%M:%S}" if local.second else f"{local:%H:%M}"


def why_not(schedule: Schedule, job_id: str, at: Instant) -> str:
    """Why the schedule does not name the time."""
    if schedule.starts_at is not None and at < schedule.starts_at:
        return f"it is before the schedule's starts_at, {format_instant(Instant(schedule.starts_at))}"
    if schedule.ends_at is not None and at >= schedule.ends_at:
        return f"it is not before the schedule's ends_at, {format_instant(Instant(schedule.ends_at))}"
    if schedule.at is not None:
        return f"it fires once, at {format_instant(Instant(schedule.at))}"
    if schedule.every_ns is not None:
        plain = msgspec.structs.replace(schedule, exclude=(), include=None)
        return _day_off(schedule, at) if _names(plain, job_id, at) else f"it is no multiple of {format_span(schedule.every_ns)} since 1970"
    plain = msgspec.structs.replace(schedule, exclude=(), include=None)
    if _names(plain, job_id, at):
        return _day_off(schedule, at)
    return _second_pass(plain, job_id, at) or f'"{schedule.cron}" does not match {_local(schedule, at)}'


def _names(schedule: Schedule, job_id: str, at: Instant) -> bool:
    return compile(schedule, job_id).next_after(Instant(at - 1)) == at


def _day_off(schedule: Schedule, at: Instant) -> str:
    day = f"{zone(schedule.timezone).local(at // SECOND):%Y-%m-%d}"
    return f"its calendar excludes {day}" if day in schedule.exclude else f"its calendar does not include {day}"


def _second_pass(schedule: Schedule, job_id: str, at: Instant) -> str:
    """Where its local time comes twice, and the schedule fired at the first."""
    second = at // SECOND
    for change in changes(zone(schedule.timezone), second - 86_400, second + 1):
        first = Instant(at - change.length * SECOND)
        if change.after < change.before and second < change.at + change.length and _names(schedule, job_id, first):
            return f"{_wall(second, change.after)} comes twice on that day, and it fires at the first time, {format_instant(first)}"
    return ""


def _local(schedule: Schedule, at: Instant) -> str:
    place = zone(schedule.timezone)
    local = f"{place.local(at // SECOND):%A %Y-%m-%d %H:%M:%S}"
    return f"{local}, {place.name} time" if place.name != "UTC" else f"{local} UTC"
