"""Every schedule against the slow and obvious way: walk the clock on the wall minute by minute and ask whether it matches.

The oracle knows nothing of stretches, masks or jumps: it asks `zoneinfo` (on the pinned files) what the wall shows at each instant, and builds
its sets while the expression is written, not by reading it.
"""

import calendar
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib import resources
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from igor_node.definitions.jobs import Schedule
from igor_node.definitions.schedule import compile
from igor_node.words import SECOND, Instant

# Zones with an instant near which their clock changes.
CHANGES = [
    ("Europe/Berlin", "2026-03-29T01:00"),
    ("Europe/Berlin", "2026-10-25T01:00"),
    ("America/New_York", "2026-03-08T07:00"),
    ("America/New_York", "2026-11-01T06:00"),
    ("Australia/Lord_Howe", "2026-10-03T15:30"),
    ("Australia/Lord_Howe", "2026-04-04T15:00"),
    ("America/Sao_Paulo", "2017-10-15T03:00"),
    ("America/Sao_Paulo", "2018-02-18T02:00"),
    ("Pacific/Apia", "2011-12-30T10:00"),
    ("Antarctica/Troll", "2026-03-29T01:00"),
    ("Antarctica/Troll", "2026-10-25T01:00"),
    ("Asia/Tehran", "2021-03-21T20:30"),
    ("Pacific/Chatham", "2025-09-27T14:00"),
    ("Africa/Casablanca", "2026-02-15T02:00"),
    ("Europe/Dublin", "2077-03-28T01:00"),
    ("UTC", "2028-02-29T00:00"),
]


@lru_cache
def pinned(name):
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


@st.composite
def field(draw, low, high, *, busy=False):
    """(text, values, has a star or step, follows every value)."""
    texts, values, stepped, every = [], set(), False, False
    for _ in range(draw(st.integers(1, 2))):
        kind = draw(st.sampled_from(["value", "range", "step", "open", *(["star"] * 3 if busy else ["star"])]))
        a, b = draw(st.integers(low, high)), draw(st.integers(low, high))
        step = draw(st.integers(1, min(high - low + 1, 20)))
        if kind == "value":
            texts.append(f"{a}")
            values.add(a)
        elif kind == "range":
            texts.append(f"{a}-{b}/{step}" if step > 1 else f"{a}-{b}")
            stepped |= step > 1
            ring = list(range(a, b + 1)) if a <= b else [*range(a, high + 1), *range(low, b + 1)]
            values.update(ring[::step])
        elif kind == "open":
            texts.append(f"{a}/{step}")
            values.update(range(a, high + 1, step))
            stepped, every = True, every or step == 1
        elif kind == "step":
            texts.append(f"*/{step}")
            values.update(range(low, high + 1, step))
            stepped, every = True, every or step == 1
        else:
            texts.append("*")
            values.update(range(low, high + 1))
            stepped = every = True
    return ",".join(texts), values, stepped, every


@st.composite
def days(draw):
    """(day of month, day of week, the test of a date)."""
    number = draw(st.sampled_from(["*", "*", "?", "*/2", "29", "1-15", "30,31", "L", "L-2", "LW", "15W", "1W,31W", "25-5"]))
    weekday = draw(st.sampled_from(["*", "*", "?", "*/3", "SUN", "5-7", "FRI-MON", "7L", "MON#1", "4#5,2"]))
    return number, weekday


def last_of(day):
    return calendar.monthrange(day.year, day.month)[1]


def workday_near(day, number):
    """The date of `numberW` in that month."""
    if number > last_of(day):
        return None
    wanted = day.replace(day=number)
    near = [wanted + timedelta(days=away) for away in (0, -1, 1, 2, -2)]
    return next(each for each in near if each.month == wanted.month and each.weekday() < 5)


NUMBERS = {
    "*": lambda d: True,
    "?": lambda d: True,
    "*/2": lambda d: d.day % 2 == 1,
    "29": lambda d: d.day == 29,
    "1-15": lambda d: d.day <= 15,
    "30,31": lambda d: d.day >= 30,
    "L": lambda d: d.day == last_of(d),
    "L-2": lambda d: d.day == last_of(d) - 2,
    "LW": lambda d: d == workday_near(d, last_of(d)),
    "15W": lambda d: d == workday_near(d, 15),
    "1W,31W": lambda d: d in (workday_near(d, 1), workday_near(d, 31)),
    "25-5": lambda d: d.day >= 25 or d.day <= 5,
}
WEEKDAYS = {
    "*": lambda d: True,
    "?": lambda d: True,
    "*/3": lambda d: d.isoweekday() % 7 in (0, 3, 6),
    "SUN": lambda d: d.isoweekday() == 7,
    "5-7": lambda d: d.isoweekday() in (5, 6, 7),
    "FRI-MON": lambda d: d.isoweekday() in (5, 6, 7, 1),
    "7L": lambda d: d.isoweekday() == 7 and d.day + 7 > last_of(d),
    "MON#1": lambda d: d.isoweekday() == 1 and d.day <= 7,
    "4#5,2": lambda d: d.isoweekday() == 2 or (d.isoweekday() == 4 and d.day >= 29),
}


def day_matches(number, weekday, day):
    both_restricted = number[0] not in "*?" and weekday[0] not in "*?"
    by_number, by_weekday = NUMBERS[number](day), WEEKDAYS[weekday](day)
    return by_number or by_weekday if both_restricted else by_number and by_weekday


def walk(matches, follows, repeats, place, begin, end, step):
    """All fires in [begin, end), one instant after the other."""
    found = []
    at = begin
    before = (at - timedelta(seconds=step)).astimezone(place)
    while at < end:
        wall = at.astimezone(place)
        fired = matches(wall.replace(tzinfo=None)) and (follows or repeats or wall.fold == 0)
        gap_begin, gap_end = before.replace(tzinfo=None) + timedelta(seconds=step), wall.replace(tzinfo=None)
        if not follows and wall.utcoffset() > before.utcoffset():
            while gap_begin < gap_end and not fired:
                fired = matches(gap_begin)
                gap_begin += timedelta(seconds=step)
        if fired:
            found.append(Instant(int(at.timestamp()) * SECOND))
        before, at = wall, at + timedelta(seconds=step)
    return found


def check(text, zone_name, walked, begin, end):
    plan = compile(Schedule(cron=text, timezone=zone_name), "p/j")
    after, until = Instant(int(begin.timestamp()) * SECOND - 1), Instant(int(end.timestamp()) * SECOND - 1)
    assert plan.between(after, until, 1_000_000) == walked, text
    for at in walked[:: max(1, len(walked) // 10)]:
        assert plan.next_after(Instant(at - 1)) == at


@settings(max_examples=120, deadline=None)
@given(minutes=field(0, 59), hours=field(0, 23, busy=True), day=days(), change=st.sampled_from(CHANGES), shift_h=st.integers(-40, 0))
def test_five_fields_around_a_change_of_the_clock(minutes, hours, day, change, shift_h):
    """Two days of minutes near the change, for any expression."""
    place = pinned(change[0])
    begin = datetime.fromisoformat(change[1]).replace(tzinfo=UTC) + timedelta(hours=shift_h)
    number, weekday = day
    text = f"{minutes[0]} {hours[0]} {number} * {weekday}"

    def matches(wall):
        return wall.minute in minutes[1] and wall.hour in hours[1] and day_matches(number, weekday, wall.date())

    follows, repeats = hours[3], minutes[2] and not hours[2]
    end = begin + timedelta(days=2)
    check(text, change[0], walk(matches, follows, repeats, place, begin, end, 60), begin, end)


@settings(max_examples=40, deadline=None)
@given(seconds=field(0, 59), minutes=field(0, 59), hours=field(0, 23, busy=True), change=st.sampled_from(CHANGES))
def test_six_fields_around_a_change_of_the_clock(seconds, minutes, hours, change):
    """Three hours of seconds around the change."""
    place = pinned(change[0])
    begin = datetime.fromisoformat(change[1]).replace(tzinfo=UTC) - timedelta(minutes=90)

    def matches(wall):
        return wall.second in seconds[1] and wall.minute in minutes[1] and wall.hour in hours[1]

    follows, repeats = hours[3], (seconds[2] or minutes[2]) and not hours[2]
    end = begin + timedelta(hours=3)
    check(f"{seconds[0]} {minutes[0]} {hours[0]} * * *", change[0], walk(matches, follows, repeats, place, begin, end, 1), begin, end)


@settings(max_examples=60, deadline=None)
@given(day=days(), months=field(1, 12), year=st.integers(1999, 2101))
def test_days_of_three_years(day, months, year):
    """Every date, one after the other."""
    number, weekday = day
    walked, on = [], datetime(year, 1, 1, 12, tzinfo=UTC)
    end = datetime(year + 3, 1, 1, tzinfo=UTC)
    while on < end:
        if on.month in months[1] and day_matches(number, weekday, on.date()):
            walked.append(Instant(int(on.timestamp()) * SECOND))
        on += timedelta(days=1)
    text = f"0 12 {number} {months[0]} {weekday}"
    try:
        compile(Schedule(cron=text), "")
    except ValueError as problem:
        assert "matches no date" in str(problem)
        assert not walked
        return
    check(text, "UTC", walked, datetime(year, 1, 1, tzinfo=UTC), end)
