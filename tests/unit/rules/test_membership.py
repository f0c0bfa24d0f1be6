"""The autopilot's rule: 1 to 3 voters once two learners are caught up, one step at a time; a lost voter is replaced where somebody is ready."""

from __future__ import annotations

import pytest

from igor_node.rules.membership import AddLearner, Candidate, MemberNow, Promote, Remove, next_step


def node(name: str, **more) -> Candidate:
    return Candidate(name, f"{name}:1", **{"stable": True, **more})


def voter(name: str) -> MemberNow:
    return MemberNow(name, f"{name}:1", voter=True)


def learner(name: str) -> MemberNow:
    return MemberNow(name, f"{name}:1", voter=False)


A, B, C, D = (node(name, caught_up=True) for name in "abcd")


@pytest.mark.parametrize(
    ("members", "nodes", "wanted", "step"),
    [
        pytest.param([voter("a")], [A], 3, None, id="alone"),
        pytest.param([voter("a")], [A, node("b", stable=False)], 3, None, id="a node must be stable first"),
        pytest.param([voter("a")], [A, node("b", ephemeral=True)], 3, None, id="one that comes and goes never votes"),
        pytest.param([voter("a")], [A, B], 3, AddLearner("b", "b:1", "1 of 3 voters"), id="the second becomes a learner"),
        pytest.param([voter("a"), learner("b")], [A, B], 3, None, id="and stays one: with two voters nothing is gained"),
        pytest.param([voter("a"), learner("b")], [A, B, C], 3, AddLearner("c", "c:1", "1 of 3 voters"), id="the third too"),
        pytest.param([voter("a"), learner("b"), learner("c")], [A, B, node("c")], 3, None, id="both must be caught up"),
        pytest.param([voter("a"), learner("b"), learner("c")], [A, B, C], 3, Promote("b", "1 of 3 voters"), id="then the first is promoted"),
        pytest.param([voter("a"), voter("b"), learner("c")], [A, B, C], 3, Promote("c", "2 of 3 voters"), id="and at once the second"),
        pytest.param([voter("a"), voter("b"), voter("c")], [A, B, C, D], 3, None, id="no more than wanted"),
        pytest.param(
            [voter("a"), voter("b"), voter("c")], [A, B, node("c", gone=True)], 3, None, id="a lost voter stays while nobody can replace it"
        ),
        pytest.param(
            [voter("a"), voter("b"), voter("c")], [A, B, node("c", gone=True), D], 3, AddLearner("d", "d:1", "2 of 3 voters"), id="a spare learns"
        ),
        pytest.param(
            [voter("a"), voter("b"), voter("c"), learner("d")],
            [A, B, node("c", gone=True), D],
            3,
            Remove("c", "it is lost, and d can take its place"),
            id="the lost one is removed first",
        ),
        pytest.param([voter("a"), voter("b"), learner("d")], [A, B, D], 3, Promote("d", "2 of 3 voters"), id="then the spare is promoted"),
        pytest.param([voter("a"), voter("b"), voter("c")], [A, B], 3, None, id="one that left and has no replacement"),
        pytest.param([voter("a"), learner("b")], [A, node("b", gone=True)], 3, Remove("b", "it is lost or left"), id="a lost learner goes"),
        pytest.param(
            [voter("a"), voter("b")],
            [A, Candidate("b", "b:2", stable=True)],
            3,
            AddLearner("b", "b:2", "its address changed"),
            id="a node that moved",
        ),
        pytest.param([voter("a"), learner("b")], [A, B], 1, None, id="one voter wanted"),
    ],
)
def test_next_step(members, nodes, wanted, step):
    assert next_step(members, nodes, "a", wanted) == step


def test_from_three_joiners_at_once_to_three_voters():
    """Doing what it says, step by step, ends with three voters and never asks for two changes at once."""
    members = {"a": True}
    for _ in range(10):
        now = [MemberNow(name, f"{name}:1", voter=is_voter) for name, is_voter in members.items()]
        match next_step(now, [A, B, C, D], "a", 3):
            case AddLearner(name):
                members[name] = False
            case Promote(name):
                members[name] = True
            case None:
                break
    assert members == {"a": True, "b": True, "c": True}
