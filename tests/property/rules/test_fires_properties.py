"""Whatever the schedule, the policies and the times at which somebody looks: each fire is decided once, in order, and none without a record."""

from __future__ import annotations

from itertools import count

from hypothesis import example, given
from hypothesis import strategies as st

from igor_node.definitions.jobs import CatchUp, Job, Schedule, Stage
from igor_node.rules.fires import LOOKAHEAD, PUNCTUAL, JobView, decide
from igor_node.rules.overlap import Earlier
from igor_node.rules.pause import Pause
from igor_node.rules.placement import Assign, Demand, NodeView, place, take
from igor_node.rules.timetable import JobTimetable
from igor_node.words import SECOND

BASE = 1_800_000_000 * SECOND

schedules = st.builds(
    lambda every, jitter, policy, window: Schedule(
        every_ns=every * SECOND, jitter_ns=min(jitter, every - 1) * SECOND, catch_up=CatchUp(policy=policy, window_ns=window * SECOND)
    ),
    every=st.integers(1, 120),
    jitter=st.sampled_from([0, 0, 3, 60]),
    policy=st.sampled_from(["latest", "all", "none"]),
    window=st.sampled_from([0, 30, 600]),
)
jobs = st.builds(
    lambda found, overlap: Job(project="p", name="j", schedules=tuple(found), overlap=overlap, stages=(Stage(name="main", command="x"),)),
    found=st.lists(schedules, min_size=1, max_size=2),
    overlap=st.sampled_from(["queue", "queue_one", "skip", "cancel", "allow"]),
)
pauses = st.one_of(
    st.just(Pause()),
    st.just(Pause(paused=True)),
    st.builds(lambda second: Pause(paused=True, until=BASE + second * SECOND), st.integers(0, 600)),
    st.builds(lambda second: Pause(resumed_at=BASE + second * SECOND), st.integers(0, 600)),
)


@given(job=jobs, pause=pauses, steps=st.lists(st.tuples(st.floats(0.1, 300), st.booleans()), min_size=1, max_size=12))
def test_each_fire_is_decided_once_and_in_order(job, pause, steps):
    """A history of looks at any times, with earlier runs that go or do not."""
    timetable, ids = JobTimetable(job), count()
    decided, now = BASE, BASE
    recorded: list[int] = []
    for seconds, going in steps:
        now += int(seconds * SECOND)
        earlier = (Earlier("earlier", begun=True),) if going else ()
        view = JobView("p/j", decided, overlap=job.overlap, pause=pause, earlier=earlier)
        decision = decide(view, timetable, now, lambda: str(next(ids)))
        for fire in decision.fires:
            assert fire.due_at <= now + LOOKAHEAD + 120 * SECOND
            if pause.covers(fire.scheduled_at):
                assert fire.outcome
        records = [fire.scheduled_at for fire in decision.fires]
        for span in decision.spans:
            within = [fire.scheduled_at for fire in timetable.between(span.first - 1, span.last, 10_000)]
            assert (within[0], within[-1], len(within)) == (span.first, span.last, span.count)
            records += within
        recorded += sorted(records)
        assert decision.decided_until >= decided
        assert decision.wake_at is None or decision.wake_at > now or decision.decided_until > decided
        decided = decision.decided_until
    assert recorded == [fire.scheduled_at for fire in timetable.between(BASE, decided, 100_000)]


JITTERED_BEHIND_A_GAP = Job(
    project="p",
    name="j",
    schedules=(
        Schedule(every_ns=50 * SECOND, jitter_ns=49 * SECOND, catch_up=CatchUp(window_ns=0)),
        Schedule(every_ns=95 * SECOND, catch_up=CatchUp(window_ns=0)),
    ),
    stages=(Stage(name="main", command="x"),),
)


@given(job=jobs, late=st.floats(0, 4.9))
@example(job=JITTERED_BEHIND_A_GAP, late=0.0)
def test_a_fire_that_is_made_in_time_is_never_missed(job, late):
    """However short the window, whatever the policy: up to PUNCTUAL late is in time."""
    timetable = JobTimetable(job)
    first = timetable.between(BASE, BASE + 1_000 * SECOND, 1)[0]
    now = first.due_at + int(late * SECOND)
    assert now - first.due_at < PUNCTUAL
    decision = decide(JobView("p/j", first.scheduled_at - 1, overlap=job.overlap), timetable, now, lambda: "r")
    assert not [span for span in decision.spans if span.first <= first.scheduled_at <= span.last and span.outcome == "missed"]


@given(
    nodes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from(["up", "silent"]), st.booleans()), max_size=6),
    demands=st.lists(st.integers(1, 3), max_size=20),
)
def test_placement_never_gives_more_than_there_is_and_never_leaves_what_fits(nodes, demands):
    views = [NodeView(str(n), f"n{n}", state, slots, min(used, slots), connected=on) for n, (slots, used, state, on) in enumerate(nodes)]
    for slots in demands:
        fits = [node for node in views if node.state == "up" and node.connected and node.free >= slots]
        answer = place(Demand(slots=slots), views)
        assert isinstance(answer, Assign) == bool(fits)
        if isinstance(answer, Assign):
            views = take(views, answer.node, slots)
        assert all(node.used <= node.slots for node in views)
