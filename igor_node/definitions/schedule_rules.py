"""The schedules of a job: each must be one that fires, in a zone and with calendars that exist; compiled into `jobs.Schedule`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from igor_node.definitions import jobs as j
from igor_node.definitions import model as m
from igor_node.definitions.cron import BadExpression, parse
from igor_node.definitions.faults import Path, meant
from igor_node.definitions.judged import Failed, Judged, given
from igor_node.definitions.schedule import shortest_interval_ns
from igor_node.definitions.zones import UnknownZone, zone
from igor_node.words import SECOND, Instant, format_instant, format_span, parse_instant

LAST_INSTANT = parse_instant("2262-01-01T00:00:00Z")  # an instant must fit into 64 bits


class ScheduleRules(Judged):
    def schedules(self) -> Iterator[j.Schedule]:
        one, several = self.written.schedule, self.written.schedules
        if one is not None and several is not None:
            self.fault(("schedules",), "stands beside schedule; expected one of the two")
        parts: list[tuple[Path, m.Schedule]] = [] if one is None else [(("schedule",), one)]
        parts += [(("schedules", index), each) for index, each in enumerate(several or ())]
        for path, part in parts:
            try:
                yield self._schedule(part, path)
            except Failed:
                continue

    def _schedule(self, part: m.Schedule, path: Path) -> j.Schedule:
        before = len(self.faults)
        self._check_one_kind(part, path)
        timezone = self._timezone(part, path)
        starts_at, ends_at = (self._moment(part, path, field, timezone) for field in ("starts_at", "ends_at"))
        if starts_at is not None and ends_at is not None and ends_at <= starts_at:
            self.fault((*path, "ends_at"), "is not after starts_at; expected a later time")
        schedule = j.Schedule(
            cron=self._cron(part, path),
            every_ns=part.every,
            at=self._at(part, path, timezone),
            timezone=timezone,
            exclude=self._days(part, path, "exclude") or (),
            include=self._days(part, path, "include"),
            starts_at=starts_at,
            ends_at=ends_at,
            jitter_ns=part.jitter or 0,
            catch_up=j.CatchUp(**given(window_ns=part.catch_up.window, policy=part.catch_up.policy)) if part.catch_up else j.CatchUp(),
        )
        self._check_jitter(schedule, path)
        if len(self.faults) > before:
            raise Failed
        return schedule

    def _check_one_kind(self, part: m.Schedule, path: Path) -> None:
        kinds = [name for name in ("cron", "every", "at") if getattr(part, name) is not None]
        if not kinds:
            self.fault(path, "has none of cron, every, at; expected one of them, or no schedule for a job on demand")
        elif len(kinds) > 1:
            self.fault((*path, kinds[1]), f"stands beside {kinds[0]}; expected one of cron, every, at (several go into schedules:)")

    def _timezone(self, part: m.Schedule, path: Path) -> str:
        try:
            return zone(part.timezone).name if part.timezone is not None else "UTC"
        except UnknownZone as problem:
            self.fault((*path, "timezone"), str(problem))
            return "UTC"

    def _cron(self, part: m.Schedule, path: Path) -> str | None:
        try:
            return None if part.cron is None else parse(part.cron, self.id).text
        except BadExpression as problem:
            self.fault((*path, "cron"), str(problem))
            return None

    def _at(self, part: m.Schedule, path: Path, timezone: str) -> Instant | None:
        at = self._moment(part, path, "at", timezone)
        if at is not None and at <= self.now:
            self.fault((*path, "at"), f"{part.at} is in the past; expected a time after {format_instant(self.now // SECOND * SECOND)}")
        return at

    def _moment(self, part: m.Schedule, path: Path, field: str, timezone: str) -> Instant | None:
        text = getattr(part, field)
        if text is None:
            return None
        try:
            at = _instant(text, timezone if part.timezone is not None else None)
            if not 0 <= at < LAST_INSTANT:
                raise ValueError(f'"{text}" is out of range; expected a time from 1970 to 2261')
            return at
        except ValueError as problem:
            hint = "" if "; " in str(problem) else "; expected one like 2027-01-01T00:00:00Z"
            self.fault((*path, field), f"{problem}{hint}")
            return None

    def _days(self, part: m.Schedule, path: Path, field: str) -> tuple[str, ...] | None:
        names = getattr(part.calendar, field) if part.calendar is not None else None
        if names is None:
            return None
        if not names and field == "include":
            self.fault((*path, "calendar", field), "is empty, so that no day is left; expected the names of calendars")
        for index, name in enumerate(names):
            if name not in self.calendars and not self.faults.unread:
                hint = meant(name, self.calendars) if self.calendars else "expected a document of kind Calendar with that name"
                self.fault((*path, "calendar", field, index), f'no calendar is named "{name}"; {hint}')
        return tuple(sorted({day for name in names for day in self.calendars.get(name, ())}))

    def _check_jitter(self, schedule: j.Schedule, path: Path) -> None:
        interval = shortest_interval_ns(schedule, self.id) if schedule.jitter_ns else None
        if interval is not None and schedule.jitter_ns >= interval:
            what = f"{format_span(schedule.jitter_ns)} is not less than the interval; expected less than {format_span(interval)}"
            self.fault((*path, "jitter"), what)


def _instant(text: str, timezone: str | None) -> Instant:
    """A time with an offset, or the first instant that shows this local time in the zone."""
    if _LOCAL.fullmatch(text) is None:
        return parse_instant(text)
    if timezone is None:
        raise ValueError(f'"{text}" says no zone; expected an offset or Z at its end, or timezone: beside it')
    return Instant(zone(timezone).first_instant(parse_instant(f"{text}Z") // SECOND) * SECOND)


_LOCAL = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2})?", re.ASCII)
