"""Lists of members: which changes may follow which, and which list counts when the log grows and is cut back."""

from __future__ import annotations

import random

import pytest

from raft import membership
from raft.interface import Entry, Kind, Member, Members
from raft.journal import Journal
from tests.simulation.disks import SimDisk


def members(voters: str, learners: str = "") -> Members:
    return Members(tuple(Member(name, name) for name in voters), tuple(Member(name, name) for name in learners))


def entry(index: int, list_: Members | None = None) -> Entry:
    return Entry(index, 1, Kind.COMMAND, b"") if list_ is None else Entry(index, 1, Kind.MEMBERS, membership.encode(list_))


@pytest.mark.parametrize(
    "old, new, fault",
    [
        pytest.param(members("a"), members("a", "b"), None, id="a learner comes"),
        pytest.param(members("a", "b"), members("ab"), None, id="a learner becomes a voter"),
        pytest.param(members("abc"), members("ab"), None, id="a voter goes"),
        pytest.param(members("abc"), members("ab", "c"), None, id="a voter becomes a learner"),
        pytest.param(members("a", "bc"), members("abc"), "one voter", id="two voters at once"),
        pytest.param(members("abc"), members("abd"), "one voter", id="one for another"),
        pytest.param(members("abc"), members("bc"), "transfer the leadership first", id="the leader itself"),
        pytest.param(members("abc"), members("abc", "c"), "twice", id="voter and learner"),
        pytest.param(members("a"), members("a", "".join(map(chr, range(0x100, 0x150)))), "too many", id="more than the limit"),
    ],
)
def test_which_list_may_follow_which(old: Members, new: Members, fault: str | None):
    if fault is None:
        membership.check_change(old, new, "a")
    else:
        with pytest.raises(ValueError, match=fault):
            membership.check_change(old, new, "a")


def test_any_two_majorities_of_lists_that_may_follow_each_other_meet():
    """The reason for one voter at a time (Raft thesis, figure 4.3)."""
    chance = random.Random(1)
    for _ in range(500):
        old, new = ("".join(sorted({"a", *chance.sample("bcdefg", chance.randrange(6))})) for _ in range(2))
        try:
            membership.check_change(members(old), members(new), "a")
        except ValueError:
            continue
        assert len(old) // 2 + 1 + len(new) // 2 + 1 > len(set(old) | set(new))


def test_the_last_list_of_the_log_counts_and_gives_way_when_it_is_cut_back():
    history = membership.History(10, members("a"))
    assert not history.take([entry(11)])
    assert history.take([entry(12, members("a", "b")), entry(13), entry(14, members("ab"))])
    assert (history.latest, history.latest_index) == (members("ab"), 14)
    assert not history.cut_from(15)
    assert history.cut_from(14)
    assert (history.latest, history.latest_index) == (members("a", "b"), 12)
    assert history.cut_from(11)
    assert (history.latest, history.latest_index) == (members("a"), 10)


def test_a_list_that_is_applied_already_is_not_taken_again():
    """A journal may still hold entries that the ledger has."""
    history = membership.History(10, members("abc"))
    assert not history.take([entry(9, members("a"))])
    assert history.latest == members("abc")


def test_lists_that_can_no_longer_be_cut_back_are_forgotten():
    history = membership.History(0, Members())
    history.take([entry(1, members("a")), entry(5, members("a", "b")), entry(9, members("ab"))])
    history.forget_before(7)
    assert not history.cut_from(10)
    assert history.cut_from(9)
    assert not history.cut_from(2)
    assert history.latest == members("a", "b")


def test_lists_are_sorted_and_nobody_is_in_one_twice():
    grown = membership.with_learner(membership.with_learner(members("m"), Member("z", "z:1")), Member("b", "b:1"))
    assert [member.id for member in grown.learners] == ["b", "z"]
    moved = membership.with_learner(grown, Member("z", "z:2"))
    assert moved.find("z") == Member("z", "z:2")
    voting = membership.with_voter(moved, "b")
    assert [member.id for member in voting.voters] == ["b", "m"]
    assert [member.id for member in voting.learners] == ["z"]
    assert membership.with_learner(voting, Member("b", "b:9")).is_voter("b")
    assert membership.without(membership.without(voting, "b"), "z") == members("m")
    with pytest.raises(ValueError, match="must be a learner"):
        membership.with_voter(voting, "nobody")


def test_a_cluster_is_founded_once():
    disk = SimDisk(random.Random(0))
    journal = Journal.open(disk, "j")
    membership.found(journal, Member("a", "a:1"))
    again = Journal.open(disk, "j")
    assert membership.decode(again.entry(1).data) == Members(voters=(Member("a", "a:1"),))
    with pytest.raises(ValueError, match="already belongs"):
        membership.found(again, Member("a", "a:1"))
