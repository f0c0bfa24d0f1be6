"""`igor why RUN` in each situation in which people ask: the real loops decide, and the cause is there by its name.

Scheduled times without a run have theirs in `tests/unit/http/test_http_why.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from igor_node.definitions.jobs import Stage, encode_job
from igor_node.http.api.why import why_json
from igor_node.ledger import query_live, query_runs
from igor_node.ledger.commands import CancelRun, CreateRun, NodeChanged, PauseJobs, PushProject
from igor_node.words import new_id
from tests.unit.leader.world import World, job

HOUR = 3_600


def reasons(world: World, run: str) -> str:
    def ask(connection: Any) -> dict[str, Any]:
        return why_json(query_live.why(connection, run), query_runs.run(connection, run, with_stages=False), {}, world.clock.now())

    found = world.query(ask)
    return f"{found['state']}: " + " | ".join(found["reasons"])


def create(world: World, name: str = "j", **more: Any) -> str:
    run = new_id(world.clock.now())
    world.propose(CreateRun(job=f"p/{name}", run=run, **more))
    return run


async def behind(world: World, overlap: str, number: int = 2, **fields: Any) -> str:
    """The last of so many runs of a job whose command takes an hour."""
    world.push(job(every_s=None, overlap=overlap, **fields))
    world.durations["j"] = HOUR
    runs = []
    for _ in range(number):
        runs.append(create(world))
        await world.run(3)
    return runs[-1]


async def queued(world: World) -> str:
    return await behind(world, "queue")


async def third_in_line(world: World) -> str:
    return await behind(world, "queue", 3)


async def queue_one(world: World) -> str:
    return await behind(world, "queue_one", 3)


async def skipped(world: World) -> str:
    return await behind(world, "skip")


async def queue_full(world: World) -> str:
    await behind(world, "queue", 4, max_queued=1)
    return str(world.query(lambda c: c.execute("SELECT id FROM runs WHERE state = 'skipped'").fetchone())[0])


async def max_parallel(world: World) -> str:
    return await behind(world, "allow", 3, max_parallel=2)


async def cancelled_for_the_next(world: World) -> str:
    await behind(world, "cancel")
    await world.run(5)
    return str(world.query(lambda c: c.execute("SELECT id FROM runs WHERE state = 'cancelled'").fetchone())[0])


async def asks_too_much(world: World) -> str:
    world.push(job(every_s=None, stage={"slots": 9}))
    run = create(world)
    await world.run(3)
    return run


async def lacks_a_label(world: World) -> str:
    world.push(job(every_s=None, stage={"constraints": {"gpu": "yes"}}))
    run = create(world)
    await world.run(3)
    return run


async def all_full(world: World) -> str:
    world.push(job("big", every_s=None, stage={"slots": 4}), job(every_s=None))
    world.durations["big"] = HOUR
    create(world, "big")
    await world.run(2)
    run = create(world)
    await world.run(3)
    return run


async def all_drained(world: World) -> str:
    world.propose(NodeChanged(node="id-n1", state="draining", reason="new disks"))
    world.push(job(every_s=None))
    run = create(world)
    await world.run(3)
    return run


async def all_cut_off(world: World) -> str:
    world.push(job(every_s=None))
    world.nodes["n1"].disconnect()
    run = create(world)
    await world.run(3)
    return run


async def all_silent(world: World) -> str:
    run = await all_cut_off(world)
    await world.run(8)
    return run


def pooled(world: World, pools: dict[str, int]) -> None:
    jobs = [job("first", every_s=None, stage={"pools": ("p/db",)}), job(every_s=None, stage={"pools": ("p/db",)})]
    world.propose(PushProject(project="p", jobs=tuple(encode_job(one) for one in jobs), pools=pools))
    world.durations["first"] = HOUR


async def pool_full(world: World) -> str:
    pooled(world, {"db": 1})
    create(world, "first")
    await world.run(2)
    run = create(world)
    await world.run(3)
    return run


async def pool_unknown(world: World) -> str:
    pooled(world, {})
    run = create(world)
    await world.run(3)
    return run


async def waited_long(world: World) -> str:
    run = await all_full(world)
    await world.run(150)
    return run


async def kept_for_a_larger_one(world: World) -> str:
    """Of four slots three are taken; one that needs two has waited for more than a minute."""
    world.push(job("held", every_s=None, stage={"slots": 3}), job("large", every_s=None, stage={"slots": 2}), job(every_s=None))
    world.durations["held"] = HOUR
    create(world, "held")
    await world.run(2)
    create(world, "large")
    await world.run(70)
    run = create(world)
    await world.run(3)
    return run


async def cancelled(world: World) -> str:
    run = await behind(world, "queue", 1)
    world.propose(CancelRun(run=run, reason="wrong day"))
    await world.run(3)
    return run


async def failed(world: World) -> str:
    """Its node is lost with it, and it may not be made again."""
    run = await behind(world, "queue", 1, stages=(Stage(name="main", command="x", on_node_loss="fail"),))
    world.nodes["n1"].die()
    await world.run(400)
    return run


async def waits_for_another_node(world: World) -> str:
    """Lost with its node; there is no other."""
    run = await behind(world, "queue", 1)
    world.nodes["n1"].die()
    await world.run(400)
    return run


async def handed_back_by_a_pause(world: World) -> str:
    world.push(job(every_s=60))
    await world.run(57)
    world.propose(PauseJobs(jobs=("p/j",), reason="moving house"))
    await world.run(10)
    return str(world.query(lambda c: c.execute("SELECT id FROM runs").fetchone())[0])


SITUATIONS: list[tuple[Callable[[World], Awaitable[str]], str]] = [
    (queued, "of the same job has not ended (overlap: queue)"),
    (third_in_line, "of the same job has not ended (overlap: queue) (waits for"),
    (queue_one, "is waiting already and stands for it (overlap: queue_one)"),
    (skipped, "has not ended (overlap: skip)"),
    (queue_full, "skipped: queue full"),
    (max_parallel, "2 runs of the same job are going, as many as max_parallel allows"),
    (cancelled_for_the_next, "cancelled for the next run (overlap: cancel)"),
    (asks_too_much, "n1 has 4 slots, 9 are needed"),
    (lacks_a_label, "n1 lacks label gpu=yes"),
    (all_full, "n1 is full: 4 of 4 slots taken"),
    (all_drained, "n1 is draining"),
    (all_cut_off, "n1 is not connected"),
    (all_silent, "n1 is silent"),
    (pool_full, "pool p/db is full: 1 of 1 slots held by run "),
    (pool_unknown, "pool p/db is not defined"),
    (waited_long, "its priority is 2, of which 2 grew with waiting"),
    (kept_for_a_larger_one, "n1 is kept for run "),
    (cancelled, "cancelled: wrong day"),
    (failed, "lost with its node (on_node_loss: fail)"),
    (waits_for_another_node, "n1 is lost | attempt 1 on node n1 was lost: node n1 did not renew the lease"),
    (handed_back_by_a_pause, "skipped: paused: moving house"),
]


@pytest.mark.parametrize(("situation", "cause"), SITUATIONS, ids=[situation.__name__ for situation, _ in SITUATIONS])
async def test_the_cause_by_its_name(tmp_path: Path, situation: Callable[[World], Awaitable[str]], cause: str) -> None:
    async with World(tmp_path) as world:
        await world.join("n1", slots=4)
        await world.lead()
        run = await situation(world)
        assert cause in reasons(world, run), reasons(world, run)


async def test_a_cluster_without_nodes_says_so(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.lead()
        world.push(job(every_s=None))
        run = create(world)
        await world.run(3)
        assert "no node has joined" in reasons(world, run)
