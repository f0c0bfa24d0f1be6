"""The engine by hand: what single calls answer and refuse. Whole histories are in tests/simulation."""

from __future__ import annotations

import random

import pytest

from raft import membership
from raft.engine import Engine, State
from raft.interface import ENTRY_LIMIT_BYTES, Applied, Entry, Halted, Kind, Member, Members, NotLeader
from raft.journal import Journal
from raft.messages import Append, AppendReply, TimeoutNow, VoteReply, VoteRequest
from raft.settings import Settings
from tests.simulation.disks import SimDisk

SETTINGS = Settings()


def members(voters: str, learners: str = "") -> Members:
    return Members(tuple(Member(name, name) for name in voters), tuple(Member(name, name) for name in learners))


class Node:
    """An engine, its journal, and a clock that is set by hand."""

    def __init__(self, name: str, voters: str, applied: Applied | None = None, learners: str = "") -> None:
        self.now = 100.0
        self.name = name
        self.disk = SimDisk(random.Random(0))
        self.journal = Journal.open(self.disk, "j")
        if voters:
            self.journal.append([Entry(1, 1, Kind.MEMBERS, membership.encode(members(voters, learners)))])
            self.journal.set_vote(1, None)
        self.start(applied or Applied(0, 0, Members()))

    def start(self, applied: Applied) -> None:
        self.journal.sync()
        self.engine = Engine(node=self.name, journal=self.journal, applied=applied, monotonic=lambda: self.now, chance=random.Random(1))
        self.finish()

    def finish(self) -> list[tuple[str, object]]:
        self.journal.sync()
        self.engine.synced()
        return self.engine.take_outbox()

    def turn(self, *messages: tuple[str, object]) -> list[tuple[str, object]]:
        for sender, message in messages:
            self.engine.receive(sender, message)
        self.engine.tick()
        return self.finish()

    def lead(self) -> int:
        """Gets the votes of b and c, and their answers to the term's first entry; the term."""
        for peer in "bc":
            self.engine.connected(peer)
        self.now += 2
        ((_, asked), _) = self.turn()
        self.turn(("b", VoteReply(asked.term, True, True)), ("c", VoteReply(asked.term, True, True)))
        sent = self.turn(("b", VoteReply(asked.term, True)))
        self.turn(*((peer, answer(append)) for peer, append in sent))
        assert self.engine.state is State.LEADER
        return asked.term


def answer(append: Append) -> AppendReply:
    return AppendReply(append.term, append.seq, append.prev_index + len(append.entries) + 1, True, False)


def test_a_single_voter_leads_at_once_and_commits_what_is_synced():
    node = Node("a", "a")
    node.engine.tick()
    assert node.engine.state is State.LEADER
    node.finish()
    assert node.engine.commit_index == 2
    _, index = node.engine.propose([b"x", b"y"])
    node.engine.tick()
    assert (index, node.engine.commit_index) == (3, 2)
    node.finish()
    assert node.engine.commit_index == 4
    assert [entry.data for entry in node.engine.committed(100) if entry.kind == Kind.COMMAND] == [b"x", b"y"]
    assert node.engine.has_lease()


def test_leadership_counts_once_its_first_entry_is_applied():
    node = Node("a", "a")
    node.turn()
    assert node.engine.leads_since_applied is None
    node.engine.mark_applied(2)
    assert node.engine.leads_since_applied == 2


def test_an_election_asks_in_advance_and_then_for_votes():
    node = Node("a", "abc")
    node.engine.connected("b")
    node.engine.connected("c")
    node.now += 2
    asked = node.turn()
    assert asked == [("b", VoteRequest(2, 1, 1, pre=True)), ("c", VoteRequest(2, 1, 1, pre=True))]
    assert node.engine.term == 1
    voting = node.turn(("b", VoteReply(2, True, True)))
    assert sorted(voting) == [("b", VoteRequest(2, 1, 1)), ("c", VoteRequest(2, 1, 1))]
    assert (node.journal.term, node.journal.vote) == (2, "a")
    sent = node.turn(("c", VoteReply(2, True)))
    assert node.engine.state is State.LEADER
    assert all(append.entries[0].kind == Kind.NOOP for _, append in sent)


def test_a_vote_is_on_disk_before_it_leaves():
    node = Node("b", "abc")
    node.now += 1
    node.engine.receive("a", VoteRequest(5, 9, 4))
    assert node.journal.dirty
    assert node.finish() == [("a", VoteReply(5, True))]
    assert (node.journal.term, node.journal.vote) == (5, "a")


def test_a_vote_is_given_once_a_term_and_none_right_after_a_start():
    node = Node("b", "abc")
    assert node.turn(("a", VoteRequest(5, 9, 4))) == []
    node.now += 1
    assert node.turn(("a", VoteRequest(5, 9, 4))) == [("a", VoteReply(5, True))]
    assert node.turn(("c", VoteRequest(5, 9, 4))) == []


def test_a_leader_of_an_old_term_is_told_the_new_one():
    node = Node("b", "abc")
    node.now += 1
    node.turn(("c", VoteRequest(7, 9, 4)))
    ((target, reply),) = node.turn(("a", Append(3, 4, 1, 1, 1)))
    assert (target, reply.term, reply.success) == ("a", 7, False)


def test_a_leader_that_sees_a_higher_term_steps_down():
    node = Node("a", "abc")
    term = node.lead()
    node.turn(("b", AppendReply(term + 3, 1, 1, False, False)))
    assert (node.engine.state, node.engine.term, node.engine.leader) == (State.FOLLOWER, term + 3, None)
    with pytest.raises(NotLeader):
        node.engine.propose([b"x"])


def test_proposals_of_a_turn_go_out_together_and_at_once():
    node = Node("a", "abc")
    node.lead()
    node.engine.propose([b"1", b"2"])
    node.engine.propose([b"3"])
    sent = node.turn()
    assert [(peer, len(append.entries)) for peer, append in sent] == [("b", 3), ("c", 3)]


def test_a_commit_needs_no_further_wait_once_a_majority_answered():
    node = Node("a", "abc")
    node.lead()
    _, index = node.engine.propose([b"x"])
    ((peer, append), _) = node.turn()
    node.turn((peer, answer(append)))
    assert node.engine.commit_index == index
    assert node.engine.next_deadline() <= node.now + SETTINGS.commit_notice_s


def test_an_append_is_bounded_and_so_is_what_may_be_unanswered():
    node = Node("a", "abc")
    node.lead()
    node.engine.propose([b"x" * 300_000] * 40)
    to_b = [append for peer, append in node.turn() if peer == "b"]
    assert len(to_b) == SETTINGS.appends_in_flight
    assert all(sum(len(entry.data) for entry in append.entries) <= SETTINGS.append_bytes for append in to_b)
    more = [append for peer, append in node.turn(("b", answer(to_b[0]))) if peer == "b"]
    assert [append.prev_index for append in more] == [to_b[-1].prev_index + len(to_b[-1].entries)]


def test_who_is_far_behind_gets_a_part_each_turn_so_that_others_have_theirs():
    """All that may be unanswered at once held the leader's thread for a fifth of a second when a follower came back from a copy."""
    node = Node("a", "abc")
    node.lead()
    node.engine.propose([b"x"] * (3 * SETTINGS.step_entries + 1))
    sent = []
    while node.engine.next_deadline() <= node.now:
        sent.append(sum(len(append.entries) for peer, append in node.turn() if peer == "b"))
    assert sent == [SETTINGS.step_entries] * 3 + [1]


def test_the_largest_entry_goes_alone():
    node = Node("a", "abc")
    node.lead()
    node.engine.propose([b"x", b"y" * ENTRY_LIMIT_BYTES, b"z"])
    to_b = [append for peer, append in node.turn() if peer == "b"]
    assert [len(append.entries) for append in to_b] == [1, 1, 1]


def test_a_new_connection_goes_on_behind_what_is_known_to_have_arrived():
    node = Node("a", "abc")
    node.lead()
    node.engine.propose([b"lost"])
    node.turn()
    node.engine.disconnected("b")
    node.engine.connected("b")
    again = [append for peer, append in node.turn() if peer == "b"]
    assert [entry.data for append in again for entry in append.entries] == [b"lost"]


def test_nothing_is_sent_where_no_link_is_up():
    node = Node("a", "abc")
    node.lead()
    node.engine.disconnected("c")
    node.engine.propose([b"x"])
    assert {peer for peer, _ in node.turn()} == {"b"}


def test_a_peer_that_needs_what_was_cut_is_told_to_fetch_a_snapshot():
    node = Node("a", "abc", learners="d")
    node.lead()
    node.engine.mark_applied(node.engine.commit_index)
    node.engine.compact(node.engine.commit_index)
    node.engine.connected("d")
    sent = [append for peer, append in node.turn() if peer == "d"]
    behind = node.turn(("d", AppendReply(node.engine.term, sent[-1].seq if sent else 1, 1, False, True)))
    node.now += SETTINGS.heartbeat_s
    notices = [append for peer, append in [*behind, *node.turn()] if peer == "d" and append.snapshot]
    assert notices and not notices[0].entries


def test_a_follower_wants_a_snapshot_until_it_has_one():
    node = Node("d", "")
    node.turn(("a", Append(4, 1, 50, 3, 60, [], True)))
    assert node.engine.wants_snapshot() == "a"
    assert node.engine.commit_index == 0
    node.engine.installed(Applied(55, 3, members("abc", "d")))
    assert node.engine.wants_snapshot() is None
    assert (node.engine.applied_index, node.engine.last_index, node.journal.base.index) == (55, 55, 55)
    assert node.engine.members == members("abc", "d")
    ((_, reply),) = node.turn(("a", Append(4, 2, 50, 3, 60, [], True)))
    assert reply.success
    assert node.engine.wants_snapshot() is None, "a notice that was on its way is no reason to fetch another"


def test_a_snapshot_keeps_the_journal_behind_it_where_it_joins():
    node = Node("b", "abc")
    node.turn(("a", Append(2, 1, 1, 1, 1, [Entry(index, 2, 0, b"") for index in range(2, 10)])))
    node.engine.installed(Applied(5, 2, members("abc")))
    assert node.engine.last_index == 9


def test_a_committed_entry_that_is_contradicted_halts_the_node():
    node = Node("b", "abc")
    node.turn(("a", Append(2, 1, 1, 1, 3, [Entry(2, 2, 0, b""), Entry(3, 2, 0, b"")])))
    assert node.engine.commit_index == 3
    with pytest.raises(Halted, match="contradicts committed entry 2"):
        node.turn(("c", Append(3, 1, 1, 1, 3, [Entry(2, 3, 0, b"")])))


def test_the_ledger_must_not_stand_behind_the_journal():
    node = Node("a", "a")
    node.turn()
    node.engine.mark_applied(2)
    node.engine.compact(2)
    with pytest.raises(Halted, match="the ledger stands at 1, but the journal begins after 2"):
        node.start(Applied(1, 1, members("a")))


def test_a_ledger_ahead_of_the_journal_decides_where_the_log_stands():
    node = Node("a", "a")
    node.start(Applied(70, 1, members("a")))
    assert (node.journal.base.index, node.engine.commit_index, node.engine.applied_index) == (70, 70, 70)


def test_members_of_the_journal_count_from_the_start():
    node = Node("a", "ab")
    assert node.engine.members == members("ab")
    node.journal.append([Entry(2, 1, Kind.MEMBERS, membership.encode(members("abc")))])
    node.start(Applied(1, 1, members("ab")))
    assert node.engine.members == members("abc")
    assert node.engine.members_index == 2


def test_members_change_one_at_a_time_and_after_the_terms_first_entry():
    node = Node("a", "abc")
    for peer in "bc":
        node.engine.connected(peer)
    node.now += 2
    node.turn()
    node.turn(("b", VoteReply(2, True, True)))
    node.turn(("b", VoteReply(2, True)))
    with pytest.raises(ValueError, match="committed nothing yet"):
        node.engine.propose_members(members("abc", "d"))
    node.engine.receive("b", AppendReply(2, 1, 3, True, False))
    node.turn()
    node.engine.propose_members(members("abc", "d"))
    assert node.engine.members == members("abc", "d"), "in force at once"
    with pytest.raises(ValueError, match="under way"):
        node.engine.propose_members(members("abc", "de"))


def test_a_learner_gets_the_log_and_does_not_count():
    node = Node("a", "abc", learners="d")
    node.lead()
    node.engine.connected("d")
    _, index = node.engine.propose([b"x"])
    sent = dict(node.turn())
    assert "d" in sent
    node.turn(("d", answer(sent["d"])))
    assert node.engine.commit_index < index
    assert node.engine.peers()["d"].match_index == index


def test_a_learner_never_campaigns():
    node = Node("d", "abc", learners="d")
    node.engine.connected("a")
    for _ in range(5):
        node.now += 2
        assert node.turn() == []
    assert node.engine.state is State.FOLLOWER


def test_a_read_is_confirmed_by_answers_to_what_was_sent_after_it():
    node = Node("a", "abc")
    node.lead()
    node.engine.propose([b"before"])
    before = dict(node.turn())
    token = node.engine.start_read()
    round_ = dict(node.turn(("b", answer(before["b"]))))
    assert node.engine.read_confirmed(token) is None
    node.turn(("c", answer(round_["c"])))
    assert node.engine.read_confirmed(token) == token.index


def test_a_read_ends_with_the_leadership():
    node = Node("a", "abc")
    node.lead()
    token = node.engine.start_read()
    node.turn(("b", Append(9, 1, 1, 1, 1)))
    with pytest.raises(NotLeader):
        node.engine.read_confirmed(token)


def test_a_lease_counts_from_the_sending():
    node = Node("a", "abc")
    node.lead()
    node.engine.propose([b"x"])
    sent_at = node.now
    sent = dict(node.turn())
    node.now += 0.5
    node.turn(("b", answer(sent["b"])))
    assert node.engine.lease_until() == pytest.approx(sent_at + SETTINGS.election_min_s * SETTINGS.lease_share)
    node.now = sent_at + 0.73
    assert not node.engine.has_lease()


def test_a_leader_that_hands_over_has_no_lease_and_takes_no_proposals():
    node = Node("a", "abc")
    node.lead()
    node.now += 0.2
    sent = node.turn()
    node.turn(*((peer, answer(append)) for peer, append in sent))
    assert node.engine.has_lease()
    assert node.engine.transfer("c")
    assert not node.engine.has_lease()
    with pytest.raises(NotLeader, match="handed over to c"):
        node.engine.propose([b"x"])
    assert ("c", TimeoutNow(node.engine.term)) in node.turn()
    node.now += SETTINGS.transfer_s
    node.turn()
    assert node.engine.state is State.FOLLOWER, "it asked, and must not go on in a term in which another may still take over"


def test_a_hand_over_that_was_never_asked_for_is_given_up():
    node = Node("a", "abc")
    node.lead()
    node.engine.propose([b"x"])
    node.turn()
    assert node.engine.transfer("c")
    node.turn()
    node.now += SETTINGS.transfer_s - 0.01
    node.engine.receive("b", AppendReply(node.engine.term, 1, 2, True, False))
    node.now += 0.02
    node.turn()
    assert node.engine.state is State.LEADER
    node.engine.propose([b"y"])


@pytest.mark.parametrize("to", ["b", "x"], ids=["a voter without a link", "a stranger"])
def test_nobody_to_hand_over_to(to: str):
    node = Node("a", "abc")
    node.lead()
    node.engine.disconnected("b")
    assert not node.engine.transfer(to)


def test_whoever_was_asked_to_take_over_asks_for_votes_at_once():
    node = Node("b", "abc")
    node.engine.connected("a")
    node.engine.connected("c")
    node.turn(("a", Append(2, 1, 1, 1, 1)))
    sent = node.turn(("a", TimeoutNow(2)))
    assert sorted(sent) == [("a", VoteRequest(3, 1, 1, transfer=True)), ("c", VoteRequest(3, 1, 1, transfer=True))]


def test_only_the_leader_can_ask_for_a_hand_over():
    node = Node("b", "abc")
    node.engine.connected("a")
    node.turn(("a", Append(2, 1, 1, 1, 1)))
    assert node.turn(("c", TimeoutNow(2))) == []


@pytest.mark.parametrize(
    "later",
    [AppendReply(7, 1, 1, False, False), VoteReply(7, False, True), VoteRequest(7, 0, 0, transfer=True)],
    ids=["a reply", "a no", "a candidate"],
)
def test_a_wish_to_take_over_is_of_its_leaders_term_only(later):
    """Another may lead the later term, with a lease: no vote in it may be asked for in the name of the leader before."""
    node = Node("b", "abc")
    node.engine.connected("a")
    node.engine.connected("c")
    node.turn(("a", Append(2, 1, 1, 1, 1)))
    sent = node.turn(("a", TimeoutNow(2)), ("c", later))
    assert node.engine.term == 7 and node.engine.state is State.FOLLOWER
    assert [message for _, message in sent if isinstance(message, VoteRequest)] == [VoteRequest(8, 1, 1, pre=True)] * 2


def test_a_wish_to_take_over_ends_when_another_leads():
    """Else a later election would still claim the leader's consent, and get votes beside a lease."""
    node = Node("b", "abc")
    node.engine.connected("a")
    node.engine.connected("c")
    node.turn(("a", Append(2, 1, 1, 1, 1)))
    node.turn(("a", TimeoutNow(2)), ("c", Append(3, 1, 1, 1, 1)))
    node.now += 2
    assert node.turn() == [("a", VoteRequest(4, 1, 1, pre=True)), ("c", VoteRequest(4, 1, 1, pre=True))]
