"""The audit: every fire a definition named is looked up; what has neither run nor reason shows."""

from __future__ import annotations

import pytest

from igor_node.definitions.jobs import Job, Schedule, Stage
from igor_node.rules import audit as rule
from igor_node.rules.audit import JobRecords, Period, RunRecord, StretchRecord
from igor_node.rules.timetable import JobTimetable
from igor_node.words import SECOND, TooLarge

HOUR = 1_800_000_000


def at(minute: float) -> int:
    return int((HOUR + minute * 60) * SECOND)


EVERY_MINUTE = JobTimetable(Job(project="p", name="j", schedules=(Schedule(every_ns=60 * SECOND),), stages=(Stage(name="main", command="x"),)))


def run(minute: int, state: str = "succeeded", started: bool = True) -> RunRecord:
    return RunRecord(f"r{minute}", at(minute), at(minute), state, started_at=at(minute) + SECOND // 4 if started else None)


def audit(decided: float, runs=(), stretches=(), periods=None, since=0.5, until=5.5, now=5.2):
    job = JobRecords("p/j", at(decided), periods or [Period(at(0), "active", EVERY_MINUTE)], runs, stretches)
    return rule.audit([job], at(since), at(until), at(now)).as_json(at(since), at(until))


def counts(answer):
    return {name: answer[name] for name in ("due", "ran", "skipped", "missed", "pending", "doubled", "unaccounted")}


def expected(**some):
    return {name: some.get(name, 0) for name in ("due", "ran", "skipped", "missed", "pending", "doubled", "unaccounted")}


def test_every_fire_with_a_run_is_accounted_for():
    answer = audit(5, [run(minute) for minute in range(1, 6)])
    assert counts(answer) == expected(due=5, ran=5)
    row = answer["rows"][0]
    assert (row["job"], row["scheduled_time"], row["outcome"], row["run"]) == ("p/j", "2027-01-15T08:01:00Z", "ran", "r1")
    assert (row["lateness_s"], row["reason"], row["count"]) == (0.25, "", 1)


def test_a_fire_without_any_record_is_unaccounted():
    assert counts(audit(5, [run(1), run(2), run(4), run(5)])) == expected(due=4, ran=4, unaccounted=1)


def test_a_fire_with_two_runs_is_doubled():
    assert counts(audit(2, [run(1), run(1), run(2)], until=2.5)) == expected(due=2, ran=2, doubled=1)


@pytest.mark.parametrize(
    ("state", "started", "outcome"),
    [
        ("succeeded", True, "ran"),
        ("failed", True, "ran"),
        ("running", True, "ran"),
        ("lost", False, "ran"),
        ("queued", False, "pending"),
        ("scheduled", False, "pending"),
        ("skipped", False, "skipped"),
        ("missed", False, "missed"),
        ("cancelled", True, "ran"),
        ("cancelled", False, "skipped"),
    ],
)
def test_what_a_run_counts_as(state, started, outcome):
    assert rule.outcome_of(run(1, state, started)) == outcome


def test_a_stretch_is_one_row_that_counts_its_fires():
    stretch = StretchRecord(at(2), at(4), 3, "missed", "nobody could make it")
    answer = audit(5, [run(1), run(5)], [stretch])
    assert counts(answer) == expected(due=5, ran=2, missed=3)
    assert [(row["outcome"], row["count"]) for row in answer["rows"]] == [("ran", 1), ("missed", 3), ("ran", 1)]


def test_only_the_part_of_a_stretch_within_the_range_counts():
    stretch = StretchRecord(at(-100), at(3), 104, "missed", "nobody could make it")
    assert counts(audit(3, [], [stretch], until=3.5)) == expected(due=3, missed=3)


def test_what_is_not_decided_yet_is_pending():
    assert counts(audit(3, [run(1), run(2), run(3)], until=8)) == expected(due=7, ran=3, pending=4)


def test_a_pause_that_has_no_record_yet_is_skipped():
    periods = [Period(at(0), "active", EVERY_MINUTE), Period(at(2), "paused", EVERY_MINUTE)]
    answer = audit(2, [run(1), run(2)], periods=periods)
    assert counts(answer) == expected(due=5, ran=2, skipped=3)
    assert answer["rows"][-1]["reason"] == "paused"


def test_a_removed_job_has_no_fires_and_what_was_undecided_then_is_skipped():
    periods = [Period(at(0), "active", EVERY_MINUTE), Period(at(3), "removed", EVERY_MINUTE)]
    answer = audit(2, [run(1), run(2)], periods=periods)
    assert counts(answer) == expected(due=3, ran=2, skipped=1)
    assert answer["rows"][-1]["reason"] == "job removed"


def test_a_run_that_no_definition_names_any_more_is_a_row_too():
    """It was handed out before a push changed the schedule."""
    assert counts(audit(1, [run(1), RunRecord("r", at(1.5), at(1.5), "succeeded", started_at=at(1.5))], until=2)) == expected(due=2, ran=2)


def test_an_audit_is_bounded(monkeypatch):
    monkeypatch.setattr(rule, "FIRES_LIMIT", 3)
    with pytest.raises(TooLarge, match="more than 3 fires"):
        audit(5)
