"""Consensus in three real processes: founding, joining, failover, restart, snapshots, a full disk; every pickle that is read ends the process."""

from __future__ import annotations

import re
import time

import pytest

from tests.cluster.raft_cluster import ANSWER_S, Cluster, Failed, cluster_in, wait_for

pytestmark = pytest.mark.cluster


@pytest.fixture
def cluster(tmp_path):
    with cluster_in(tmp_path) as found:
        yield found
        assert [path.name for path in tmp_path.glob("*.log") if "a pickle was read" in path.read_text()] == []


@pytest.fixture
def three(cluster) -> Cluster:
    cluster.three()
    return cluster


def propose(cluster: Cluster, leader: str, data: str) -> None:
    cluster.processes[leader].ask("propose", data=data)


def propose_somewhere(cluster: Cluster, data: str) -> None:
    """As a client does: asks whom it knows, and again, until it is acknowledged. A repeated note is allowed, a lost one is not."""

    def tried() -> bool:
        for process in list(cluster.processes.values()):
            try:
                process.ask("propose", data=data, timeout=2.0)
                return True
            except Failed as problem:
                assert problem.name in ("NotLeader", "Unknown"), problem
        return False

    wait_for(tried, f"{data} is acknowledged")


def test_one_becomes_three_and_all_hold_the_same(three):
    """A founder and two joiners that knew nobody: learners first, then voters; every node ends with every note."""
    for number in range(20):
        propose(three, "a", f"note {number}")
    assert three.agree("abc") == [f"note {number}" for number in range(20)]
    members = three.status("b")["members"]
    assert [member["id"] for member in members["voters"]] == ["a", "b", "c"] and not members["learners"]
    assert three.status("a")["quorum"] and three.status("b")["quorum"]


def test_a_follower_takes_no_proposal_and_names_the_leader(three):
    """Surely not in the log; the caller is told whom to ask."""
    wait_for(lambda: three.status("b")["leader"] == "a", "b knows its leader")
    with pytest.raises(Failed) as refused:
        propose(three, "b", "x")
    assert (refused.value.name, refused.value.leader) == ("NotLeader", "a")
    with pytest.raises(Failed) as refused:
        three.processes["b"].ask("barrier")
    assert refused.value.name == "NotLeader"


def test_an_entry_above_the_limit_is_refused(three):
    """1 MiB goes through to all; one byte more is refused before it is anywhere."""
    propose(three, "a", "x" * 1024 * 1024)
    with pytest.raises(Failed) as refused:
        propose(three, "a", "x" * (1024 * 1024 + 1))
    assert refused.value.name == "ValueError"
    assert len(three.agree("abc")[0]) == 1024 * 1024


def test_the_leader_is_killed_and_another_leads(three):
    """SIGKILL; the rest elect, take proposals, and the killed one catches up when it is back, on another port."""
    propose(three, "a", "before")
    three.agree("abc")
    three.kill("a")
    propose_somewhere(three, "after")
    leader = three.wait_leader("bc")
    three.start("a", listen="127.0.0.1:0")
    three.wait_ready("a")
    propose(three, leader, "back")
    rows = three.agree("abc")
    assert [row for row in ("before", "after", "back") if row not in rows] == []


def test_a_leadership_is_handed_over_to_whom_it_is_meant_for(three):
    """`transfer` names the next; proposals go on there."""
    assert three.processes["a"].ask("transfer", to="c") is True
    assert three.wait_leader("bc") == "c"
    propose(three, "c", "x")
    assert three.agree("abc") == ["x"]


def test_a_read_barrier_needs_a_majority(three):
    """With both others gone the leader confirms nothing, and steps down."""
    propose(three, "a", "x")
    assert three.processes["a"].ask("barrier") >= 7
    three.kill("b", "c")
    with pytest.raises(Failed) as refused:
        three.processes["a"].ask("barrier", timeout=2.0)
    assert refused.value.name in ("Unknown", "NotLeader")
    with pytest.raises(Failed) as refused:
        three.processes["a"].ask("propose", data="y", timeout=2.0)
    assert refused.value.name in ("Unknown", "NotLeader")
    wait_for(lambda: not three.status("a")["quorum"] and three.status("a")["state"] != "leader", "a says that it has no quorum")


def test_how_long_there_was_no_leader(three):
    """Nothing while one is heard; alone the time grows; to hear a leader again, or to help one to lead, ends it."""
    leader = three.wait_leader("abc")
    follower, other = (node for node in "abc" if node != leader)
    wait_for(lambda: (three.status(leader)["leaderless_s"], three.status(follower)["leaderless_s"] < 1) == (0, True), "both to know the leader")
    three.kill(leader, other)
    wait_for(lambda: three.status(follower)["leaderless_s"] > 2, "the survivor to have known no leader for long")
    three.start(other)
    wait_for(lambda: three.status(follower)["leaderless_s"] < 1, "the survivor to have helped a leader, or to lead")


def test_all_killed_at_once_ten_times_and_nothing_acknowledged_is_lost(three):
    """Proposals are under way while SIGKILL comes; what was acknowledged is there on every node afterwards, in every round."""
    acknowledged: list[str] = []
    for number in range(10):
        leader = three.wait_leader("abc")
        answers = [(f"{number}.{count}", three.processes[leader].send("propose", data=f"{number}.{count}")) for count in range(60)]
        waited_for = answers.pop(20)
        acknowledged += [waited_for[0]] if "ok" in waited_for[1].get(timeout=ANSWER_S) else []
        time.sleep(0.003 * (number % 4))
        three.kill("a", "b", "c")
        acknowledged += [data for data, answer in answers if not answer.empty() and "ok" in answer.get()]
        for node in "abc":
            three.start(node)
        three.wait_ready("a", "b", "c")
    three.wait_leader("abc")
    rows = three.agree("abc")
    assert len(acknowledged) > 200
    assert set(acknowledged) - set(rows) == set()
    assert len(rows) == len(set(rows))


def test_a_joiner_gets_a_snapshot_when_the_log_is_cut(three):
    """24 MiB of notes: the journal keeps fewer, so the fourth node starts from a copy; then it votes, and one of the first leaves."""
    for number in range(48):
        propose(three, "a", f"{number} " + "x" * 512 * 1024)
    three.start("d")
    three.wait_ready("d")
    wait_for(lambda: len(list((three.folder / "a" / "raft").glob("*.log"))) < 4, "the journal of a is cut")
    three.processes["a"].ask("add_learner", node="d", address=three.addresses["d"])
    three.processes["a"].ask("add_voter", node="d")
    three.processes["a"].ask("remove", node="c")
    three.kill("c")
    propose(three, "a", "last")
    rows = three.agree("abd")
    assert len(rows) == 49 and rows[-1] == "last"
    assert "installed a snapshot" in three.log("d")
    three.kill("a")
    propose(three, three.wait_leader("bd"), "without a")
    assert three.agree("bd")[-1] == "without a"


def cut_journal(cluster: Cluster) -> None:
    """48 MiB of notes: the journal of a keeps fewer, so whoever is empty needs a copy."""
    for number in range(96):
        propose(cluster, "a", f"{number} " + "x" * 512 * 1024)
    wait_for(lambda: len(list((cluster.folder / "a" / "raft").glob("*.log"))) < 5, "the journal of a is cut")


def test_two_joiners_share_a_copy_and_a_killed_one_goes_on_where_it_was(three):
    """d is killed with part of the copy, and comes back for the rest; e gets the same copy. Commits go on meanwhile."""
    cut_journal(three)
    for node in "de":
        three.start(node)
    three.wait_ready("d", "e")
    three.processes["a"].ask("add_learner", node="d", address=three.addresses["d"])
    wait_for(lambda: (three.folder / "d" / "raft" / "incoming.snapshot.note").exists(), "d has noted a part")
    three.kill("d")
    propose(three, "a", "meanwhile")
    three.start("d")
    three.processes["a"].ask("add_learner", node="e", address=three.addresses["e"])
    three.wait_ready("d")
    rows = three.agree("abcde")
    assert len(rows) == 97 and rows[-1] == "meanwhile"
    assert re.search(r"a snapshot goes on at byte [1-9]\d* of", three.log("d"))
    stands = {node: three.log(node).split("installed a snapshot that stands at ")[1].split()[0] for node in "de"}
    assert stands["d"] == stands["e"]
    assert len(list((three.folder / "a" / "raft").glob("outgoing-*.snapshot"))) == 1, "kept for a while"
    for node in "de":
        assert list((three.folder / node / "raft").glob("incoming*")) == []


def test_a_node_that_is_not_of_this_cluster_is_not_heard(three):
    """Another key: its hello is refused, and the members say so once."""
    three.start("x", key="cd" * 32)
    three.wait_ready("x")
    three.processes["a"].ask("add_learner", node="x", address=three.addresses["x"])
    wait_for(lambda: "does not hold this cluster's key" in three.log("a"), "a complains")
    assert three.status("x")["last_index"] == 0
    wait_for(lambda: three.status("a")["peers"].get("x", {}).get("connected") is False, "a shows x as not connected")


def test_a_full_disk_halts_the_node_and_the_others_go_on(three):
    """The journal cannot be written: nothing more is vouched for, whoever asks hears why, another leads; with room again a new process catches up."""
    propose(three, "a", "before")
    three.processes["a"].ask("fill_disk")
    with pytest.raises(Failed) as refused:
        propose(three, "a", "lost?")
    assert refused.value.name == "Unknown" and "No space left on device" in refused.value.text
    with pytest.raises(Failed) as refused:
        propose(three, "a", "never")
    assert refused.value.name == "Halted" and "No space left on device" in refused.value.text
    assert "No space left on device" in three.status("a")["halted"]
    assert "a halted: the journal in" in three.log("a")
    del_a = three.processes.pop("a")
    try:
        propose_somewhere(three, "after")
    finally:
        del_a.kill()
    assert three.agree("bc")[0] == "before"
    three.start("a")
    three.wait_ready("a")
    rows = three.agree("abc")
    assert rows[0] == "before" and rows[-1] == "after" and "never" not in rows


def test_an_apply_that_raises_halts_with_its_index(cluster):
    """A command that no apply can take stops this replica before it goes on with a ledger that is wrong."""
    cluster.start("a", found=True)
    cluster.wait_ready("a")
    wait_for(lambda: cluster.status("a")["terms"], "a leads")
    with pytest.raises(Failed) as refused:
        propose(cluster, "a", "raise")
    assert refused.value.name == "Unknown"
    assert cluster.status("a")["halted"] == "applying entry 3 failed: ValueError: asked to"


def test_a_damaged_journal_refuses_the_start(cluster):
    """One line with file and offset, no traceback."""
    cluster.start("a", found=True)
    cluster.wait_ready("a")
    wait_for(lambda: cluster.status("a")["terms"], "a leads")
    for number in range(5):
        propose(cluster, "a", f"{number}")
    cluster.kill("a")
    (path,) = (cluster.folder / "a" / "raft").glob("*.log")
    data = bytearray(path.read_bytes())
    data[120] ^= 1
    path.write_bytes(data)
    line = cluster.start("a").first_line()
    assert "damaged at byte" in line["failed"] and str(path) in line["failed"]
    assert cluster.processes["a"].popen.wait(10) == 3
    assert "Traceback" not in cluster.log("a")
