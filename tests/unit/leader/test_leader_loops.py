"""The smaller loops: autopilot, retention, timekeeping; and what the leader does when one of its loops fails."""

from __future__ import annotations

import pytest

from igor_node.definitions.jobs import Param, encode_job
from igor_node.leader import retention
from igor_node.leader.assignments import assignment
from igor_node.leader.autopilot import host_and_port
from igor_node.leader.fires import FiresLoop
from igor_node.leader.placement import decide
from igor_node.leader.retention import cutoffs, is_due
from igor_node.ledger import query_attempts, query_prune
from igor_node.ledger.commands import CreateBackfill, CreateRun, PushProject
from igor_node.ledger.query_prune import Ages
from igor_node.ledger.waiting import waiting_stages
from igor_node.rules.placement import NodeView
from igor_node.words import SECOND, new_id
from raft.interface import Member, Members
from tests.unit.leader.world import KEY, START, FakePeer, World, job

DAY = 86_400 * SECOND


@pytest.mark.parametrize(("address", "found"), [("http://10.0.0.1:7946", "10.0.0.1:7946"), ("https://h:1/", "h:1"), ("h:2", "h:2")])
def test_a_members_address_is_host_and_port(address, found):
    assert host_and_port(address) == found


async def test_the_autopilot_follows_the_rule_step_by_step(tmp_path):
    async with World(tmp_path, wanted_voters=3) as world:
        for name in ("n1", "n2", "n3"):
            await world.join(name)
        await world.lead()
        replica = world.replica
        replica.status_now.members = Members(voters=(Member("id-n1", "n1:1"),))
        await world.run(1.6)
        assert replica.steps[:1] == [("learner", "id-n2")]
        learners = (Member("id-n2", "n2:1"), Member("id-n3", "n3:1"))
        replica.status_now.members = Members(voters=(Member("id-n1", "n1:1"),), learners=learners)
        replica.steps.clear()
        await world.run(3)
        assert replica.steps == []
        replica.status_now.peers = {"id-n2": FakePeer(), "id-n3": FakePeer()}
        await world.run(1)
        assert replica.steps[:1] == [("voter", "id-n2")]


async def test_a_clock_that_jumps_hands_over_and_decides_nothing_meanwhile(tmp_path):
    """One hour ahead: the fires of that hour are not made before the leader, being alone, has taken the new time for good."""
    async with World(tmp_path) as world:
        await world.join("n1")
        world.push(job(every_s=600))
        await world.lead()
        await world.run(10.5)
        world.clock.skew = 3_600 * SECOND
        await world.clock.settle()
        assert world.states() == []
        await world.run(2)
        assert world.replica.transfers == 1
        await world.run(5)
        assert [at for at, _ in world.states()] == [3_600]


def test_what_retention_forgets():
    """Runs that ended 90 days ago, or were made before those that are too many; results and events after a day."""
    prune = cutoffs(100 * DAY, None)
    assert (prune.runs_before, prune.results_before, prune.events_before) == (10 * DAY, 99 * DAY, 99 * DAY)
    assert cutoffs(100 * DAY, 50 * DAY).created_before == 50 * DAY


def ages(*, run: int | None = None, result: str | None = None, event: int | None = None, staged: int | None = None) -> Ages:
    return Ages(oldest_run_created_at=run, oldest_result=result, oldest_event_at=event, oldest_staged_at=staged)


@pytest.mark.parametrize(
    ("kept", "due"),
    [
        pytest.param(ages(), False, id="an empty ledger"),
        pytest.param(ages(run=9 * DAY), True, id="an old run"),
        pytest.param(ages(run=11 * DAY, result=new_id(99 * DAY + SECOND), event=99 * DAY, staged=100 * DAY - 1), False, id="all kept"),
        pytest.param(ages(result=new_id(98 * DAY)), True, id="an old result"),
        pytest.param(ages(event=98 * DAY), True, id="an old event"),
        pytest.param(ages(staged=99 * DAY), True, id="parts of a push that never came whole"),
    ],
)
def test_when_there_is_something_to_forget(kept, due):
    assert is_due(kept, cutoffs(100 * DAY, None), 100 * DAY) is due


def test_runs_that_are_too_many_are_due():
    """However young the oldest is."""
    assert is_due(ages(), cutoffs(100 * DAY, 100 * DAY - SECOND), 100 * DAY)


async def test_retention_keeps_the_newest_runs(tmp_path, monkeypatch):
    """Of those that have ended; and it rests when nothing can be forgotten, though an old run that goes on is one too many."""
    monkeypatch.setattr(retention, "RUNS_KEPT", 5)
    async with World(tmp_path) as world:
        await world.join("n1")
        world.durations["slow"] = 10_000
        world.push(job(name="slow", every_s=None), job(name="quick", every_s=10))
        await world.lead()
        world.propose(CreateRun(job="p/slow", run="0" * 20))
        await world.run(400)
        runs = world.query(lambda connection: connection.execute("SELECT id, job, ended_at FROM runs ORDER BY id").fetchall())
        assert ("0" * 20, "p/slow", None) in runs
        assert 5 <= len(runs) <= 5 + 60 / 10 + 2
        prunes = world.ledger.applied().index
        await world.run(30)
        assert world.ledger.applied().index - prunes < 30


async def test_retention_goes_on_until_nothing_old_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(retention, "EVENTS_KEPT_FOR", 60 * SECOND)
    monkeypatch.setattr(retention, "RESULTS_KEPT_FOR", 60 * SECOND)
    async with World(tmp_path) as world:
        world.push(job(every_s=None))
        await world.lead()
        await world.run(200)
        ages = world.query(query_prune.ages)
        assert ages.oldest_event_at is None or ages.oldest_event_at >= START + 60 * SECOND


async def test_a_loop_that_fails_begins_again_and_stops_no_other(tmp_path, monkeypatch):
    failures = iter([RuntimeError("our own mistake")])
    original = FiresLoop._take_due

    def fails_once(self, now):
        for failure in failures:
            raise failure
        return original(self, now)

    monkeypatch.setattr(FiresLoop, "_take_due", fails_once)
    async with World(tmp_path) as world:
        await world.join("n1")
        world.push(job(every_s=10))
        await world.lead()
        await world.run(21)
        assert world.started() == [10, 20]
        assert "our own mistake" in world.faults.found.pop()


async def test_a_push_between_reading_and_proposing_is_decided_again(tmp_path):
    """The fires loop read version 1; the new version's schedule decides."""
    async with World(tmp_path) as world:
        await world.join("n1")
        world.push(job(every_s=60))
        await world.lead()
        await world.run(50)
        world.push(job(every_s=20))
        await world.run(41)
        assert world.started() == [60, 80]


async def test_a_removed_job_fires_no_more(tmp_path):
    async with World(tmp_path) as world:
        await world.join("n1")
        world.push(job(every_s=10), job("other", every_s=None))
        await world.lead()
        await world.run(12)
        world.push(job("other", every_s=None))
        await world.run(40)
        assert world.started() == [10]


async def test_an_assignment_carries_values_and_params(tmp_path):
    definition = job(
        every_s=None,
        params={"day": Param(type="date", default="${{ scheduled_date }}"), "who": Param(default="nobody")},
        stage={"env": {"DAY": "${{ params.day }}"}},
    )
    async with World(tmp_path) as world:
        node = await world.join("n1")
        world.propose(PushProject(project="p", jobs=(encode_job(definition),)))
        await world.lead()
        run = new_id(world.clock.now())
        world.propose(CreateRun(job="p/j", run=run, params={"who": "me"}))
        await world.run(0.2)
        row = world.query(query_attempts.open_attempts)[0]
        made = assignment(row, KEY, ["http://n1:1"])
        assert made.params == {"day": "2027-01-15", "who": "me"}
        assert (made.env, made.trigger, made.n, made.renew_addresses) == ({"DAY": "2027-01-15"}, "manual", 1, ("http://n1:1",))
        assert made.attempt in node.known


async def test_an_assignment_knows_the_voters_of_this_very_moment(tmp_path):
    """A change of the members touches nothing in the ledger that the leader waits for; the next assignment carries it all the same."""
    async with World(tmp_path) as world:
        node = await world.join("n1")
        world.push(job(every_s=None))
        await world.lead()
        world.replica.status_now.members = Members(voters=tuple(Member(f"id-n{n}", f"n{n}:1") for n in (1, 2, 3)))
        world.propose(CreateRun(job="p/j", run=new_id(world.clock.now())))
        await world.run(0.1)
        assert node.renew_addresses == ("http://n1:1", "http://n2:1", "http://n3:1")


async def test_each_stage_that_finds_no_place_is_told_why_for_itself(tmp_path):
    """Also where many ask for the same, and though the words change with each that is placed."""
    async with World(tmp_path) as world:
        world.push(job("small", every_s=None, overlap="allow", max_parallel=10), job("large", every_s=None, stage={"slots": 2}))
        for name in ("large", "small", "small", "small"):
            world.propose(CreateRun(job=f"p/{name}", run=new_id(world.clock.now())))
        waiting = world.query(lambda c: waiting_stages(c, world.clock.now()))
        placements, reasons = decide(waiting, [NodeView("1", "n1", "up", 3), NodeView("2", "n2", "silent", 3)], {}, KEY, world.clock.now())
        assert len(placements) == 2
        full = "no node can take it: n1 is full: 3 of 3 slots taken; n2 is silent"
        assert list(reasons.values()) == [full, full]


async def test_a_backfill_goes_on_by_itself_one_run_after_the_other(tmp_path):
    async with World(tmp_path) as world:
        await world.join("n1")
        world.push(job(every_s=None))
        await world.lead()
        times = tuple(START - (9 - number) * 60 * SECOND for number in range(4))
        world.propose(CreateBackfill(backfill="b1", job="p/j", times=times))
        await world.run(0.5)
        assert len(world.states()) == 1
        await world.run(60)
        assert world.states() == [((at - START) // SECOND, "succeeded") for at in times]


async def test_higher_priority_is_placed_first(tmp_path):
    async with World(tmp_path) as world:
        world.push(job("low", every_s=None), job("high", every_s=None, priority=5))
        for name in ("low", "high"):
            world.propose(CreateRun(job=f"p/{name}", run=new_id(world.clock.now())))
        waiting = world.query(lambda c: waiting_stages(c, world.clock.now()))
        placements, reasons = decide(waiting, [NodeView("1", "n1", "up", 1)], {}, KEY, world.clock.now())
        assert len(placements) == 1
        assert next(one.job for one in waiting if one.run == placements[0].run) == "p/high"
        assert list(reasons.values()) == ["no node can take it: n1 is full: 1 of 1 slots taken"]
