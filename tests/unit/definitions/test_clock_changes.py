"""What people are told about changes of the clock, and why a schedule does not name a time."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igor_node.definitions.clock_changes import note, notes, why_not
from igor_node.definitions.jobs import Job, Schedule, Stage
from igor_node.definitions.schedule import compile
from igor_node.definitions.zones import zone, zone_names
from igor_node.words import SECOND, Instant, format_instant, parse_instant

YEAR = (parse_instant("2026-01-01T00:00:00Z"), parse_instant("2027-01-01T00:00:00Z"))


def job(*crons: str, zone: str = "Europe/Berlin", **more) -> Job:
    schedules = tuple(Schedule(cron=cron, timezone=zone, **more) for cron in crons)
    return Job(project="p", name="j", schedules=schedules, stages=(Stage(name="main", command="true"),))


def noted(job: Job) -> list[tuple[str, str, str]]:
    return [(format_instant(one.scheduled_at), one.kind, one.note) for one in notes(job, *YEAR)]


def test_one_that_does_not_exist_and_one_that_comes_twice():
    gap = ("2026-03-29T01:00:00Z", "gap", "02:30 does not exist on that day; it fires at the first instant after the gap")
    fold = ("2026-10-25T00:30:00Z", "fold", "02:30 comes twice on that day; it fires at the first time, and not at the second")
    assert noted(job("30 2 * * *")) == [gap, fold]


@pytest.mark.parametrize(
    ("cron", "kinds"),
    [
        pytest.param("0 3 * * *", [], id="after the change"),
        pytest.param("59 1 * * *", [], id="before it"),
        pytest.param("*/30 2 * * *", ["gap", "fold", "fold", "fold", "fold"], id="the second pass fires too"),
        pytest.param("0 * * * *", ["fold", "fold"], id="follows the clock"),
        pytest.param("30 2 30 3 *", [], id="another day"),
    ],
)
def test_which_fires_are_noted(cron, kinds):
    assert [kind for _, kind, _ in noted(job(cron))] == kinds


def test_zones_without_changes_and_other_schedules_have_no_notes():
    assert noted(job("30 2 * * *", zone="UTC")) == []
    every = Job(project="p", name="j", schedules=(Schedule(every_ns=SECOND * 60, timezone="Europe/Berlin"),), stages=())
    assert noted(every) == []


@given(st.sampled_from(sorted(zone_names())), st.integers(0, 59), st.integers(0, 23), st.integers(1971, 2035))
def test_each_missing_day_of_a_daily_schedule_is_noted_and_no_other(name, minute, hour, year):
    """A daily schedule fires once on each day; where its time of day differs, or the time comes twice, there is a note."""
    schedule = Schedule(cron=f"{minute} {hour} * * *", timezone=name)
    begin, end = (parse_instant(f"{each}-01-01T00:00:00Z") for each in (year, year + 1))
    found = {one.scheduled_at: one for one in notes(job(schedule.cron, zone=name), begin, end)}
    place = zone(name)
    for at in compile(schedule, "p/j").between(Instant(begin - 1), Instant(end - 1), 400):
        local = place.local(at // SECOND)
        moved = (local.hour, local.minute, local.second) != (hour, minute, 0)
        assert (at in found and found[at].kind == "gap") or not moved, (name, format_instant(at))
        assert found.get(at) is None or found[at].note == note(schedule, "p/j", at)


@pytest.mark.parametrize(
    ("schedule", "at", "why"),
    [
        (Schedule(cron="30 2 * * *", timezone="Europe/Berlin"), "2026-10-25T01:30:00Z", "at the first time, 2026-10-25T00:30:00Z"),
        (Schedule(cron="30 2 * * *"), "2026-10-25T01:30:00Z", '"30 2 * * *" does not match Sunday 2026-10-25 01:30:00 UTC'),
        (Schedule(cron="0 8 * * *", exclude=("2026-12-25",)), "2026-12-25T08:00:00Z", "its calendar excludes 2026-12-25"),
        (Schedule(cron="0 8 * * *", include=("2026-12-24",)), "2026-12-25T08:00:00Z", "its calendar does not include 2026-12-25"),
        (Schedule(every_ns=90 * SECOND), "2026-12-25T08:00:01Z", "it is no multiple of 1m30s since 1970"),
        (Schedule(every_ns=90 * SECOND, exclude=("2026-12-25",)), "2026-12-25T08:00:00Z", "its calendar excludes 2026-12-25"),
        (Schedule(at=parse_instant("2027-01-01T00:00:00Z")), "2026-12-25T08:00:00Z", "it fires once, at 2027-01-01T00:00:00Z"),
        (Schedule(cron="0 8 * * *", starts_at=parse_instant("2027-01-01T00:00:00Z")), "2026-12-25T08:00:00Z", "before the schedule's starts_at"),
        (Schedule(cron="0 8 * * *", ends_at=parse_instant("2026-12-25T08:00:00Z")), "2026-12-25T08:00:00Z", "not before the schedule's ends_at"),
    ],
)
def test_why_a_schedule_does_not_name_a_time(schedule, at, why):
    instant = parse_instant(at)
    assert compile(schedule, "p/j").next_after(Instant(instant - 1)) != instant
    assert why in why_not(schedule, "p/j", instant)


def test_notes_are_in_order_and_each_is_a_fire():
    one = job("*/7 1-3 * * *", zone="America/New_York")
    found = [each.scheduled_at for each in notes(one, *YEAR)]
    assert all(earlier < later for earlier, later in pairwise(found)) and found
    assert all(compile(one.schedules[0], one.id).next_after(Instant(at - 1)) == at for at in found)
