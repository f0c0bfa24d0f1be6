"""The node watch against views that are a moment old, and what becomes of a cancel whose node says nothing any more."""

from __future__ import annotations

from igor_node.ledger import query_cluster
from igor_node.ledger.commands import CancelRun, RegisterNode
from tests.unit.leader.test_leader_hub import Wire
from tests.unit.leader.world import World, job

SLOW_READ_S = 0.2


def register(world: World, name: str) -> None:
    world.propose(RegisterNode(node=f"id-{name}", name=name, address=f"http://{name}:1", slots=4, version="1"))


async def test_what_is_placed_while_the_watch_reads_keeps_its_lease(tmp_path, monkeypatch):
    """A reign older than a lease, and a list of open attempts that takes its time: none of those that are not on it may be called lost."""
    async with World(tmp_path) as world:
        await world.join("n1", slots=50)
        jobs = [job(f"j{number}", every_s=7 + number) for number in range(10)]
        world.push(*jobs)
        world.durations |= {one.name: 3.0 for one in jobs}
        at_once = world.reads.indexed

        async def slow(function):
            found = await at_once(function)
            if function.__qualname__.startswith("NodeWatch."):
                await world.clock.sleep(SLOW_READ_S)
            return found

        monkeypatch.setattr(world.reads, "indexed", slow)
        await world.lead()
        await world.run(300)
        assert len(world.starts) > 200
        assert world.query(lambda c: c.execute("SELECT run, reason FROM attempts WHERE state = 'lost' ORDER BY run").fetchall()) == []


async def test_a_node_that_joins_while_the_watch_reads_keeps_its_stream(tmp_path, monkeypatch):
    async with World(tmp_path) as world:
        at_once, reading = world.reads.indexed, []

        async def slow(function):
            found = await at_once(function)
            if function.__qualname__.startswith("NodeWatch."):
                reading.append(function)
                await world.clock.sleep(SLOW_READ_S)
            return found

        await world.lead()
        await world.run(1)
        monkeypatch.setattr(world.reads, "indexed", slow)
        register(world, "n1")
        while not reading:
            await world.run(0.05)
        register(world, "n2")
        wire = await Wire(world, "n2").open()
        await world.run(SLOW_READ_S * 2)
        assert not wire.task.done()


async def test_what_is_placed_on_a_node_whose_stream_broke_just_then_has_its_whole_lease(tmp_path):
    """Under `on_node_loss: fail` a stream that is away for a second would else fail the run."""
    async with World(tmp_path) as world:
        first = await world.join("n1")
        world.push(job(every_s=400, stage={"on_node_loss": "fail"}))
        leader = await world.lead()
        await world.run(390)
        hub = leader.streams._hub
        hand_out = hub.placed

        async def breaks(attempts):
            hub._streams.clear()
            await hand_out(attempts)

        hub.placed = breaks
        await world.run(5)
        first.disconnect()
        hub.placed = hand_out
        await world.run(2)
        first.connected = True
        await world.run(20)
        assert world.runs()[0][1:] == ("succeeded", "")


async def test_a_cancel_is_recorded_when_the_lease_is_out_though_its_job_waits_for_nodes(tmp_path):
    async with World(tmp_path) as world:
        node = await world.join("n1")
        world.durations["j"] = 10_000.0
        world.push(job(every_s=10_000, lease_ns=20 * 10**9, stage={"on_node_loss": "wait"}))
        await world.lead()
        await world.run(10_001)
        node.die()
        await world.run(60)
        ((_, state, _),) = world.runs()
        assert state == "running"  # waited for
        (run,) = [row[0] for row in world.query(lambda c: c.execute("SELECT id FROM runs ORDER BY id").fetchall())]
        world.propose(CancelRun(run=run, reason="not needed"))
        await world.run(5)
        assert world.runs()[0][1:] == ("cancelled", "not needed; node silent")


async def test_a_node_that_has_just_joined_was_not_silent_before(tmp_path):
    """It was called silent for as long as the leader had led, a moment before its first word; from its joining on it has the time that all have."""

    def state(world: World) -> tuple[str, str]:
        row = world.query(lambda c: query_cluster.node(c, "n1"))
        return row.state, row.reason

    async with World(tmp_path) as world:
        await world.lead()
        await world.run(60)
        register(world, "n1")
        await world.run(4)
        assert state(world)[0] == "up"
        await world.run(2)
        assert state(world) == ("silent", "no heartbeat for 5s")
