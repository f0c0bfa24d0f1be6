"""Which fires are decided and how: lookahead, catch-up window, pause, overlap, jitter. Times in these tests are seconds after an hour."""

from __future__ import annotations

from itertools import count

import pytest

from igor_node.definitions.jobs import CatchUp, Job, Schedule, Stage
from igor_node.rules.fires import STRETCH_STEP, JobView, decide
from igor_node.rules.overlap import Earlier
from igor_node.rules.pause import Pause
from igor_node.rules.timetable import JobTimetable
from igor_node.words import SECOND

BASE = 1_800_000_000 - 1_800_000_000 % 3_600
MINUTE = 60


def at(second: float) -> int:
    return int((BASE + second) * SECOND)


def timetable(every_s: int = 60, policy: str = "latest", window_s: int = 600, jitter_s: int = 0) -> JobTimetable:
    schedule = Schedule(every_ns=every_s * SECOND, jitter_ns=jitter_s * SECOND, catch_up=CatchUp(window_ns=window_s * SECOND, policy=policy))
    return JobTimetable(Job(project="p", name="j", schedules=(schedule,), stages=(Stage(name="main", command="true"),)))


def view(decided_s: float, **more) -> JobView:
    return JobView("p/j", at(decided_s), **more)


def decided(decision):
    """Fires and spans in words: `(second, outcome)`, `(first, last, count, outcome)`, with second relative to BASE."""
    fires = [((fire.scheduled_at // SECOND) - BASE, fire.outcome or "run") for fire in decision.fires]
    spans = [(span.first // SECOND - BASE, span.last // SECOND - BASE, span.count, span.outcome) for span in decision.spans]
    return fires, spans, decision.decided_until / SECOND - BASE, None if decision.wake_at is None else decision.wake_at / SECOND - BASE


def run_decide(job, table, now_s, **more):
    ids = count(1)
    return decide(job, table, at(now_s), lambda: f"run{next(ids)}", **more)


def test_a_fire_is_decided_five_seconds_before_it_is_due():
    assert decided(run_decide(view(0), timetable(), 54.9)) == ([], [], 0, 55)
    assert decided(run_decide(view(0), timetable(), 55)) == ([(60, "run")], [], 60, 115)


def test_fires_that_are_close_together_are_decided_together():
    assert decided(run_decide(view(0), timetable(2), 0)) == ([(2, "run"), (4, "run")], [], 4, 1)


def test_a_fire_that_is_a_moment_late_is_made_whatever_the_policy():
    """A failover longer than the lookahead by less than PUNCTUAL misses nothing."""
    assert decided(run_decide(view(0), timetable(policy="none"), 64))[0] == [(60, "run")]


@pytest.mark.parametrize(
    ("policy", "fires", "spans"),
    [
        pytest.param("latest", [(600, "run")], [(60, 540, 9, "missed")], id="latest runs the last one"),
        pytest.param("none", [], [(60, 600, 10, "missed")], id="none runs nothing"),
        pytest.param("all", [(60 * n, "run") for n in range(1, 11)], [], id="all runs all"),
    ],
)
def test_a_gap_within_the_window(policy, fires, spans):
    """Nobody decided for ten minutes."""
    answer = decided(run_decide(view(0), timetable(policy=policy), 610, limit=100))
    assert answer == (fires, spans, 600, 655)


def test_all_runs_only_what_lies_within_the_window():
    fires, spans, decided_until, _ = decided(run_decide(view(0), timetable(policy="all", window_s=120), 610))
    assert fires == [(540, "run"), (600, "run")]
    assert spans == [(60, 480, 8, "missed")]
    assert decided_until == 600


def test_one_missed_fire_is_a_record_of_its_own_with_its_reason():
    decision = run_decide(view(540), timetable(policy="none"), 610)
    assert decided(decision)[:2] == ([(600, "missed")], [])
    assert decision.fires[0].reason == "nobody could make it in time (catch_up: none)"


def test_a_long_gap_is_counted_in_bounded_steps():
    """A job of every second after 30 days: 2.6 million fires, each step looks at STRETCH_STEP."""
    job, table, now, steps = view(0), timetable(1, window_s=60), 20_000, 0
    total, last = 0, 0
    while True:
        decision = run_decide(job, table, now)
        assert sum(span.count for span in decision.spans) + len(decision.fires) <= STRETCH_STEP
        total += sum(span.count for span in decision.spans) + len(decision.fires)
        steps += 1
        if decision.wake_at is not None and decision.wake_at > at(now):
            break
        assert decision.decided_until > job.decided_until
        job, last = view(decision.decided_until / SECOND - BASE), decision.decided_until
    assert total == now + 5 and last
    assert steps <= 6


def test_latest_looks_beyond_the_step_for_the_latest():
    """With 3,000 fires in the window only one runs, though a step decides fewer."""
    job, table, ran = view(0), timetable(1, window_s=10_000), []
    for _ in range(10):
        decision = run_decide(job, table, 3_000)
        ran += [fire for fire, what in decided(decision)[0] if what == "run"]
        job = view(decision.decided_until / SECOND - BASE)
    assert ran == [3_000, 3_001, 3_002, 3_003, 3_004, 3_005]


def test_a_pause_is_one_record_of_what_has_passed_never_of_what_comes():
    job = view(0, pause=Pause(paused=True, reason="maintenance"))
    decision = run_decide(job, timetable(2), 7)
    assert decided(decision) == ([], [(2, 6, 3, "skipped")], 6, 67)
    assert decision.spans[0].reason == "paused"


def test_fires_up_to_the_resume_belong_to_the_pause_and_later_ones_run():
    job = view(0, pause=Pause(resumed_at=at(5)))
    assert decided(run_decide(job, timetable(2), 6))[:3] == ([(6, "run"), (8, "run"), (10, "run")], [(2, 4, 2, "skipped")], 10)


def test_a_pause_with_an_end_lets_later_fires_run():
    job = view(0, pause=Pause(paused=True, until=at(5)))
    assert decided(run_decide(job, timetable(2), 4.5))[:3] == ([(6, "run"), (8, "run")], [(2, 4, 2, "skipped")], 8)


def test_the_end_of_a_pause_is_not_slept_through():
    job = view(0, pause=Pause(paused=True, until=at(30)))
    wake = decided(run_decide(job, timetable(2), 2))[3]
    assert wake == 25


GOING = (Earlier("r0", begun=True),)
WAITING = (Earlier("r0", begun=True), Earlier("r1", begun=False))


@pytest.mark.parametrize(
    ("policy", "earlier", "early", "at_due_time"),
    [
        pytest.param("queue", GOING, "run", None, id="queue: the run exists and waits"),
        pytest.param("skip", GOING, None, "skipped", id="skip: decided when due"),
        pytest.param("cancel", GOING, None, "run", id="cancel: decided when due"),
        pytest.param("queue_one", GOING, "run", None, id="queue_one: the first to wait"),
        pytest.param("queue_one", WAITING, None, "skipped", id="queue_one: a further one is decided when due"),
    ],
)
def test_overlap_waits_for_the_due_time_where_it_may_change(policy, earlier, early, at_due_time):
    job = view(0, overlap=policy, earlier=earlier)
    fires, _, _, wake = decided(run_decide(job, timetable(), 55))
    assert fires == ([(60, early)] if early else [])
    if early is None:
        assert wake == 60
        assert decided(run_decide(job, timetable(), 60))[0] == [(60, at_due_time)]


def test_a_fire_of_the_same_batch_counts_as_an_earlier_run():
    """Two fires within the lookahead under skip: the second waits for what becomes of the first."""
    job = view(0, overlap="skip")
    assert decided(run_decide(job, timetable(2), 0)) == ([(2, "run")], [], 2, 4)


def test_jitter_moves_the_due_time_and_the_decision_with_it():
    table = timetable(600, jitter_s=300)
    fire = table.between(at(0), at(600), 1)[0]
    assert fire.due_at > fire.scheduled_at
    early = run_decide(view(0), table, fire.due_at / SECOND - BASE - 6)
    assert not early.fires and early.wake_at == fire.due_at - 5 * SECOND
    assert [one.due_at for one in decide(view(0), table, early.wake_at, lambda: "r").fires] == [fire.due_at]


def test_a_job_of_two_schedules_is_not_held_up_by_the_jitter_of_one():
    """A later fire that is due first takes the earlier one with it: both are decided in order."""
    schedules = (Schedule(every_ns=3_600 * SECOND, jitter_ns=3_000 * SECOND), Schedule(cron="1 * * * *"))
    table = JobTimetable(Job(project="p", name="j2", schedules=schedules, stages=(Stage(name="main", command="true"),)))
    jittered = table.between(at(3_599), at(3_600), 1)[0]
    assert jittered.due_at > at(3_660)
    decision = run_decide(view(3_599), table, 3_655)
    assert decided(decision)[0] == [(3_600, "run"), (3_660, "run")]
    assert run_decide(view(3_599), table, 3_600).wake_at == at(3_655)


def test_a_schedule_that_ended_sleeps_for_ever():
    schedule = Schedule(at=at(100))
    table = JobTimetable(Job(project="p", name="once", schedules=(schedule,), stages=(Stage(name="main", command="true"),)))
    assert decided(run_decide(view(0), table, 95)) == ([(100, "run")], [], 100, None)
