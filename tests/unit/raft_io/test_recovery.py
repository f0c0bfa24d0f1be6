"""A node becomes the only voter of a new epoch: at once or after any crash, and nobody of the old epoch is spoken to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from raft import membership, recovery, wire
from raft.disk import RealDisk
from raft.interface import Applied, Entry, Halted, Kind, Member, Members
from raft.journal import Journal
from raft.replica import Replica
from tests.unit.raft_io.machines import ListMachine

SECOND = 10.0
ME, OTHER, THIRD = Member("a", "127.0.0.1:1"), Member("b", "127.0.0.1:2"), Member("c", "127.0.0.1:3")


def survivor(folder: Path, machine: ListMachine) -> None:
    """A voter of three whose journal holds four entries, of which its ledger has applied two."""
    journal = Journal.open(RealDisk(), str(folder))
    membership.found(journal, ME)
    three = membership.encode(Members(voters=(ME, OTHER, THIRD)))
    journal.append([Entry(2, 1, Kind.MEMBERS, three), Entry(3, 4, Kind.COMMAND, b"x"), Entry(4, 4, Kind.COMMAND, b"y")])
    journal.set_vote(6, "b")
    machine.apply(journal.entries(1, 3))
    journal.sync()
    journal.close()


async def leading(folder: Path, machine: ListMachine, **options) -> Replica:
    replica = await Replica.start(node="a", address="127.0.0.1:1", folder=folder, machine=machine, cluster="c", key=b"k" * 32, **options)
    async with asyncio.timeout(SECOND):
        async for _ in replica.leadership():
            return replica
    raise AssertionError("it never led")


async def test_a_survivor_goes_on_alone_with_all_that_it_holds(tmp_path):
    """Entries that were perhaps never committed count from now on; the epoch and the term are new."""
    machine = ListMachine()
    survivor(tmp_path, machine)
    found = recovery.make_only_voter(tmp_path, machine, ME)
    assert (found.index, found.term, found.epoch, found.applied.index) == (5, 7, 1, 2)
    assert found.before.ids() == {"a", "b", "c"}
    replica = await leading(tmp_path, machine)
    try:
        assert machine.commands == [b"x", b"y"]
        assert (await replica.propose(b"z", SECOND)).term > 7
        status = replica.status()
        assert (status.members, status.epoch) == (Members(voters=(ME,)), 1)
    finally:
        await replica.close()


def test_repeated_it_changes_nothing(tmp_path):
    """The only voter it is already: same epoch, same last entry."""
    machine = ListMachine()
    survivor(tmp_path, machine)
    first = recovery.make_only_voter(tmp_path, machine, ME)
    again = recovery.make_only_voter(tmp_path, machine, ME)
    assert (again.index, again.term, again.epoch) == (first.index, first.term, first.epoch)


class Killed(BaseException):
    """The process ends here."""


STEPS = ("write_epoch", "_append_members", "sync")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("victim", range(4))
def test_killed_at_any_step_it_ends_as_it_would_have(tmp_path, monkeypatch, victim, after):
    """Epoch begun, members, sync, epoch finished: the kill falls before or after each. Half-way the node refuses to start."""
    machine = ListMachine()
    survivor(tmp_path, machine)
    count = 0

    def deadly(function):
        def run(*arguments, **options):
            nonlocal count
            here, count = count == victim, count + 1
            if here and not after:
                raise Killed
            found = function(*arguments, **options)
            if here:
                raise Killed
            return found

        return run

    with monkeypatch.context() as patch:
        patch.setattr(recovery, "write_epoch", deadly(recovery.write_epoch))
        patch.setattr(recovery, "_append_members", deadly(recovery._append_members))
        patch.setattr(Journal, "sync", deadly(Journal.sync))
        with pytest.raises(Killed):
            recovery.make_only_voter(tmp_path, machine, ME)
    begun = (victim, after) > (0, False)
    finished = (victim, after) == (3, True)
    if begun and not finished:
        with pytest.raises(Halted, match=r"a recovery into epoch 1 was begun in .* and not finished; run igor-node recover again"):
            recovery.take_epoch(tmp_path, 0, empty=False)
    found = recovery.make_only_voter(tmp_path, machine, ME)
    assert (found.index, found.epoch) == (5, 1)
    assert recovery.take_epoch(tmp_path, 0, empty=False) == 1


async def test_a_ledger_from_a_backup_begins_an_epoch_above_that_of_the_backup(tmp_path):
    """In an empty folder; repeated, it is done already."""
    machine = ListMachine()
    machine.stands = Applied(500, 9, Members(voters=(ME, OTHER, THIRD)))
    found = recovery.make_only_voter(tmp_path, machine, ME, above=3)
    assert (found.index, found.epoch) == (501, 4)
    assert recovery.make_only_voter(tmp_path, machine, ME, above=3).epoch == 4
    replica = await leading(tmp_path, machine)
    try:
        assert (await replica.propose(b"z", SECOND)).index > 501
        assert machine.stands.members == Members(voters=(ME,))
    finally:
        await replica.close()


def test_a_backup_of_a_cluster_of_one_begins_a_new_epoch_too(tmp_path):
    """The list of members need not change, the epoch must: the original may still run."""
    machine = ListMachine()
    machine.stands = Applied(500, 9, Members(voters=(ME,)))
    assert recovery.make_only_voter(tmp_path, machine, ME, above=0).epoch == 1


def test_nothing_is_recovered_from_nothing(tmp_path):
    """An empty folder with an empty ledger: one clear line, and no epoch."""
    with pytest.raises(Halted, match="there is nothing to recover"):
        recovery.make_only_voter(tmp_path, ListMachine(), ME)
    assert recovery.read_epoch(tmp_path) == recovery.Epoch()


def test_a_damaged_journal_is_not_recovered(tmp_path):
    """Recovery takes what is there for the truth, so what is there must be whole."""
    machine = ListMachine()
    survivor(tmp_path, machine)
    file = tmp_path / "0000000000000001.log"
    data = bytearray(file.read_bytes())
    data[60] ^= 1
    file.write_bytes(data)
    with pytest.raises(Halted, match=f"{file}: damaged at byte 40"):
        recovery.make_only_voter(tmp_path, machine, ME)


@pytest.mark.parametrize("content", [b"2", b'{"epocH":2}', b'{"epoch":"\xff"}'])
def test_an_epoch_that_cannot_be_read_is_not_guessed(tmp_path, content):
    """It names the file."""
    (tmp_path / "epoch").write_bytes(content)
    with pytest.raises(Halted, match=f"{tmp_path}/epoch cannot be read"):
        recovery.take_epoch(tmp_path, 2, empty=True)


async def test_a_joiner_keeps_the_epoch_it_was_told(tmp_path):
    """Also when a later start says nothing of it; but a log of an older epoch is not carried over."""
    replica = await Replica.start(node="b", address="", folder=tmp_path, machine=ListMachine(), cluster="c", key=b"k" * 32, epoch=2)
    await replica.close()
    replica = await leading(tmp_path, ListMachine(), found=True)
    assert replica.status().epoch == 2
    await replica.close()
    with pytest.raises(Halted, match=r"this cluster was recovered: epoch 3; .* is of epoch 2; rejoin empty: igor-node join --reset"):
        await Replica.start(node="a", address="", folder=tmp_path, machine=ListMachine(), cluster="c", key=b"k" * 32, epoch=3)


@pytest.mark.parametrize("dialler, answerer", [(1, 2), (2, 1)], ids=["the old one dials", "the new one dials"])
def test_epochs_do_not_talk(dialler, answerer):
    """Whoever dials: both hear which node is of the old one, and what to do."""
    dialling = wire.Dialling(wire.Credentials("c", "d", "", b"k", dialler), "x", wire.Purpose.MESSAGES)
    answering = wire.Answering(wire.Credentials("c", "x", "", b"k", answerer))
    old = "d" if dialler == 1 else "x"
    words = f"this cluster was recovered: epoch 2; {old} is of epoch 1; rejoin empty: igor-node join --reset"
    frames = wire.Frames()
    frames.feed(dialling.opening[len(wire.MAGIC) :])
    with pytest.raises(wire.Refusal, match=words):
        answering.receive(frames.next())
    back = wire.Frames()
    back.feed(answering.answer)
    with pytest.raises(wire.Refusal, match=words):
        dialling.receive(back.next())


def test_the_epoch_is_proved(tmp_path):
    """A hello whose epoch was changed on its way is found out."""
    own = wire.Credentials("c", "d", "", b"k", 1)
    dialling = wire.Dialling(own, "x", wire.Purpose.MESSAGES)
    answering = wire.Answering(wire.Credentials("c", "x", "", b"k", 2))
    forged = msgspec.structs.replace(dialling._hello, epoch=2)
    answer = wire.Frames()
    answer.feed(answering.receive(msgspec.msgpack.encode(forged)))
    with pytest.raises(wire.Refusal, match="does not hold this cluster's key"):
        dialling.receive(answer.next())
