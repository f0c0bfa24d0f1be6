"""Upcoming fires: many jobs in one order, bounded, paused ones marked."""

from __future__ import annotations

from igor_node.definitions.jobs import Job, Schedule, Stage
from igor_node.rules.pause import Pause
from igor_node.rules.timetable import JobTimetable
from igor_node.rules.upcoming import upcoming
from igor_node.words import SECOND

BASE = 1_800_000_000 * SECOND


def timetable(name: str, every_s: int) -> JobTimetable:
    return JobTimetable(Job(project="p", name=name, schedules=(Schedule(every_ns=every_s * SECOND),), stages=(Stage(name="main", command="x"),)))


def test_jobs_are_merged_by_time_and_the_list_is_bounded():
    jobs = [("p/b", timetable("b", 20), Pause()), ("p/a", timetable("a", 10), Pause())]
    found = [((fire.scheduled_at - BASE) // SECOND, fire.job) for fire in upcoming(jobs, BASE, BASE + 3_600 * SECOND, limit=4)]
    assert found == [(10, "p/a"), (20, "p/a"), (20, "p/b"), (30, "p/a")]


def test_a_pause_shows():
    jobs = [("p/a", timetable("a", 10), Pause(paused=True, until=BASE + 15 * SECOND))]
    assert [fire.paused for fire in upcoming(jobs, BASE, BASE + 30 * SECOND)] == [True, False, False]
