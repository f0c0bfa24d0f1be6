"""Pools and large demands: all slots or none, never more than there are, and nobody starves behind many small ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igor_node.definitions.jobs import Job, Stage
from igor_node.leader.placement import decide
from igor_node.ledger.waiting import WaitingStage
from igor_node.rules.placement import GROWS_EVERY, KEEP_AFTER, Assign, Demand, NodeView, PoolView, Wait, grown, keep, place, take_pools
from igor_node.words import SECOND

NODE = NodeView("1", "n1", "up", 4)
POOLS = {"p/db": PoolView(2, ("r1",)), "p/disk": PoolView(1)}


def test_a_stage_gets_a_slot_of_each_pool_or_none():
    assert place(Demand(pools=("p/db", "p/disk")), [NODE], "r2", POOLS) == Assign("1")
    full = take_pools(POOLS, ("p/db",), "r2")
    assert place(Demand(pools=("p/disk", "p/db")), [NODE], "r3", full) == Wait("pool p/db is full: 2 of 2 slots held by run r1, run r2")
    assert place(Demand(), [NODE], "r3", full) == Assign("1")


def test_a_pool_that_nobody_defines_is_named():
    assert place(Demand(pools=("q/x",)), [NODE], "r", POOLS) == Wait("pool q/x is not defined")


def test_a_pool_that_was_made_smaller_waits_until_enough_have_ended():
    assert "3 of 2 slots held" in place(Demand(pools=("p",)), [NODE], "r", {"p": PoolView(2, ("a", "b", "c"))}).reason


@pytest.mark.parametrize(("waited", "priority"), [(-5, 3), (0, 3), (GROWS_EVERY - 1, 3), (GROWS_EVERY, 4), (90 * GROWS_EVERY, 93)])
def test_priority_grows_with_waiting(waited, priority):
    assert grown(3, waited) == priority


def test_the_nearest_node_is_kept_and_named_to_the_others():
    near, far = NodeView("a", "a", "up", 4, used=2), NodeView("b", "b", "up", 4, used=3)
    kept, _ = keep(Demand(slots=4), [far, near], {}, "big")
    assert place(Demand(slots=1), kept, "small") == Assign("b", "a is kept for run big, which waits longer")
    assert place(Demand(slots=2), kept, "small").reason.startswith("no node can take it: a is kept for run big")


def test_who_could_not_run_even_alone_keeps_nothing():
    for demand in (Demand(slots=9), Demand(slots=2, constraints={"gpu": "yes"}), Demand(pools=("p/disk", "q/x"))):
        assert keep(demand, [NODE], POOLS, "r") == ([NODE], POOLS)


def test_a_free_slot_of_one_pool_is_kept_while_another_is_full():
    pools = {"p/a": PoolView(1), "p/b": PoolView(1, ("r1",))}
    _, kept = keep(Demand(pools=("p/a", "p/b")), [NODE], pools, "r2")
    assert place(Demand(pools=("p/a",)), [NODE], "r3", kept) == Wait("pool p/a is full: 1 of 1 slots held by run r2 (kept for it)")


# --- the leader's decisions, many in a row


def waiting(number: int, at: int, slots: int = 1, pools: tuple[str, ...] = (), priority: int = 0) -> WaitingStage:
    run, spec = f"r{number:05d}", Stage(name="main", command="true")
    return WaitingStage(
        run=run, job="p/j", project="p", stage="main", n=1, attempt=f"{run}.main.1", trigger="manual", due_at=at, scheduled_at=None, created_at=at,
        queued_at=at, run_state="queued", begun=False, beside=False, blocked=None, priority=priority, slots=slots, constraints={}, pools=pools,
        avoid=(), reason="", params={}, spec=Job(project="p", name="j", stages=(spec,)), stage_spec=spec,
    )  # fmt: skip


class Yard:
    """Nodes and pools in which stages run for some looks of a second each."""

    def __init__(self, nodes: list[NodeView], pools: dict[str, int]) -> None:
        self.now = 1_000_000 * SECOND
        self.nodes, self.pools = nodes, pools
        self.queue: list[WaitingStage] = []
        self.running: dict[str, tuple[WaitingStage, str, int]] = {}
        self.began: list[str] = []

    def look(self, lasts: int) -> None:
        self.now += SECOND
        self.running = {run: held for run, held in self.running.items() if held[2] > self.now}
        held = [(stage, node) for stage, node, _ in self.running.values()]
        views = [replace(node, used=sum(stage.slots for stage, on in held if on == node.node)) for node in self.nodes]
        pools = {name: PoolView(slots, tuple(stage.run for stage, _ in held if name in stage.pools)) for name, slots in self.pools.items()}
        placements, reasons = decide(self.queue, views, pools, b"k" * 32, self.now)
        assert {(one.run, one.stage) for one in placements} | reasons.keys() == {(one.run, one.stage) for one in self.queue}
        by_run = {stage.run: stage for stage in self.queue}
        for placement in placements:
            self.running[placement.run] = (by_run[placement.run], placement.node, self.now + lasts * SECOND)
            self.began.append(placement.run)
        self.queue = [stage for stage in self.queue if stage.run not in self.running]
        self.check()

    def check(self) -> None:
        for node in self.nodes:
            assert sum(stage.slots for stage, on, _ in self.running.values() if on == node.node) <= node.slots
        for name, slots in self.pools.items():
            assert sum(name in stage.pools for stage, _, _ in self.running.values()) <= slots


@pytest.mark.parametrize(("slots", "pools"), [(4, ()), (1, ("p/a", "p/b"))])
def test_a_large_demand_does_not_starve_behind_many_small_ones(slots, pools):
    """Small ones that last some seconds fill two nodes of four slots for ever; and two pools, of which never both have a slot free at one look."""
    yard = Yard([NodeView("a", "a", "up", 4), NodeView("b", "b", "up", 4)], {"p/a": 1, "p/b": 1})
    for second in range(30 + KEEP_AFTER // SECOND):
        own = [("p/a", "p/b")[second % 2 : second % 2 + 1]] if pools else [()] * 4
        yard.queue += [waiting(10 * second + number, yard.now, pools=names) for number, names in enumerate(own)]
        if second == 20:
            yard.queue.append(waiting(99_999, yard.now, slots, pools))
        yard.look(2 if pools else 3)
    assert "r99999" in yard.began


def test_a_low_priority_is_not_held_back_for_ever():
    yard = Yard([NodeView("a", "a", "up", 1)], {})
    yard.queue.append(waiting(99_999, yard.now, priority=-3))
    for second in range(5 * GROWS_EVERY // SECOND):
        yard.queue.append(waiting(second, yard.now))
        yard.look(1)
    assert "r99999" in yard.began


@given(st.data())
def test_never_more_than_there_is_and_each_gets_a_place_in_the_end(data):
    nodes = [NodeView(str(n), f"n{n}", "up", data.draw(st.integers(1, 4))) for n in range(data.draw(st.integers(1, 3)))]
    pools = {f"p/{n}": data.draw(st.integers(1, 3)) for n in range(3)}
    yard = Yard(nodes, pools)
    most = max(node.slots for node in nodes)
    asked = 0
    for _ in range(data.draw(st.integers(1, 20))):
        for _ in range(data.draw(st.integers(0, 5))):
            names = tuple(data.draw(st.sets(st.sampled_from(sorted(pools)), max_size=3).map(sorted)))
            yard.queue.append(waiting(asked, yard.now, data.draw(st.integers(1, most)), names, data.draw(st.integers(-2, 2))))
            asked += 1
        yard.look(data.draw(st.integers(1, 5)))
    for _ in range(6 * asked + 6):
        yard.look(1)
    assert len(yard.began) == asked and not yard.queue
