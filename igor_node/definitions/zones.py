"""Time zones from the pinned `tzdata` package, as tables of offsets: never from the system's database.

`schedule.py` walks a zone's stretches of constant offset, because what happens at a change of the clock depends on both sides of it; `zoneinfo`
keeps that table to itself, so the compiled files (RFC 9636) are read here. After the last change in a file its footer gives the rule of all
later years. A test compares every zone with `zoneinfo.ZoneInfo`. Names are matched in exact case against tzdata's own list.
Units: whole seconds since the epoch, offsets in seconds east of Greenwich.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib import resources
from typing import NamedTuple

DAY_S = 86_400
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
BEGINNING = -(1 << 62)  # the first stretch of a zone has no beginning
RULE_YEARS = 50  # how many years of a footer's rule are laid out at a time
LAST_YEAR = 9_999  # what a date can hold


class UnknownZone(ValueError):
    """The text says which name is wrong and which one may have been meant."""


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """The names of the pinned tzdata."""
    return frozenset(resources.files("tzdata").joinpath("zones").read_text("ascii").split())


def tzdata_version() -> str:
    import tzdata  # type: ignore[import-untyped, unused-ignore]

    return str(tzdata.__version__)


@cache  # at most as many as there are names
def zone(name: str) -> Zone:
    """The zone of that name. Raises UnknownZone."""
    if name not in zone_names():
        raise UnknownZone(_unknown(name))
    data = resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()
    starts, offsets, last_change, footer = _read(data)
    return Zone(name, starts, offsets, _Rule.parse(footer), last_change)


def _unknown(name: str) -> str:
    by_folded = {known.casefold(): known for known in zone_names()}
    if exact := by_folded.get(name.casefold()):
        return f'"{name}" is not a time zone; did you mean "{exact}"?'
    close = get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.75)
    if close:
        return f'"{name}" is not a time zone; did you mean "{by_folded[close[0]]}"?'
    return f'"{name}" is not a time zone; expected an IANA name like Europe/Berlin'


class Zone:
    """`table()` is (starts, offsets): stretch i lasts from starts[i] up to starts[i + 1] and shows UTC + offsets[i]."""

    def __init__(self, name: str, starts: list[int], offsets: list[int], rule: _Rule | None, last_change: int) -> None:
        self.name = name
        self._rule = rule
        self._rule_from = last_change  # the footer speaks only of what comes after the file's last change, also where that changes a name alone
        # One attribute, replaced as a whole: readers in other threads see an old table or a new one, never a mixture.
        self._laid = (tuple(starts), tuple(offsets), _end_of_year(LAST_YEAR) if rule is None else BEGINNING)

    def table(self, until: int) -> tuple[Sequence[int], Sequence[int]]:
        """The table, complete for all instants up to `until` (up to the end of year 9999)."""
        starts, offsets, known_until = self._laid
        if until >= known_until:
            starts, offsets, _ = self._laid = self._lay_out(until)
        return starts, offsets

    def offset(self, instant_s: int) -> int:
        starts, offsets = self.table(instant_s)
        return offsets[bisect_right(starts, instant_s) - 1]

    def local(self, instant_s: int) -> datetime:
        """What a clock on the wall there shows (no zone attached)."""
        return datetime(1970, 1, 1) + timedelta(seconds=instant_s + self.offset(instant_s))  # noqa: DTZ001 - local time is the point

    def first_instant(self, local_s: int) -> int:
        """The first instant that shows this local time, or the first one after the gap that swallows it."""
        starts, offsets = self.table(local_s + 2 * DAY_S)
        index = max(bisect_right(starts, local_s - 2 * DAY_S) - 1, 0)
        while True:
            at_end = starts[index + 1] if index + 1 < len(starts) else None
            if at_end is None or local_s - offsets[index] < at_end:
                return max(local_s - offsets[index], starts[index])
            index += 1

    def _lay_out(self, until: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        starts, offsets, known_until = self._laid
        if self._rule is None:
            return self._laid
        year = _year_of(max(self._rule_from, known_until))
        last = min(max(_year_of(until), 2026) + RULE_YEARS, LAST_YEAR)
        new_starts, new_offsets = list(starts), list(offsets)
        for each in range(year, last + 1):
            for at, offset in self._rule.changes(each):
                if at > max(self._rule_from, new_starts[-1]) and offset != new_offsets[-1]:
                    new_starts.append(at)
                    new_offsets.append(offset)
        return tuple(new_starts), tuple(new_offsets), _end_of_year(last)


class _Date(NamedTuple):
    """`Mm.w.d/time` of a footer: weekday d (0 is Sunday) of week w (5 is the last) of month m, at `time` seconds of local time."""

    month: int
    week: int
    weekday: int
    time_s: int

    def local(self, year: int) -> int:
        first = date(year, self.month, 1)
        days = _month_days(year, self.month)
        day = 1 + (self.weekday - first.isoweekday()) % 7 + 7 * (self.week - 1)
        while day > days:
            day -= 7
        return (first.toordinal() - EPOCH_ORDINAL + day - 1) * DAY_S + self.time_s


class _Rule(NamedTuple):
    """The two changes of each year that a footer names."""

    standard: int
    summer: int
    begins: _Date
    ends: _Date

    def changes(self, year: int) -> list[tuple[int, int]]:
        return sorted([(self.begins.local(year) - self.standard, self.summer), (self.ends.local(year) - self.summer, self.standard)])

    @classmethod
    def parse(cls, footer: str) -> _Rule | None:
        """None where the footer names one offset for ever: the table's last stretch holds it already."""
        if "," not in footer:
            return None
        match = _FOOTER.fullmatch(footer)
        if match is None:
            raise ValueError(f"cannot read the rule {footer!r} of the time zone data")
        standard = -_seconds(match["standard"])
        summer = -_seconds(match["summer"]) if match["summer"] else standard + 3_600
        return cls(standard, summer, _parse_date(match["begins"]), _parse_date(match["ends"]))


_FOOTER = re.compile(
    r"(?:<[^>]+>|[A-Za-z]+)(?P<standard>[-+]?[\d:]+)(?:<[^>]+>|[A-Za-z]+)(?P<summer>[-+]?[\d:]+)?,(?P<begins>M[^,]+),(?P<ends>M[^,]+)"
)


def _parse_date(text: str) -> _Date:
    day, _, time = text[1:].partition("/")
    month, week, weekday = (int(part) for part in day.split("."))
    return _Date(month, week, weekday, _seconds(time) if time else 7_200)


def _seconds(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    parts = [int(part) for part in text.lstrip("+-").split(":")] + [0, 0]
    return sign * (parts[0] * 3_600 + parts[1] * 60 + parts[2])


def _read(data: bytes) -> tuple[list[int], list[int], int, str]:
    """The 64-bit block of a compiled zone: its stretches, the time of its last change, its footer. Changes of the name alone make no stretch."""
    first = _Header.read(data, 0)
    header = _Header.read(data, first.end(time_bytes=4))
    at = header.begin
    times = struct.unpack_from(f">{header.times}q", data, at)
    kinds = data[at + 8 * header.times : at + 9 * header.times]
    at += 9 * header.times
    kind_offsets = [struct.unpack_from(">l", data, at + 6 * kind)[0] for kind in range(header.kinds)]
    starts, offsets = [BEGINNING], [kind_offsets[0]]
    for time, kind in zip(times, kinds, strict=True):
        if kind_offsets[kind] != offsets[-1]:
            starts.append(time)
            offsets.append(kind_offsets[kind])
    return starts, offsets, times[-1] if times else BEGINNING, data[header.end(time_bytes=8) :].strip(b"\n").decode("ascii")


class _Header(NamedTuple):
    begin: int  # of what follows the header
    ut: int
    standard: int
    leaps: int
    times: int
    kinds: int
    letters: int

    @classmethod
    def read(cls, data: bytes, at: int) -> _Header:
        if data[at : at + 4] != b"TZif":
            raise ValueError("not a compiled time zone")
        return cls(at + 44, *struct.unpack_from(">6l", data, at + 20))

    def end(self, *, time_bytes: int) -> int:
        return self.begin + self.times * (time_bytes + 1) + self.kinds * 6 + self.letters + self.leaps * (time_bytes + 4) + self.standard + self.ut


def _month_days(year: int, month: int) -> int:
    return 31 if month in (1, 3, 5, 7, 8, 10, 12) else 30 if month != 2 else 29 if year % 4 == 0 and (year % 100 or year % 400 == 0) else 28


def _year_of(instant_s: int) -> int:
    day = instant_s // DAY_S + EPOCH_ORDINAL
    return date.fromordinal(min(max(day, 1), date.max.toordinal())).year


def _end_of_year(year: int) -> int:
    return (date(year, 12, 31).toordinal() - EPOCH_ORDINAL + 1) * DAY_S
