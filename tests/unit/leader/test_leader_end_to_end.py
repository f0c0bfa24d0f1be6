"""The leader's loops together, on a real ledger, with nodes that run commands in virtual time: a fire's whole way, and its bad days."""

from __future__ import annotations

from itertools import pairwise

from igor_node.definitions.jobs import CatchUp, Schedule
from igor_node.ledger import query_attempts, query_cluster, query_jobs
from igor_node.ledger.commands import CancelRun, CreateRun, PauseJobs, ResumeJobs
from igor_node.ledger.waiting import waiting_stages
from igor_node.words import SECOND, new_id
from tests.unit.leader.world import START, World, job


async def test_a_fire_becomes_a_run_that_starts_at_its_due_time(tmp_path):
    """Fired and handed out five seconds early, started when due, its end in the ledger."""
    async with World(tmp_path) as world:
        await world.join("n1")
        world.push(job(every_s=60))
        await world.lead()
        await world.run(56)
        assert world.states() == [(60, "scheduled")]
        assert [attempt.state for attempt in world.query(query_attempts.open_attempts)] == ["held"]
        await world.run(3.9)
        assert world.started() == []
        await world.run(4)
        assert world.started() == [60]
        assert world.states() == [(60, "succeeded")]
        assert world.query(lambda c: c.execute("SELECT lateness_ns FROM runs").fetchone()) == (0,)


async def test_a_leader_that_dies_makes_no_fire_late_if_the_next_comes_within_the_lookahead(tmp_path):
    async with World(tmp_path) as world:
        await world.join("n1")
        await world.join("n2")
        world.push(job(every_s=10))
        await world.lead()
        await world.run(26)
        await world.depose()
        await world.run(3.5)
        await world.lead()
        await world.run(31)
        assert world.started() == [10, 20, 30, 40, 50, 60]
        assert [state for _, state in world.states()][:5] == ["succeeded"] * 5


async def test_fires_that_nobody_could_make_are_caught_up_by_their_window(tmp_path):
    """Ten minutes without a leader: `latest` runs one, and the rest is one record."""
    async with World(tmp_path) as world:
        await world.join("n1")
        world.push(job(every_s=60), job("all", schedules=(Schedule(every_ns=60 * SECOND, catch_up=CatchUp(window_ns=150 * SECOND, policy="all")),)))
        await world.run(605)
        await world.lead()
        await world.run(20)
        assert world.states() == [(600, "succeeded")]
        assert world.states("p/all") == [(480, "succeeded"), (540, "succeeded"), (600, "succeeded")]
        rows = world.query(lambda c: c.execute("SELECT job, first, last, count, outcome FROM stretches ORDER BY job").fetchall())
        assert [(name, (first - START) // SECOND, (last - START) // SECOND, number, what) for name, first, last, number, what in rows] == [
            ("p/all", 60, 420, 7, "missed"),
            ("p/j", 60, 540, 9, "missed"),
        ]


async def test_queue_starts_the_next_as_soon_as_the_earlier_one_ends(tmp_path):
    """A command of 34 s every 30."""
    async with World(tmp_path) as world:
        await world.join("n1")
        world.durations["j"] = 34
        world.push(job(every_s=30, overlap="queue"))
        await world.lead()
        await world.run(190)
        begun = world.started()
        assert begun[0] == 30
        assert all(33.9 < later - earlier < 34.5 for earlier, later in pairwise(begun))
        assert world.together() == 1
        waiting = [reason for _, state, reason in world.runs() if state == "queued"]
        assert waiting and all("of the same job" in reason for reason in waiting)


async def test_skip_records_the_fire_that_came_too_early(tmp_path):
    async with World(tmp_path) as world:
        await world.join("n1")
        world.durations["j"] = 34
        world.push(job(every_s=30, overlap="skip"))
        await world.lead()
        await world.run(135)
        assert world.states() == [(30, "succeeded"), (60, "skipped"), (90, "succeeded"), (120, "skipped")]
        assert "has not ended (overlap: skip)" in world.runs()[1][2]


async def test_a_lost_machine_is_rerun_elsewhere_and_the_two_never_overlap(tmp_path):
    """Lease of 10 s: silent after 5, lost after lease and margin, then another node."""
    async with World(tmp_path) as world:
        first = await world.join("n1")
        world.durations["j"] = 30
        world.push(job(every_s=600, lease_ns=10 * SECOND))
        await world.lead()
        await world.run(597)
        second = await world.join("n2")
        await world.run(10)
        assert world.started() == [600]
        first.die()
        await world.run(60)
        attempts = world.query(lambda c: c.execute("SELECT n, node, state FROM attempts ORDER BY n").fetchall())
        assert attempts == [(1, first.id, "lost"), (2, second.id, "succeeded")]
        assert world.together() == 1
        assert world.states() == [(600, "succeeded")]
        assert {row.name: row.state for row in world.query(query_cluster.nodes)} == {"n1": "lost", "n2": "up"}


async def test_a_node_that_is_cut_off_ends_its_command_before_the_next_attempt_starts(tmp_path):
    """The machine lives on, without a leader: its lease ends the command, and when it is back its late result is only noted."""
    async with World(tmp_path) as world:
        first = await world.join("n1")
        world.durations["j"] = 100
        world.push(job(every_s=3600, lease_ns=10 * SECOND))
        await world.lead()
        await world.run(3597)
        await world.join("n2")
        await world.run(10)
        first.disconnect()
        await world.run(25)
        assert [(start.node, start.ended_at is None) for start in world.starts] == [("n1", False), ("n2", True)]
        assert world.starts[0].ended_at < world.starts[1].at
        first.connected = True
        await world.run(120)
        assert world.together() == 1
        assert world.states() == [(3600, "succeeded")]
        assert {row.name: row.state for row in world.query(query_cluster.nodes)} == {"n1": "up", "n2": "up"}


async def test_an_assignment_that_was_never_received_is_lost_like_any_other(tmp_path):
    """The node dies between being chosen and hearing of it."""
    async with World(tmp_path) as world:
        first = await world.join("n1")
        world.push(job(every_s=None, lease_ns=10 * SECOND))
        await world.lead()
        await world.run(2)
        first.inbox = first.inbox.__class__()  # it hears and says nothing any more
        first._accept = lambda one: None
        world.propose(CreateRun(job="p/j", run=new_id(world.clock.now())))
        await world.run(1)
        await world.join("n2")
        first.alive = False
        await world.run(40)
        assert [start.node for start in world.starts] == ["n2"]
        assert [state for _, state in world.states()] == ["succeeded"]


async def test_a_new_leader_counts_leases_from_the_begin_of_its_own_term(tmp_path):
    async with World(tmp_path) as world:
        first = await world.join("n1")
        world.durations["j"] = 100
        world.push(job(every_s=None, lease_ns=10 * SECOND))
        await world.lead()
        world.propose(CreateRun(job="p/j", run=new_id(world.clock.now())))
        await world.run(3)
        await world.depose()
        first.lease_ends = dict.fromkeys(first.lease_ends, 10**18)  # the wrapper renews by itself with the voters
        await world.run(60)
        await world.lead()
        await world.run(60)
        assert [state for _, state in world.states()] == ["succeeded"]


async def test_a_pause_is_one_record_and_a_resume_never_runs_it(tmp_path):
    async with World(tmp_path) as world:
        await world.join("n1")
        world.push(job(every_s=10))
        await world.lead()
        await world.run(22)
        world.propose(PauseJobs(jobs=("p/j",), reason="maintenance"))
        await world.run(200)
        world.propose(ResumeJobs(jobs=("p/j",)))
        await world.run(20)
        assert [at for at in world.started() if at > 40][:2] == [230, 240]
        rows = world.query(lambda c: c.execute("SELECT first, last, count, reason FROM stretches").fetchall())
        assert len(rows) == 1
        first, last, number, reason = rows[0]
        assert ((first - START) // SECOND, (last - START) // SECOND, number) in {(30, 220, 20), (40, 220, 19)}
        assert reason == "paused"


async def test_a_pause_with_an_end_ends_by_itself(tmp_path):
    async with World(tmp_path) as world:
        await world.join("n1")
        world.push(job(every_s=10))
        await world.lead()
        await world.run(1)
        world.propose(PauseJobs(jobs=("p/j",), until=START + 45 * SECOND))
        await world.run(70)
        assert world.started() == [50, 60, 70]
        assert not world.query(lambda c: query_jobs.job(c, "p/j")).paused


async def test_a_cancel_ends_the_command_and_is_recorded_when_it_has_ended(tmp_path):
    async with World(tmp_path) as world:
        await world.join("n1")
        world.durations["j"] = 1_000
        world.push(job(every_s=None))
        await world.lead()
        run = new_id(world.clock.now())
        world.propose(CreateRun(job="p/j", run=run))
        await world.run(5)
        world.propose(CancelRun(run=run, reason="enough"))
        await world.run(2)
        assert [state for _, state in world.states()] == ["cancelled"]
        assert world.starts[0].ended_at is not None


async def test_work_spreads_by_free_slots_and_what_finds_none_says_why(tmp_path):
    async with World(tmp_path) as world:
        await world.join("n1", slots=2)
        await world.join("n2", slots=1)
        world.durations |= {f"j{n}": 50 for n in range(4)}
        world.push(*(job(f"j{n}", every_s=None) for n in range(4)))
        await world.lead()
        for n in range(4):
            world.propose(CreateRun(job=f"p/j{n}", run=new_id(world.clock.now())))
        await world.run(10)
        assert sorted(start.node for start in world.starts) == ["n1", "n1", "n2"]
        reasons = [row.reason for row in world.query(lambda c: waiting_stages(c, world.clock.now()))]
        assert reasons == ["no node can take it: n1 is full: 2 of 2 slots taken; n2 is full: 1 of 1 slots taken"]
        await world.run(60)
        assert len(world.starts) == 4


async def test_a_lagging_quorum_lease_renews_nothing(tmp_path):
    """Without it no heartbeat is answered, so that the wrapper's count and the leader's cannot part."""
    async with World(tmp_path) as world:
        node = await world.join("n1")
        await world.lead()
        await world.run(5)
        world.replica.lease = False
        node.received.clear()
        await world.run(5)
        assert node.received == []


async def test_a_job_of_every_second_never_misses_nor_doubles_through_three_leaders(tmp_path):
    async with World(tmp_path) as world:
        await world.join("n1", slots=20)
        world.durations["j"] = 0.5
        world.push(job(every_s=1))
        for _ in range(3):
            await world.lead()
            await world.run(20)
        states = world.states()
        assert [at for at, _ in states] == list(range(1, states[-1][0] + 1))
        assert len(world.started()) == len(set(world.started())) >= 60
        counts = world.audit()
        assert (counts["due"], counts["ran"] + counts["pending"]) == (59, 59)
        assert (counts["doubled"], counts["unaccounted"]) == (0, 0)


async def test_every_fire_is_accounted_for_through_gaps_pushes_pauses_and_skips(tmp_path):
    """A bad hour: the audit finds nothing doubled and nothing unaccounted for."""
    async with World(tmp_path) as world:
        await world.join("n1")
        world.durations["j"] = 25
        world.push(job(every_s=20, overlap="skip"))
        await world.lead()
        await world.run(300)
        await world.depose()
        await world.run(900)
        await world.lead()
        await world.run(100)
        world.push(job(every_s=7, overlap="queue_one"))
        await world.run(333)
        world.propose(PauseJobs(jobs=("p/j",)))
        await world.run(500)
        await world.depose()
        world.propose(ResumeJobs(jobs=("p/j",)))
        await world.run(50)
        await world.lead()
        await world.run(600)
        world.push(job(every_s=50, overlap="cancel"))
        await world.run(777)
        counts = world.audit()
        assert (counts["doubled"], counts["unaccounted"]) == (0, 0)
        assert counts["pending"] <= 2
        assert min(counts["ran"], counts["skipped"], counts["missed"]) > 10
        assert world.together() == 1


async def test_a_changed_schedule_never_names_a_time_before_its_push(tmp_path):
    """At 50 s `every: 20s` takes the place of `every: 60s`: neither 20 nor 40 is made or missed."""
    async with World(tmp_path) as world:
        await world.join("n1")
        world.push(job(every_s=60))
        await world.lead()
        await world.run(50)
        world.push(job(every_s=20))
        await world.run(51)
        assert world.started() == [60, 80, 100]
        assert world.audit()["due"] == 3


async def test_what_the_old_schedule_still_owed_at_the_push_is_decided_by_it(tmp_path):
    """Nobody decided for a while; then a push came before a leader: the old schedule's fires up to the push are caught up, the new one's follow."""
    async with World(tmp_path) as world:
        await world.join("n1")
        world.push(job(every_s=60))
        await world.run(130)
        world.push(job(every_s=50))
        await world.lead()
        await world.run(30)
        assert world.states() == [(60, "missed"), (120, "succeeded"), (150, "succeeded")]
