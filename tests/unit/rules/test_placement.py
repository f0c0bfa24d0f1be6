"""Placement: every node that cannot take a stage says why, the freest of the others gets it."""

from __future__ import annotations

import pytest

from igor_node.rules.placement import Assign, Demand, NodeView, Wait, place, rejection, take

FREE = NodeView("1", "n1", "up", 4, used=1)
FREER = NodeView("2", "n2", "up", 4, used=0, labels={"zone": "eu"})
FULL = NodeView("3", "n3", "up", 4, used=4)
SILENT = NodeView("4", "n4", "silent", 4)
RUNS = [f"run-{number}" for number in range(300)]


@pytest.mark.parametrize(
    ("demand", "node", "why"),
    [
        pytest.param(Demand(), FREE, None, id="free"),
        pytest.param(Demand(slots=3), FREE, None, id="just fits"),
        pytest.param(Demand(slots=4), FREE, "is full: 1 of 4 slots taken", id="does not fit now"),
        pytest.param(Demand(slots=5), FREE, "has 4 slots, 5 are needed", id="never fits"),
        pytest.param(Demand(), FULL, "is full: 4 of 4 slots taken", id="full"),
        pytest.param(Demand(), SILENT, "is silent", id="silent"),
        pytest.param(Demand(), NodeView("5", "n5", "draining", 4), "is draining", id="draining"),
        pytest.param(Demand(), NodeView("5", "n5", "lost", 4), "is lost", id="lost"),
        pytest.param(Demand(), NodeView("5", "n5", "up", 4, connected=False), "is not connected", id="stream is down"),
        pytest.param(Demand(constraints={"zone": "eu"}), FREER, None, id="has the label"),
        pytest.param(Demand(constraints={"zone": "us"}), FREER, "lacks label zone=us (it has zone=eu)", id="another value"),
        pytest.param(Demand(constraints={"gpu": "true"}), FREER, "lacks label gpu=true", id="no such label"),
        pytest.param(Demand(constraints={"node": "n2"}), FREER, None, id="a node's own name is a label"),
    ],
)
def test_why_a_node_cannot_take_a_stage(demand, node, why):
    assert rejection(demand, node) == why


def test_the_freest_node_gets_it_and_the_others_lacks_are_kept():
    assert place(Demand(), [FREE, FREER, FULL, SILENT]) == Assign("2", "n3 is full: 4 of 4 slots taken; n4 is silent")


def test_with_equally_many_free_slots_the_larger_free_share_decides():
    half_busy, idle = NodeView("a", "a", "up", 8, used=4), NodeView("b", "b", "up", 4)
    assert {place(Demand(), [half_busy, idle], run) for run in RUNS} == {Assign("b")}


def test_between_equals_the_run_draws_so_that_work_goes_round():
    """The same run draws the same node, in whatever order the nodes come; many runs draw each about as often."""
    nodes = [NodeView(name, name, "up", 4) for name in "abc"]
    drawn = [place(Demand(), nodes, run) for run in RUNS]
    assert drawn == [place(Demand(), nodes[::-1], run) for run in RUNS]
    assert all(len(RUNS) / 4 < drawn.count(Assign(name)) < len(RUNS) / 2 for name in "abc")


def test_a_node_that_lost_an_attempt_comes_last_but_is_better_than_none():
    assert place(Demand(avoid=frozenset({"2"})), [FREE, FREER]) == Assign("1")
    assert place(Demand(avoid=frozenset({"2"})), [FREER]) == Assign("2")


def test_what_waits_says_why():
    assert place(Demand(), [FULL, SILENT]) == Wait("no node can take it: n3 is full: 4 of 4 slots taken; n4 is silent")
    assert place(Demand(), []) == Wait("no node has joined")


def test_a_reason_in_a_large_fleet_stays_short():
    nodes = [NodeView(f"{n:03}", f"n{n:03}", "silent", 1) for n in range(300)]
    assert place(Demand(), nodes) == Wait("no node can take it: n000, n001, n002, n003 and 296 more is silent")


def test_the_next_decision_of_a_batch_sees_what_was_given_away():
    """Three stages on two nodes of two slots spread 2 to 1."""
    nodes = [NodeView("a", "a", "up", 2), NodeView("b", "b", "up", 2)]
    chosen = []
    for _ in range(3):
        answer = place(Demand(), nodes)
        assert isinstance(answer, Assign)
        chosen.append(answer.node)
        nodes = take(nodes, answer.node, 1)
    assert sorted(chosen[:2]) == ["a", "b"]
