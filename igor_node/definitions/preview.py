"""What a schedule means, for people: in words, and as the next fires.

`igor schedule`, `igor plan` and the page call this module; all fires come from `schedule.py`, so that a preview is what happens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from igor_node.definitions.cron import Cron, bits, parse, uses_hash
from igor_node.definitions.jobs import Schedule
from igor_node.definitions.schedule import compile
from igor_node.words import Instant, format_instant, format_span, parse_instant

FIRES_LIMIT = 10_000  # of one question; more is a question for `igor audit` or `upcoming`
DEFAULT_FIRES = 10
TIMES_LISTED = 6  # more times of a day than these read better as hours and minutes

_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_ORDINALS = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth"}


def next_fires(schedule: Schedule, job_id: str, after: Instant, count: int = DEFAULT_FIRES) -> list[Instant]:
    """The next `count` fires strictly after `after`."""
    return compile(schedule, job_id).between(after, Instant(1 << 70), count)


def answer_batch(lines: Iterable[str], now: Instant) -> Iterator[str]:
    """`igor schedule --batch`: a line `{"id","expr","tz","from","n","job"?}` each, answered by `{"id","fires"}` or `{"id","error"}`.

    Other keys are left alone: a file of cases says more of each than what is asked.
    """
    for line in lines:
        if line.strip():
            yield json.dumps(_answer(line, now), separators=(", ", ": "))


def _answer(line: str, now: Instant) -> dict[str, Any]:
    identity: Any = None
    try:
        question = json.loads(line)
        if not isinstance(question, dict):
            raise ValueError('the line is not an object; expected {"id", "expr", "tz", "from", "n"}')
        identity = question.get("id")
        return {"id": identity, "fires": [format_instant(fire) for fire in _ask(question, now)]}
    except ValueError as problem:
        return {"id": identity, "error": str(problem)}
    except RecursionError:
        return {"id": identity, "error": "the line is nested too deeply; expected one flat object"}


def _ask(question: dict[str, Any], now: Instant) -> list[Instant]:
    count = DEFAULT_FIRES if question.get("n") is None else question["n"]
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= FIRES_LIMIT:
        raise ValueError(f"n: {json.dumps(count)} is not allowed; expected a whole number from 0 to {FIRES_LIMIT}")
    schedule = Schedule(cron=_text(question, "expr"), timezone=_text(question, "tz", "UTC"))
    after = parse_instant(_text(question, "from")) if question.get("from") is not None else now
    return next_fires(schedule, _text(question, "job", ""), after, count)


def _text(question: dict[str, Any], key: str, default: str | None = None) -> str:
    value = question.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise ValueError(f"{key}: {json.dumps(value)} is not allowed; expected a text")
    return value


def describe(schedule: Schedule, job_id: str = "") -> str:
    """The schedule in words: `at 02:00 on Monday to Friday, Europe/Berlin time`. Raises ValueError where it is none."""
    words = _core(schedule, job_id)
    if schedule.exclude or schedule.include is not None:
        words += ", but only on the days of its calendar" if schedule.include is not None else ", but not on the days of its calendar"
    if schedule.starts_at is not None:
        words += f", from {format_instant(schedule.starts_at)}"
    if schedule.ends_at is not None:
        words += f", before {format_instant(schedule.ends_at)}"
    return words + (f", up to {format_span(schedule.jitter_ns)} later" if schedule.jitter_ns else "")


def _core(schedule: Schedule, job_id: str) -> str:
    if schedule.every_ns is not None:
        return f"every {format_span(schedule.every_ns)}"
    if schedule.at is not None:
        return f"once, at {format_instant(schedule.at)}"
    if schedule.cron is None:
        return "on demand only"
    if uses_hash(schedule.cron) and not job_id:
        return f"at times spread by the job's name ({schedule.cron}), {schedule.timezone}" + (" time" if schedule.timezone != "UTC" else "")
    cron = parse(schedule.cron, job_id or None)
    zone = schedule.timezone if schedule.timezone == "UTC" else f"{schedule.timezone} time"
    return " ".join(part for part in (_times(cron), _days(cron), _months(cron)) if part) + f", {zone}"


def _times(cron: Cron) -> str:
    seconds, minutes, hours = bits(cron.seconds), bits(cron.minutes), bits(cron.hours)
    if len(seconds) * len(minutes) * len(hours) <= TIMES_LISTED:
        with_seconds = seconds != [0]
        return "at " + _list([f"{h:02}:{m:02}" + (f":{s:02}" if with_seconds else "") for h in hours for m in minutes for s in seconds])
    parts = []
    if seconds != [0]:
        parts.append(_each(seconds, 60, "second"))
    if len(minutes) < 60 or seconds == [0]:
        parts.append(_each(minutes, 60, "minute"))
    parts.append("" if len(hours) == 24 and parts[-1].startswith("every") else _each(hours, 24, "hour"))
    return " of ".join(part for part in parts if part)


def _single(values: Sequence[int]) -> bool:
    return len(values) == 1


def _each(values: Sequence[int], length: int, unit: str) -> str:
    if len(values) == length:
        return f"every {unit}"
    step = values[1] - values[0] if len(values) > 1 else 0
    if values[0] == 0 and step > 1 and list(values) == list(range(0, length, step)) and length % step == 0:
        return f"every {step} {unit}s"
    return f"{unit}{'' if _single(values) else 's'} {_list(_runs(values, str))}"


def _days(cron: Cron) -> str:
    days = cron.days
    every_day = days.numbers & 0xFFFFFFFE == 0xFFFFFFFE
    numbers = [] if every_day else _runs(bits(days.numbers), str)
    of_month = ["day " + _list(numbers) + " of the month"] if numbers else []
    of_month += [f"day {day} of the month or the working day nearest to it" for day in days.workdays]
    of_month += ["the last day of the month" if back == 0 else f"day {back} before the last of the month" for back in days.from_last]
    of_month += ["the last working day of the month"] if days.last_workday else []
    of_week = _runs(bits(days.weekdays), lambda day: _WEEKDAYS[day]) if days.weekdays != 0b1111111 else []
    of_week += [f"the {_ORDINALS[k]} {_WEEKDAYS[day]} of the month" for day, k in days.nth]
    of_week += [f"the last {_WEEKDAYS[day]} of the month" for day in days.last]
    if of_month and of_week:
        joint = " and on " if days.number_restricted and days.weekday_restricted else " if it is "
        return f"on {_list(of_month)}{joint}{_list(of_week, 'or' if joint.startswith(' if') else 'and')}"
    if of_month or of_week:
        return f"on {_list(of_month or of_week)}"
    return "every day" if _times(cron).startswith("at ") else ""


def _months(cron: Cron) -> str:
    months = bits(cron.months)
    return "" if len(months) == 12 else f"in {_list(_runs(months, lambda month: _MONTHS[month - 1]))}"


def _runs(values: Sequence[int], name: Any) -> list[str]:
    """`[1, 2, 3, 7]` as `["1 to 3", "7"]`."""
    found: list[list[int]] = []
    for value in values:
        if found and value == found[-1][-1] + 1:
            found[-1].append(value)
        else:
            found.append([value])
    texts: list[str] = []
    for run in found:
        texts += [f"{name(run[0])} to {name(run[-1])}"] if len(run) > 2 else [name(value) for value in run]
    return texts


def _list(texts: Sequence[str], joint: str = "and") -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} {joint} {texts[-1]}"
