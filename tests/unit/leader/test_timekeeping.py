"""A leader's clock: what it hands over for, what it does not schedule meanwhile, and that a step never gets into anything before it is believed."""

from __future__ import annotations

import time

import pytest

from igor_node.edges import SystemClock
from igor_node.words import SECOND
from raft.interface import Member, Members
from tests.unit.leader.test_leader_loops import job
from tests.unit.leader.world import World

VOTERS = Members(voters=tuple(Member(f"id-n{number}", f"127.0.0.1:{number}") for number in (1, 2, 3)))


async def leading(world: World, *errors_s: float) -> None:
    """Three voters, of which n1 leads; `errors_s` are the clocks of n2 and n3 less its own."""
    for name in ("n1", "n2", "n3"):
        await world.join(name)
    for name, error_s in zip(("n2", "n3"), errors_s, strict=True):
        world.nodes[name].clock_error_ns = int(error_s * SECOND)
    world.push(job(every_s=10))
    await world.lead(VOTERS)


async def test_a_leader_that_is_off_the_median_hands_over_and_schedules_nothing(tmp_path):
    async with World(tmp_path) as world:
        await leading(world, -5.2, -5.0)
        await world.run(9)
        assert world.states() == []
        assert world.replica.steps[0] == ("transfer", "id-n3")


async def test_a_leader_that_agrees_schedules_and_names_the_node_that_does_not(tmp_path, caplog):
    async with World(tmp_path) as world:
        await leading(world, 0.1, 10.0)
        await world.run(31)
        assert world.states() and not world.replica.transfers
        said = [record.message for record in caplog.records if "clock of node" in record.message]
        assert said == ["the clock of node id-n3 is 10.000 s off this leader's; what it starts it starts by the leader's"]


async def test_a_young_leader_waits_for_a_majority_to_agree_but_not_for_long(tmp_path):
    async with World(tmp_path) as world:
        await leading(world, 0.0, 0.0)
        for name in ("n2", "n3"):
            world.nodes[name].clock_error_ns = None
        await world.lead(VOTERS)
        assert world.leader is not None
        await world.run(31)
        assert world.states()
        assert not world.replica.transfers


async def test_a_step_is_believed_when_nobody_can_take_over(tmp_path):
    async with World(tmp_path) as world:
        await leading(world, 0.0, 0.0)
        await world.run(5)
        world.clock.skew = 3_600 * SECOND
        await world.run(5)
        assert world.replica.transfers >= 2 and world.clock.jump() == 3_600 * SECOND
        await world.run(30)
        assert world.clock.jump() == 0


class Wall:
    """Moves the wall clock of this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.by = 0
        real = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: real() + self.by)


def test_a_guarded_clock_goes_on_steadily_when_the_wall_clock_steps(monkeypatch):
    wall, clock = Wall(monkeypatch), SystemClock()
    clock.guard(True)
    before = clock.now()
    wall.by = 3_600 * SECOND
    assert before <= clock.now() < before + 5 * SECOND
    assert abs(clock.jump() - 3_600 * SECOND) < SECOND
    clock.believe()
    assert clock.now() > before + 3_500 * SECOND and abs(clock.jump()) < SECOND


def test_a_guarded_clock_follows_small_corrections(monkeypatch):
    wall, clock = Wall(monkeypatch), SystemClock()
    clock.guard(True)
    for _ in range(10):
        wall.by += SECOND // 2
        clock.now()
    assert abs(clock.now() - time.time_ns()) < SECOND // 10


def test_a_clock_that_nobody_guards_is_the_wall_clock(monkeypatch):
    wall, clock = Wall(monkeypatch), SystemClock()
    wall.by = -3_600 * SECOND
    assert abs(clock.now() - time.time_ns()) < SECOND // 10
