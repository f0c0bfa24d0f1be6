"""The cron dialect: an expression becomes sets of seconds, minutes, hours and months, and a rule for the days of a month.

Pure arithmetic on a calendar: no zone and no clock here, `schedule.py` adds both. Sets are bit masks (bit n for value n), so the next value of
a field is a shift. Dialect: SEMANTICS, "Schedules". croniter is not asked: it differs from that dialect in `LW`, `nL`, `?`, wrapping ranges and
steps, and agreeing with half of a field would need the same code twice; the tests compare both where they should agree.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from functools import lru_cache

EXPRESSION_LIMIT = 1_000  # characters; the longest sensible list of minutes has 180
PARSED_EXPRESSIONS = 65_536  # jobs mostly share a few; one that is not kept costs about 20 µs again

MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
MONTH_NAMES = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAY_NAMES = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
LAST_DAY_HASHED = 28  # `H` picks a day that every month has


class BadExpression(ValueError):
    """What is wrong with which field, and what was expected."""


@dataclass(frozen=True)
class Field:
    """`low..high` is the field's ring: a range may run over its end, an open step (`5/10`) stops at it."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    hash_high: int = 0  # the highest value that `H` picks
    top: int = 0  # the highest number that may be written: 7 is Sunday too

    @property
    def length(self) -> int:
        return self.high - self.low + 1


SECOND = Field("second", 0, 59, hash_high=59, top=59)
MINUTE = Field("minute", 0, 59, hash_high=59, top=59)
HOUR = Field("hour", 0, 23, hash_high=23, top=23)
DAY = Field("day of month", 1, 31, hash_high=LAST_DAY_HASHED, top=31)
MONTH = Field("month", 1, 12, MONTH_NAMES, hash_high=12, top=12)
WEEKDAY = Field("day of week", 0, 6, DAY_NAMES, hash_high=6, top=7)
FIELDS = (SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY)
DAY_FIELDS = (DAY, WEEKDAY)


@dataclass(frozen=True)
class Days:
    """Which days of a month match. `weekdays` has bit 0 for Sunday; `nth` and `last` are (weekday, k) and weekdays."""

    numbers: int = 0
    from_last: tuple[int, ...] = ()  # L is 0, L-3 is 3
    workdays: tuple[int, ...] = ()  # 15W is 15
    last_workday: bool = False
    weekdays: int = 0
    nth: tuple[tuple[int, int], ...] = ()
    last: tuple[int, ...] = ()
    number_restricted: bool = False
    weekday_restricted: bool = False

    def mask(self, first_weekday: int, length: int) -> int:
        """The days (bit 1 to 31) of a month that begins on that weekday (0 is Sunday) and has `length` days."""
        whole = (2 << length) - 2
        if self.number_restricted and self.weekday_restricted:
            return (self._by_number(first_weekday, length) | self._by_weekday(first_weekday, length)) & whole
        return self._by_number(first_weekday, length) & self._by_weekday(first_weekday, length) & whole

    def _by_number(self, first_weekday: int, length: int) -> int:
        mask = self.numbers
        for back in self.from_last:
            if back < length:
                mask |= 1 << length - back
        for day in self.workdays:
            if day <= length:
                mask |= 1 << _nearest_workday(day, first_weekday, length)
        if self.last_workday:
            mask |= 1 << _nearest_workday(length, first_weekday, length)
        return mask

    def _by_weekday(self, first_weekday: int, length: int) -> int:
        mask = 0
        for weekday in range(7):
            if self.weekdays >> weekday & 1:
                mask |= _EVERY_SEVENTH << 1 + (weekday - first_weekday) % 7
        for weekday, k in self.nth:
            mask |= 1 << 1 + (weekday - first_weekday) % 7 + 7 * (k - 1)
        for weekday in self.last:
            first = 1 + (weekday - first_weekday) % 7
            mask |= 1 << first + (length - first) // 7 * 7
        return mask


_EVERY_SEVENTH = 1 | 1 << 7 | 1 << 14 | 1 << 21 | 1 << 28


def _nearest_workday(day: int, first_weekday: int, length: int) -> int:
    weekday = (first_weekday + day - 1) % 7
    if weekday == 6:
        return day - 1 if day > 1 else day + 2
    if weekday == 0:
        return day + 1 if day < length else day - 2
    return day


@dataclass(frozen=True, slots=True)
class Cron:
    """A parsed expression. `months` and `days` say the dates, the three masks the times of a day.

    `follows_clock`: the hour is `*` (or a step of 1), so a fire comes at every instant that shows a matching time. `repeats`: minute or second
    has `*` or a step and the hour does not, so the second pass of an hour that comes twice fires too.
    """

    text: str
    seconds: int
    minutes: int
    hours: int
    months: int
    days: Days
    follows_clock: bool
    repeats: bool
    day_masks: tuple[int, ...]  # by (first weekday, length - 28), so that a month costs one look-up

    def days_of(self, year: int, month: int) -> int:
        """The matching days of that month, bit 1 to 31."""
        if not self.months >> month & 1:
            return 0
        first = date(year, month, 1).isoweekday() % 7
        return self.day_masks[first * 4 + days_in_month(year, month) - 28]

    def shortest_gap_s(self) -> int:
        """The shortest time between two matching local times of one day or of two days in a row."""
        times = [h * 3_600 + m * 60 + s for h in bits(self.hours) for m in bits(self.minutes) for s in bits(self.seconds)]
        return min(later - earlier for earlier, later in zip(times, [*times[1:], times[0] + 86_400], strict=True))


def days_in_month(year: int, month: int) -> int:
    return _LENGTHS[month] if month != 2 else 29 if year % 4 == 0 and (year % 100 or year % 400 == 0) else 28


_LENGTHS = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def bits(mask: int) -> list[int]:
    return [value for value in range(mask.bit_length()) if mask >> value & 1]


def parse(text: str, job: str | None = None) -> Cron:
    """`job` is `project/name`, which `H` spreads. Raises BadExpression."""
    return _parse(text, job if uses_hash(text) else None)


def uses_hash(text: str) -> bool:
    return _H.search(text) is not None


_H = re.compile(r"(?<![A-Za-z@])[Hh](?![A-Za-z])")


@lru_cache(maxsize=PARSED_EXPRESSIONS)
def _parse(text: str, job: str | None) -> Cron:
    parts = _split(text)
    digest = None if job is None else hashlib.sha256(job.encode()).digest()
    reading = [
        _read_field(index, part) if "H" not in part else _Reading(FIELDS[index], part, _spread(digest, index)) for index, part in enumerate(parts)
    ]
    second, minute, hour, day, month, weekday = reading
    days = Days(
        numbers=day.mask,
        from_last=tuple(day.from_last),
        workdays=tuple(day.workdays),
        last_workday=day.last_workday,
        weekdays=weekday.mask,
        nth=tuple(weekday.nth),
        last=tuple(weekday.last),
        number_restricted=not day.text.startswith(("*", "?")),
        weekday_restricted=not weekday.text.startswith(("*", "?")),
    )
    cron = Cron(
        text=text,
        seconds=second.mask,
        minutes=minute.mask,
        hours=hour.mask,
        months=month.mask,
        days=days,
        follows_clock=hour.every_value,
        repeats=(second.stepped or minute.stepped) and not hour.stepped,
        day_masks=_day_masks(days),
    )
    if not _ever_matches(cron):
        raise BadExpression(f'"{text}" matches no date in 400 years; expected a day that comes in one of its months')
    return cron


@lru_cache(maxsize=4_096)
def _read_field(index: int, text: str) -> _Reading:
    """A field without `H` means the same in every expression: 100,000 jobs share some hundred of them."""
    return _Reading(FIELDS[index], text, None)


@lru_cache(maxsize=4_096)
def _day_masks(days: Days) -> tuple[int, ...]:
    return tuple(days.mask(first, length) for first in range(7) for length in range(28, 32))


def _ever_matches(cron: Cron) -> bool:
    """The 14 kinds of years (by leap day and first weekday) all come within 400 years, so these 28 years stand for all."""
    return any(cron.days_of(year, month) for year in range(2000, 2028) for month in range(1, 13))


def _split(text: str) -> Sequence[str]:
    """The six fields, in capitals; macros unfolded, seconds 0 where there are five."""
    stripped = text.strip()
    if len(text) > EXPRESSION_LIMIT:
        raise BadExpression(f"the expression has {len(text)} characters; at most {EXPRESSION_LIMIT} are allowed")
    if stripped.startswith("@"):
        stripped = _macro(stripped)
    parts = re.split(r"[ \t]+", stripped.upper())
    if any("=" in part for part in parts) or (len(parts) > 5 and re.search(r"[A-Za-z]{3}/[A-Za-z]{3}", stripped)):
        raise BadExpression(f'"{text}" names a time zone inside the expression; write it in timezone: instead')
    if len(parts) not in (5, 6):
        raise BadExpression(f'"{text}" has {_count(stripped)}; expected 5 (minute hour day month weekday), or 6 with seconds first')
    return ["0", *parts] if len(parts) == 5 else parts


def _count(stripped: str) -> str:
    count = len(stripped.split())
    return "no field" if count == 0 else "1 field" if count == 1 else f"{count} fields"


def _macro(text: str) -> str:
    name = text.lower()
    if name in MACROS:
        return MACROS[name]
    if name.startswith("@every"):
        raise BadExpression(f'"{text}" is not a cron expression here; write every: {text[6:].strip() or "90s"} instead of cron:')
    if name.startswith("@reboot"):
        raise BadExpression(f'"{text}" has no time: a job belongs to no machine; expected a schedule, or none for a job on demand')
    close = get_close_matches(name, MACROS, n=1)
    raise BadExpression(f'"{text}" is not known; ' + (f'did you mean "{close[0]}"?' if close else f"expected one of {', '.join(MACROS)}"))


def _spread(digest: bytes | None, index: int) -> Callable[[int], int] | None:
    """What `H` draws from in a field: four bytes of the job's digest for each, so that the fields of one job differ."""
    if digest is None:
        return None
    number = int.from_bytes(digest[4 * index : 4 * index + 4], "big")
    return lambda count: number % count


_ITEM = re.compile(r"(?P<low>\*|[A-Z]+|\d+)(?:-(?P<high>[A-Z]+|\d+))?(?:/(?P<step>\d+))?", re.ASCII)
_HASHED = re.compile(r"H(?:\((?P<low>\d+)-(?P<high>\d+)\))?(?:/(?P<step>\d+))?", re.ASCII)
_FROM_LAST = re.compile(r"L(?:-(\d+))?", re.ASCII)
_WORKDAY = re.compile(r"(\d+)W", re.ASCII)
_NTH = re.compile(r"([A-Z]{3}|\d+)#(\d+)", re.ASCII)
_LAST_WEEKDAY = re.compile(r"([A-Z]{3}|\d+)L", re.ASCII)


class _Reading:
    """One field while it is read: what its items add up to."""

    def __init__(self, field: Field, text: str, spread: Callable[[int], int] | None) -> None:
        self.field, self.text, self.spread = field, text, spread
        self.mask = 0
        self.stepped = False  # has `*` or a step
        self.every_value = False  # is `*` or a step of 1
        self.from_last: list[int] = []
        self.workdays: list[int] = []
        self.last_workday = False
        self.nth: list[tuple[int, int]] = []
        self.last: list[int] = []
        self._read_all()

    def _read_all(self) -> None:
        if self.text == "?" and self.field in DAY_FIELDS:
            self.mask = self._all()
            return
        for item in self.text.split(","):
            if not item:
                raise self._bad(f'"{self.text}" has an empty item', "a value between commas")
            self._read(item)

    def _read(self, item: str) -> None:
        if self.field is DAY and self._read_day(item):
            return
        if self.field is WEEKDAY and self._read_weekday(item):
            return
        if item.startswith("H") and (match := _HASHED.fullmatch(item)):
            self._read_hashed(item, match)
        elif match := _ITEM.fullmatch(item):
            self._read_plain(item, match)
        else:
            raise self._unreadable(item)

    def _read_plain(self, item: str, match: re.Match[str]) -> None:
        low_text, high_text, step_text = match.groups()
        step = self._step(item, step_text)
        if low_text == "*" and high_text is not None:
            raise self._unreadable(item)
        if low_text == "*":
            values: Sequence[int] = range(self.field.low, self.field.high + 1, step)
        elif high_text is not None:
            values = self._range(self._value(low_text, item), self._value(high_text, item), step)
        elif step_text is not None:
            values = range(self._wrapped(self._value(low_text, item)), self.field.high + 1, step)
        else:
            values = (self._value(low_text, item),)
        self._add(values)
        self._note_step(low_text == "*" or step_text is not None, step if step_text or low_text == "*" else None)

    def _read_hashed(self, item: str, match: re.Match[str]) -> None:
        if self.spread is None:
            raise BadExpression(f"{self.field.name}: H spreads jobs by their name; expected the name of a job")
        low, high, step_text = match.groups()
        first = self.field.low if low is None else self._value(low, item)
        last = self.field.hash_high if high is None else self._value(high, item)
        if last < first:
            raise self._bad(f'"{item}" runs backwards', "H(low-high) with low at most high")
        step = self._step(item, step_text)
        if step > last - first + 1:
            raise self._bad(f'the step of "{item}" is longer than its range of {last - first + 1}', f"at most {last - first + 1}")
        if step_text is None:
            self._add((first + self.spread(last - first + 1),))
        else:
            self._add(range(first + self.spread(step), last + 1, step))
        self._note_step(step_text is not None, step if step_text else None)

    def _note_step(self, stepped: bool, step: int | None) -> None:
        self.stepped = self.stepped or stepped
        self.every_value = self.every_value or step == 1

    def _read_day(self, item: str) -> bool:
        if item == "LW":
            self.last_workday = True
        elif match := _FROM_LAST.fullmatch(item):
            back = int(match[1] or 0)
            if back > 30:
                raise self._bad(f'"{item}" is before the first day of every month', "L-0 to L-30")
            self.from_last.append(back)
        elif match := _WORKDAY.fullmatch(item):
            self.workdays.append(self._value(match[1], item))
        else:
            return False
        return True

    def _read_weekday(self, item: str) -> bool:
        if match := _NTH.fullmatch(item):
            k = int(match[2])
            if not 1 <= k <= 5:
                raise self._bad(f'"{item}" asks for weekday number {k} of a month', "#1 to #5")
            self.nth.append((self._wrapped(self._value(match[1], item)), k))
        elif match := _LAST_WEEKDAY.fullmatch(item):
            self.last.append(self._wrapped(self._value(match[1], item)))
        else:
            return False
        return True

    def _range(self, low: int, high: int, step: int) -> Sequence[int]:
        if low <= high:
            return range(low, high + 1, step)
        length = self.field.length
        low = self._wrapped(low)
        return [self.field.low + (value - self.field.low) % length for value in range(low, high + 1 + (length if high < low else 0), step)]

    def _wrapped(self, value: int) -> int:
        return 0 if self.field is WEEKDAY and value == 7 else value

    def _add(self, values: Sequence[int]) -> None:
        for value in values:
            self.mask |= 1 << self._wrapped(value)

    def _all(self) -> int:
        return (2 << self.field.high) - (1 << self.field.low)

    def _value(self, text: str, item: str) -> int:
        if text.isdigit():
            value = int(text[:9])
            if not self.field.low <= value <= self.field.top or len(text) > 9:
                raise self._bad(f'{text} in "{item}" is out of range', f"{self.field.low} to {self.field.top}")
            return value
        if text in self.field.names:
            return self.field.names.index(text) + self.field.low
        raise self._unknown_name(text)

    def _step(self, item: str, text: str | None) -> int:
        if text is None:
            return 1
        step = int(text[:9])
        if step == 0:
            raise self._bad(f'the step of "{item}" is 0', f"1 to {self.field.length}")
        if step > self.field.length:
            raise BadExpression(
                f'{self.field.name}: the step of "{item}" is longer than the field, which has {self.field.length} values; '
                f"expected 1 to {self.field.length}, or every: for a longer interval"
            )
        return step

    def _unknown_name(self, text: str) -> BadExpression:
        names = self.field.names
        if not names:
            return self._bad(f'"{text}" is not a number', f"{self.field.low} to {self.field.top}")
        close = [text[:3]] if text[:3] in names else get_close_matches(text, names, n=1)
        if close:
            return BadExpression(f'{self.field.name}: "{text}" is not known; did you mean "{close[0]}"?')
        return self._bad(f'"{text}" is not known', f"{self.field.low} to {self.field.top}, or {names[0]} to {names[-1]}")

    def _unreadable(self, item: str) -> BadExpression:
        if "#" in item:
            return self._bad(f'cannot read "{item}"', "n#k in the day of week alone, like MON#2")
        if "?" in item:
            return self._bad(f'cannot read "{item}"', "? alone, in the day of month or the day of week")
        if item.endswith("/"):
            return self._bad(f'"{item}" has no step', f"a number after the slash, like {item}5")
        return self._bad(f'cannot read "{item}"', "a value, a range like 1-5, a step like */2 or a list of these")

    def _bad(self, what: str, expected: str) -> BadExpression:
        return BadExpression(f"{self.field.name}: {what}; expected {expected}")
