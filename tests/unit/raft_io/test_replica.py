"""The replica from asyncio: one voter in this process, on a disk in memory that can stop or fail; and a follower that installs a snapshot."""

from __future__ import annotations

import asyncio
import errno
import random
import threading
import time

import pytest

from raft import pump as pump_module
from raft import replica as replica_module
from raft import wire
from raft.connections import READ_BYTES
from raft.disk import RealDisk
from raft.interface import Applied, Busy, Entry, Halted, Member, Members, NotLeader, Unknown
from raft.journal import Journal
from raft.replica import Replica
from raft.settings import DEFAULT_SETTINGS
from tests.unit.raft_io.disks import MemoryDisk
from tests.unit.raft_io.machines import ListMachine

SECOND = 10.0


class One:
    """A replica that founded its own cluster, with its machine and disk."""

    def __init__(self, folder, disk=None, machine=None) -> None:
        self.folder = folder
        self.disk = disk or MemoryDisk()
        self.machine = machine or ListMachine()
        self.applied: list[int] = []
        self.halts: list[str] = []
        self.replica: Replica

    async def start(self, *, found: bool = True) -> One:
        self.replica = await Replica.start(
            node="a",
            address="127.0.0.1:1",
            folder=self.folder,
            machine=self.machine,
            cluster="cluster",
            key=b"k" * 32,
            found=found,
            disk=self.disk,
            on_applied=self.applied.append,
            on_halt=self.halts.append,
        )
        return self

    async def leads(self) -> int:
        async for term in self.replica.leadership():
            return term
        raise AssertionError("it never led")


@pytest.fixture
async def one(tmp_path):
    made = One(tmp_path)
    await made.start()
    async with asyncio.timeout(SECOND):
        await made.leads()
    yield made
    await made.replica.close()


async def until(condition) -> None:
    give_up = time.monotonic() + SECOND
    while not condition():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.005)


async def test_a_founder_leads_and_answers_after_apply(one):
    """Index, term and what apply said; the change is announced."""
    first = await one.replica.propose(b"x", SECOND)
    second = await one.replica.propose(b"y", SECOND)
    assert (first.result, second.result, second.index) == (1, 2, first.index + 1)
    assert one.machine.commands == [b"x", b"y"]
    assert one.applied[-1] == second.index
    assert one.replica.is_leader() and one.replica.leader() == "a" and one.replica.leads(first.term)
    status = one.replica.status()
    assert (status.state, status.applied_index, status.quorum, status.halted) == ("leader", second.index, True, None)
    assert [member.id for member in status.members.voters] == ["a"]
    assert await one.replica.read_barrier(SECOND) >= second.index - 1


async def test_proposals_that_come_together_are_synced_together(one):
    """A thousand at once cost a few syncs, not a thousand."""
    before = one.disk.syncs
    answers = await asyncio.gather(*(one.replica.propose(b"%d" % number, SECOND) for number in range(1000)))
    assert sorted(answer.result for answer in answers) == list(range(1, 1001))
    assert one.disk.syncs - before < 100


async def test_nothing_is_sent_or_applied_before_the_sync(tmp_path, monkeypatch):
    """While the disk takes its time, no acknowledgement, no vote, no apply leaves the tick."""
    order: list[str] = []
    made = await One(tmp_path).start()
    await made.leads()
    pump = made.replica._pump
    for target, name in ((pump._journal, "sync"), (pump._links, "send"), (made.machine, "apply")):
        original = getattr(target, name)
        monkeypatch.setattr(target, name, lambda *args, name=name, original=original: (order.append(name), original(*args))[1])
    original_outbox = pump.engine.take_outbox
    monkeypatch.setattr(pump.engine, "take_outbox", lambda: (order.append("outbox"), original_outbox())[1])
    await made.replica.propose(b"x", SECOND)
    await made.replica.close()
    at = order.index("sync")
    assert order[at : at + 3] == ["sync", "outbox", "apply"]
    assert "apply" not in order[:at]


async def test_an_entry_over_the_limit_and_a_late_answer(one):
    """Too large is a ValueError; an apply that takes longer than the caller waits is Unknown, and still happens."""
    with pytest.raises(ValueError, match="the limit is 1048576"):
        await one.replica.propose(bytes(1024 * 1024 + 1), SECOND)
    go_on = threading.Event()
    one.machine.before_apply = lambda: go_on.wait(SECOND)
    with pytest.raises(Unknown, match="not applied within"):
        await one.replica.propose(b"late", 0.1)
    go_on.set()
    await until(lambda: one.machine.commands == [b"late"])


async def test_too_many_waiting_proposals_are_refused_as_busy(one, monkeypatch):
    """Surely not in the log; those that wait are answered."""
    monkeypatch.setattr(replica_module, "WAITING_LIMIT", 3)
    go_on = threading.Event()
    one.machine.before_apply = lambda: go_on.wait(SECOND)
    waiting = [asyncio.create_task(one.replica.propose(b"w", SECOND)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Busy, match="3 proposals wait already"):
        await one.replica.propose(b"x", SECOND)
    go_on.set()
    await asyncio.gather(*waiting)
    assert one.machine.commands == [b"w"] * 3


async def test_a_journal_that_cannot_be_cut_takes_no_proposal(one, monkeypatch):
    """The ledger's disk does not keep up: memory is bounded, the caller hears why."""
    monkeypatch.setattr(pump_module, "JOURNAL_LIMIT_BYTES", 0)
    with pytest.raises(Busy, match="does not keep up"):
        await one.replica.propose(b"x", SECOND)


@pytest.mark.parametrize("what", ["write", "sync"])
async def test_a_disk_that_fails_halts_once_and_for_ever(one, what):
    """Whoever waits hears Unknown, whoever comes later Halted; the reason is one line; `lost` and `leadership` end."""
    term = one.replica.term()
    lost = asyncio.create_task(one.replica.lost(term))
    one.disk.error = errno.ENOSPC
    one.disk.fail_on = what
    with pytest.raises(Unknown, match="could not be written"):
        await one.replica.propose(b"x", SECOND)
    one.disk.fail_on = None
    with pytest.raises(Halted, match="could not be written"):
        await one.replica.propose(b"x", SECOND)
    await asyncio.wait_for(lost, SECOND)
    assert [term async for term in one.replica.leadership()] == []
    assert one.machine.commands == []
    status = one.replica.status()
    assert (status.halted, status.quorum, status.leader, one.replica.is_leader()) == (one.halts[0], False, None, False)
    assert len(one.halts) == 1 and "\n" not in one.halts[0]


async def test_the_next_segment_is_made_in_a_thread(one):
    """While the ticks go on: a quarter of the first is full, and the second lies ready."""
    for _ in range(3):
        await one.replica.propose(bytes(1024 * 1024), SECOND)
    await until(lambda: "spare.new" in one.disk.list(str(one.folder)))
    await until(lambda: not one.replica._pump._journal.wants_spare)


async def test_without_a_thread_for_the_next_segment_the_ticks_go_on(one, monkeypatch):
    """The machine has no process left, for a moment: the tick makes segments itself, and a thread later."""
    started = threading.Thread.start

    def none_left(thread):
        if thread.name == "raft-spare":
            raise RuntimeError("can't start new thread")
        started(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        for _ in range(10):
            await one.replica.propose(bytes(1024 * 1024), SECOND)
    assert one.replica.status().halted is None
    await until(lambda: "spare.new" in one.disk.list(str(one.folder)))


async def test_a_halt_is_told_whatever_fails_after_it(one, monkeypatch):
    """A disk that is ill may refuse a close, too: nobody may wait for ever because of it."""
    pump = one.replica._pump

    def refuse():
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(pump._journal, "close", refuse)
    monkeypatch.setattr(pump._links, "close", refuse)
    lost = asyncio.create_task(one.replica.lost(one.replica.term()))
    one.disk.error = errno.EIO
    one.disk.fail_on = "write"
    with pytest.raises(Unknown, match="could not be written"):
        await one.replica.propose(b"x", SECOND)
    await asyncio.wait_for(lost, SECOND)
    assert len(one.halts) == 1


def test_whose_ledger_does_not_keep_up_takes_less_and_applies_more(tmp_path, monkeypatch):
    """A follower acknowledges what it has on disk, not what it has applied: nothing else would bound what it holds in memory."""
    machine = ListMachine()
    own = wire.Credentials("cluster", "a", "127.0.0.1:1", b"k" * 32)
    pump = replica_module._build(own, tmp_path, machine, True, DEFAULT_SETTINGS, MemoryDisk(), lambda news: None)
    try:
        while pump.engine.leads_since_applied is None:
            pump._turn()
        monkeypatch.setattr(pump_module, "APPLY_ENTRIES", 100)
        pump._apply_limit = 100

        def turn_with(commands: int) -> int:
            before = pump.engine.applied_index
            pump.engine.propose([b"x"] * commands)
            pump._turn()
            return pump.engine.applied_index - before

        assert (turn_with(1000), pump._links.read_bytes) == (100, READ_BYTES)
        monkeypatch.setattr(pump_module, "JOURNAL_LIMIT_BYTES", 1000)
        assert (turn_with(500), pump._links.read_bytes) == (1400, pump_module.BEHIND_READ_BYTES)
        monkeypatch.setattr(pump_module, "BEHIND_SPAN_S", 0.0)
        assert turn_with(500) == 200, "never longer than that: others must be heard"
        pump._turn()
        pump._turn()
        pump._turn()
        assert pump._links.read_bytes == READ_BYTES, "what is applied needs only to be cut"
    finally:
        pump._end("over", None)


async def test_an_apply_that_raises_halts_with_its_entries(one):
    """Nothing is applied after it."""

    def fail() -> None:
        raise KeyError("no such table")

    one.machine.before_apply = fail
    with pytest.raises(Unknown):
        await one.replica.propose(b"x", SECOND)
    await until(lambda: one.halts)
    assert one.halts == ["applying entry 3 failed: KeyError: 'no such table'"]


async def test_a_machine_that_halts_says_why_in_its_own_words(one):
    """A command of a newer version, say: the line tells people what to do."""

    def fail() -> None:
        raise Halted("ledger entry 3: install a newer igor-node here")

    one.machine.before_apply = fail
    with pytest.raises(Unknown):
        await one.replica.propose(b"x", SECOND)
    await until(lambda: one.halts)
    assert one.halts == ["ledger entry 3: install a newer igor-node here"]


async def test_a_close_answers_what_waits(one):
    """Unknown for what may be in the log; Halted for whoever comes later; the thread is gone."""
    go_on = threading.Event()
    one.machine.before_apply = lambda: go_on.wait(SECOND)
    waiting = asyncio.create_task(one.replica.propose(b"x", SECOND))
    await asyncio.sleep(0.05)
    closing = asyncio.create_task(one.replica.close())
    await asyncio.sleep(0.05)
    go_on.set()
    await closing
    try:
        assert (await waiting).result == 1
    except Unknown as problem:
        assert "stopping" in str(problem)
    with pytest.raises(Halted, match="closed"):
        await one.replica.propose(b"y", SECOND)
    assert not one.replica._thread.is_alive()


async def test_an_end_answers_calls_that_were_not_taken_yet(one):
    """They do not wait until their time is over."""
    go_on, entered = threading.Event(), threading.Event()
    one.machine.before_apply = lambda: (entered.set(), go_on.wait(SECOND))
    proposed = asyncio.create_task(one.replica.propose(b"x", SECOND))
    await until(entered.is_set)
    read = asyncio.create_task(one.replica.read_barrier(10 * SECOND))
    await asyncio.sleep(0)
    one.replica._pump.stop()
    go_on.set()
    with pytest.raises(Unknown, match="stopping"):
        await asyncio.wait_for(read, SECOND)
    await asyncio.wait([proposed])


async def test_a_hand_over_is_over_when_another_may_lead_also_before_the_terms_first_entry(one, monkeypatch):
    """It said at once that this node leads no more, when `leadership` had not told of the term yet."""
    monkeypatch.setattr(one.replica._pump.engine, "transfer", lambda to: True)
    monkeypatch.setattr(type(one.replica._pump.engine), "leads_since_applied", None)
    assert not await one.replica.transfer_leadership(None, 0.2)
    assert one.replica.status().state == "leader"


async def test_a_cancelled_proposal_is_not_taken_when_it_was_not_yet(one):
    """Its caller is gone before the thread looked."""
    go_on = threading.Event()
    entered = threading.Event()
    one.machine.before_apply = lambda: (entered.set(), go_on.wait(SECOND))
    first = asyncio.create_task(one.replica.propose(b"first", SECOND))
    await until(entered.is_set)
    second = asyncio.create_task(one.replica.propose(b"second", SECOND))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await first
    await one.replica.propose(b"third", SECOND)
    assert one.machine.commands == [b"first", b"third"]


async def test_apply_is_bounded_in_time_and_bytes(one, monkeypatch):
    """A slow machine gets smaller batches, but not ever smaller ones; a batch of large entries is cut, too."""
    one.machine.before_apply = lambda: time.sleep(0.05)
    await asyncio.gather(*(one.replica.propose(b"x", SECOND) for _ in range(500)))
    assert one.replica._pump._apply_limit < 500
    assert max(one.machine.batches[-2:]) >= pump_module.APPLY_ENTRIES_MIN
    one.machine.before_apply = lambda: None
    monkeypatch.setattr(pump_module, "APPLY_BYTES", 10_000)
    one.machine.batches.clear()
    await asyncio.gather(*(one.replica.propose(bytes(4000), SECOND) for _ in range(10)))
    assert max(one.machine.batches) <= 3


async def test_members_are_refused_with_words(one):
    """No voter that was no learner, nor one that did not catch up; a leader does not remove itself."""
    with pytest.raises(ValueError, match="must be a learner"):
        await one.replica.add_voter("b", 0.1)
    await one.replica.add_learner(Member("b", "127.0.0.1:1"), SECOND)
    await one.replica.add_learner(Member("b", "127.0.0.1:1"), SECOND)
    with pytest.raises(ValueError, match="has not caught up"):
        await one.replica.add_voter("b", 0.2)
    with pytest.raises(ValueError, match="cannot take itself out"):
        await one.replica.remove("a", 0.2)
    assert await one.replica.transfer_leadership(None, 0.2) is False
    await one.replica.remove("b", SECOND)
    assert one.replica.status().members == Members(voters=(Member("a", "127.0.0.1:1"),))
    assert one.machine.stands.members == one.replica.status().members


async def test_an_empty_node_waits_and_refuses(tmp_path):
    """Passive until a leader connects: no election, no proposal."""
    made = await One(tmp_path).start(found=False)
    with pytest.raises(NotLeader, match="no leader is known"):
        await made.replica.propose(b"x", SECOND)
    status = made.replica.status()
    assert (status.term, status.last_index, status.quorum, status.members) == (0, 0, False, Members())
    await made.replica.close()


async def test_it_goes_on_where_it_was(tmp_path):
    """Closed and started again, on the same disk and machine: nothing applied twice (the machine checks), `found` is no second founding."""
    made = One(tmp_path)
    for number in range(3):
        await made.start()
        term = await made.leads()
        assert (await made.replica.propose(b"x", SECOND)).result == number + 1
        assert term == made.replica.term()
        await made.replica.close()
    assert made.halts == []


async def test_a_ledger_behind_its_journal_refuses_the_start(tmp_path):
    """It lost what it had called durable: said in one line, not repaired by guessing."""
    disk = MemoryDisk()
    journal = Journal.open(disk, str(tmp_path))
    journal.reset(100, 3)
    journal.sync()
    journal.close()
    with pytest.raises(Halted, match="the ledger stands at 0, but the journal begins after 100"):
        await One(tmp_path, disk).start()


async def test_a_damaged_journal_refuses_the_start(tmp_path):
    """With file and offset."""
    made = await One(tmp_path, RealDisk()).start()
    await made.leads()
    for _ in range(3):
        await made.replica.propose(b"x", SECOND)
    await made.replica.close()
    (path,) = tmp_path.glob("*.log")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(Halted, match=rf"{path}: damaged at byte \d+"):
        await One(tmp_path, RealDisk(), made.machine).start()


async def test_a_full_disk_refuses_the_start(tmp_path):
    """The first segment does not fit: one line, no thread, no half-made segment in place."""
    disk = MemoryDisk()
    disk.fail_on, disk.error = "create", errno.ENOSPC
    with pytest.raises(Halted, match="cannot be opened: simulated"):
        await One(tmp_path, disk).start()
    assert disk.list(str(tmp_path)) == []


async def test_a_folder_that_cannot_be_written_refuses_the_start(tmp_path):
    """One clear line."""
    (tmp_path / "raft").write_text("a file, where a folder should be")
    with pytest.raises(Halted, match="cannot be opened: "):
        await One(tmp_path / "raft" / "deep", RealDisk()).start()


async def test_a_snapshot_is_installed_ledger_first_and_survives_a_crash_in_between(tmp_path):
    """The ledger was replaced, the journal not yet: the next start goes on from the ledger."""
    stands = Applied(500, 1, Members(voters=(Member("a", "127.0.0.1:1"),)))
    made = await One(tmp_path).start()
    await made.leads()
    await made.replica.propose(b"x", SECOND)
    await made.replica.close()
    made.machine.stands = stands
    made.disk = made.disk.crash(random.Random(1))
    await made.start()
    await made.leads()
    assert (await made.replica.propose(b"y", SECOND)).index > 500
    await made.replica.close()


async def test_an_installed_snapshot_answers_waiting_proposals_unknown(tmp_path):
    """A leader that was deposed and left so far behind cannot know what became of them."""
    source = ListMachine()
    source.stands, source.commands = Applied(500, 9, Members(voters=(Member("a", "127.0.0.1:1"),))), [b"from far"]
    made = await One(tmp_path).start()
    await made.leads()
    stands = source.snapshot(tmp_path / "incoming.snapshot")
    pump = made.replica._pump
    future = asyncio.get_running_loop().create_future()
    pump.call(lambda: pump.await_entry(pump.engine.term, 400, [pump_module.Proposal(b"", future)]))
    pump.call(lambda: pump._install(tmp_path / "incoming.snapshot", stands))
    with pytest.raises(Unknown, match="a snapshot was installed"):
        await asyncio.wait_for(future, SECOND)
    assert (made.machine.commands, made.replica.status().applied_index) == ([b"from far"], 500)
    await made.replica.close()
    journal = Journal.open(made.disk, str(tmp_path))
    assert (journal.base.index, journal.base.term) == (500, 9)


def test_equal_appends_are_encoded_once():
    """For all peers of one sending; what differs in anything that can differ is not equal."""
    from raft.messages import Append, AppendReply

    entries = [Entry(5, 1, 0, b"x")]
    same = pump_module._sameness(Append(1, 7, 4, 1, 3, entries))
    assert same == pump_module._sameness(Append(1, 7, 4, 1, 3, list(entries)))
    assert same != pump_module._sameness(Append(1, 7, 5, 1, 3, entries))
    assert same != pump_module._sameness(Append(1, 7, 4, 1, 3, [*entries, Entry(6, 1, 0, b"y")]))
    assert pump_module._sameness(AppendReply(1, 1, 1, True, False)) is None
