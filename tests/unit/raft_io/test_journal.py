"""The journal: what was synced is there after any crash, a torn tail is cut, other damage is refused with file and offset."""

from __future__ import annotations

import errno
import os
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raft.disk import RealDisk
from raft.interface import Entry
from raft.journal import Journal, JournalFailed
from raft.log import Base
from raft.segment import MAGIC, Damaged, frame_bytes
from tests.unit.raft_io.disks import MemoryDisk, PowerCut

SMALL = 5_000  # bytes a segment: a few frames fill it
FOLDER = "raft"


def entry(index: int, term: int = 1, size: int = 20) -> Entry:
    return Entry(index, term, 0, bytes([index % 251 + 1]) * size)


def opened(disk) -> Journal:
    return Journal.open(disk, FOLDER, segment_bytes=SMALL)


def filled(disk, count: int, size: int = 20) -> Journal:
    journal = opened(disk)
    for index in range(1, count + 1):
        journal.append([entry(index, size=size)])
        journal.sync()
    return journal


def contents(journal: Journal) -> list[Entry]:
    return journal.entries(journal.first_index, journal.last_index + 1)


def test_a_new_journal_is_empty():
    """A folder that was never used gives term 0, no vote, no entry."""
    journal = opened(MemoryDisk())
    assert (journal.base, journal.last_index, journal.last_term, journal.term, journal.vote) == (Base(0, 0), 0, 0, 0, None)
    assert journal.first_index == 1
    assert journal.term_at(0) == 0 and journal.term_at(1) is None


def test_what_was_synced_is_there_after_reopen(tmp_path):
    """On the real disk: entries, term, vote and truncation come back; what was not synced does not."""
    folder = str(tmp_path / "deep" / "raft")
    journal = Journal.open(RealDisk(), folder)
    journal.set_vote(3, "node-a")
    journal.append([entry(1), entry(2), entry(3, 3)])
    journal.truncate_from(3)
    assert journal.sync() is True
    assert journal.sync() is False
    journal.append([entry(3, 3)])
    journal.close()
    again = Journal.open(RealDisk(), folder)
    assert (again.term, again.vote, again.last_index, again.last_term) == (3, "node-a", 2, 1)
    assert contents(again) == [entry(1), entry(2)]
    again.close()


def test_one_sync_is_one_write_and_one_fdatasync():
    """However many records a tick made."""
    disk = MemoryDisk()
    journal = opened(disk)
    before, calls = disk.syncs, disk.calls
    journal.set_vote(1, "a")
    journal.append([entry(1)])
    journal.append([entry(2), entry(3)])
    journal.truncate_from(3)
    journal.sync()
    assert (disk.syncs - before, disk.calls - calls) == (1, 2)


def test_entries_respects_its_limit_but_gives_at_least_one():
    """A follower that lags gets batches of bounded size, and an entry above the limit alone."""
    journal = filled(MemoryDisk(), 5, size=100)
    assert [found.index for found in journal.entries(2, 6, limit_bytes=250)] == [2, 3]
    assert [found.index for found in journal.entries(2, 6, limit_bytes=1)] == [2]
    assert journal.entries(6, 6) == []
    assert journal.entry(4) == entry(4, size=100)


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda journal: journal.append([entry(7)]), id="a gap"),
        pytest.param(lambda journal: journal.append([entry(6, 0)]), id="a term that goes back"),
        pytest.param(lambda journal: journal.set_vote(1, "b"), id="a vote in an older term"),
        pytest.param(lambda journal: journal.truncate_from(2), id="a truncation below the base"),
        pytest.param(lambda journal: journal.cut_to(9), id="a cut beyond the end"),
        pytest.param(lambda journal: journal.entries(2, 4), id="entries that were cut"),
        pytest.param(lambda journal: journal.entry(9), id="an entry that is not there"),
    ],
)
def test_what_cannot_be_is_refused(act):
    """Our own mistakes are caught before they reach the disk."""
    journal = filled(MemoryDisk(), 5)
    journal.set_vote(2, "a")
    journal.cut_to(3)
    with pytest.raises((ValueError, IndexError)):
        act(journal)


def test_cut_removes_whole_old_segments_and_keeps_term_and_vote():
    """The vote was written into a segment that is gone; it is still known after reopen."""
    disk = MemoryDisk()
    journal = opened(disk)
    journal.set_vote(9, "node-x")
    for index in range(1, 300):
        journal.append([entry(index, 9, size=50)])
        journal.sync()
    assert len(disk.list(FOLDER)) > 3
    journal.cut_to(290)
    journal.sync()
    assert len(disk.list(FOLDER)) <= 2
    again = opened(disk)
    assert (again.term, again.vote, again.last_index) == (9, "node-x", 299)
    assert again.base.index <= 290
    assert again.entry(291) == entry(291, 9, size=50)


def test_memory_counts_what_is_kept():
    """`uncut_bytes` follows append, truncate, cut and reset back to nothing."""
    journal = filled(MemoryDisk(), 10)
    whole = journal.uncut_bytes
    journal.truncate_from(9)
    journal.cut_to(4)
    assert journal.uncut_bytes == whole * 4 // 10
    journal.reset(50, 2)
    assert journal.uncut_bytes == 0


def test_reset_begins_after_the_snapshot():
    """Nothing of the old log is seen again, and its segments go."""
    disk = MemoryDisk()
    journal = filled(disk, 300, size=50)
    journal.reset(1000, 7)
    journal.append([entry(1001, 7)])
    journal.sync()
    assert len(disk.list(FOLDER)) == 1
    again = opened(disk)
    assert (again.base, again.last_index, again.term_at(1000)) == (Base(1000, 7), 1001, 7)


def test_a_truncation_across_segments_survives_the_removal_of_the_older():
    """The older segment ended with 100 entries, 90 of them live; the newer alone must begin after entry 89."""
    disk = MemoryDisk()
    journal = filled(disk, 100, size=50)
    segments = len(disk.list(FOLDER))
    journal.append([entry(index, 2, 400) for index in range(101, 111)])  # opens a new segment
    journal.truncate_from(90)
    journal.append([entry(90, 3), entry(91, 3)])
    journal.sync()
    assert len(disk.list(FOLDER)) == segments + 1
    journal.cut_to(91)
    journal.sync()
    assert len(disk.list(FOLDER)) == 1
    again = opened(disk)
    assert (again.base, again.last_index, again.last_term) == (Base(89, 1), 91, 3)


@pytest.mark.parametrize("what", ["write", "sync"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_after_a_failed_write_or_sync_nothing_is_vouched_for(what, error):
    """A second fsync would say yes to lost pages: the journal refuses for ever, even when the disk is well again."""
    disk = MemoryDisk()
    journal = filled(disk, 3)
    disk.fail_on, disk.error = what, error
    journal.append([entry(4)])
    with pytest.raises(JournalFailed, match="raft could not be written"):
        journal.sync()
    disk.fail_on = None
    with pytest.raises(JournalFailed, match="raft could not be written"):
        journal.sync()
    assert journal.failure is not None


def spared(disk) -> Journal:
    """So full that the next segment is wanted, and made."""
    journal = filled(disk, 90)
    assert journal.wants_spare
    journal.make_spare()
    assert not journal.wants_spare
    return journal


def test_the_next_segment_is_made_ahead_of_need():
    """The sync that needs it renames it: its bytes are written and synced already, but for the frames."""
    disk = MemoryDisk()
    journal = spared(disk)
    spare = disk.named(f"{FOLDER}/spare.new")
    calls, syncs = disk.calls, disk.syncs
    journal.append([entry(91, size=800)])
    journal.sync()
    assert disk.named(f"{FOLDER}/0000000000000002.log") is spare
    assert (disk.calls - calls, disk.syncs - syncs) == (4, 1)  # write, sync, rename, sync of the folder
    assert opened(disk).last_index == 91


def test_a_spare_that_does_not_fit_waits():
    """A frame above the size of a segment gets one of its own."""
    disk = MemoryDisk()
    journal = spared(disk)
    journal.append([entry(91, size=2 * SMALL)])
    journal.sync()
    assert disk.list(FOLDER) == ["0000000000000001.log", "0000000000000002.log", "spare.new"]
    for index in range(92, 98):
        journal.append([entry(index, size=800)])
        journal.sync()
    assert disk.list(FOLDER) == ["0000000000000001.log", "0000000000000002.log", "0000000000000003.log"]
    assert opened(disk).last_index == 97


@pytest.mark.parametrize("what", ["create", "sync"])
def test_a_spare_that_cannot_be_made_is_done_without(what):
    """No room for it, or its sync failed: what was written is never used, and the tick makes a segment of its own when it must."""
    disk = MemoryDisk()
    journal = filled(disk, 90)
    disk.fail_on, disk.error = what, errno.ENOSPC
    journal.make_spare()
    assert not journal.wants_spare, "not again and again"
    disk.fail_on = None
    assert disk.list(FOLDER) == ["0000000000000001.log"]
    journal.append([entry(91, size=800)])
    journal.sync()
    assert disk.list(FOLDER) == ["0000000000000001.log", "0000000000000002.log"]
    journal.append([entry(92, size=800)])
    journal.sync()
    assert journal.wants_spare, "the next one is tried again"
    assert opened(disk).last_index == 92


def test_a_spare_of_an_earlier_life_is_removed():
    """What it holds is not known; so is one that was made while the journal was closed not kept open."""
    disk = MemoryDisk()
    spared(disk).close()
    journal = opened(disk)
    assert disk.list(FOLDER) == ["0000000000000001.log"]
    journal.close()
    journal.make_spare()
    assert disk.list(FOLDER) == ["0000000000000001.log"]


@pytest.mark.parametrize("spare", [False, True], ids=["without a spare", "with a spare"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("what", ["create", "write", "sync", "rename", "sync_folder"])
def test_a_segment_that_cannot_be_made_fails_the_sync_and_the_next_start_is_well(what, error, spare):
    """At every step of it; when the disk is well again (space is back) a new process goes on behind what was vouched for."""
    disk = MemoryDisk()
    journal = spared(disk) if spare else filled(disk, 90)
    disk.fail_on, disk.error = what, error
    journal.append([entry(91, size=800)])
    if what == "create" and spare:
        journal.sync()
        return
    with pytest.raises(JournalFailed, match="raft could not be written"):
        journal.sync()
    disk.fail_on = None
    calls = disk.calls
    with pytest.raises(JournalFailed, match="raft could not be written"):
        journal.sync()
    assert disk.calls == calls, "the disk is not touched again"
    again = opened(disk.crash(random.Random(7)))
    assert again.last_index in ({90, 91} if what == "sync_folder" else {90}), "in place already, or not"
    again.append([entry(again.last_index + 1, size=800)])
    again.sync()


def first_frames(journal_file) -> list[int]:
    """Offsets of the frames in a segment, read as the format says."""
    offsets, at = [], len(MAGIC)
    while length := int.from_bytes(journal_file.now[at : at + 4], "little"):
        offsets.append(at)
        at += frame_bytes(length)
    return offsets


def test_a_flipped_byte_is_refused_with_file_and_offset():
    """Any byte of any frame of any segment, the newest frame too: it was synced, and the others count on it."""
    disk = MemoryDisk()
    filled(disk, 60, size=150)
    assert len(disk.list(FOLDER)) == 3
    for name in disk.list(FOLDER):
        file = disk.named(f"{FOLDER}/{name}")
        offsets = first_frames(file)
        for offset in range(offsets[0], len(file.now.rstrip(b"\0"))):
            file.now[offset] ^= 0x41
            frame = max(start for start in offsets if start <= offset)
            with pytest.raises(Damaged) as refused:
                opened(disk)
            assert (refused.value.file, refused.value.offset) == (f"{FOLDER}/{name}", frame)
            assert f"{FOLDER}/{name}: damaged at byte {frame}: " in str(refused.value)
            file.now[offset] ^= 0x41
    assert opened(disk).last_index == 60


@pytest.mark.parametrize("data", [bytes(400), bytes(200) + b"\1" * 200, b"\1" * 100 + bytes(100)], ids=["zeros", "zeros and ones", "ones and zeros"])
def test_a_flipped_byte_in_an_entry_of_zeros_is_refused_too(data):
    """It looked like one of which a sector never arrived, and was cut: what had been vouched for was gone."""
    disk = MemoryDisk()
    journal = filled(disk, 6)
    journal.append([Entry(7, 1, 0, data)])
    journal.sync()
    assert opened(disk).entry(7).data == data
    file = disk.named(f"{FOLDER}/0000000000000001.log")
    start = first_frames(file)[-1]
    for offset in range(start, len(file.now.rstrip(b"\0"))):
        file.now[offset] ^= 0x41
        with pytest.raises(Damaged):
            opened(disk)
        file.now[offset] ^= 0x41


def newest_frame(disk, size: int):
    """Of a journal of six entries and a seventh of that size: the file, and where its newest frame begins and ends."""
    journal = filled(disk, 6)
    journal.append([entry(7, size=size)])
    journal.sync()
    file = disk.named(f"{FOLDER}/0000000000000001.log")
    return file, first_frames(file)[-1], journal._segments[-1].end


@pytest.mark.parametrize("size", [0, 20, 1500])
def test_a_frame_that_was_cut_short_is_cut_and_overwritten(size):
    """Wherever the write ended: nobody vouched for it, so it goes, and what follows is clean."""
    _, start, stop = newest_frame(MemoryDisk(), size)
    for kept in {*range(1, min(40, stop - start - 8)), *range(1, stop - start - 8, 97)}:
        disk = MemoryDisk()
        file, start, stop = newest_frame(disk, size)
        file.now[start + kept : stop] = bytes(stop - start - kept)
        journal = opened(disk)
        assert journal.last_index == 6, kept
        journal.append([entry(7, 2)])
        journal.sync()
        assert opened(disk).entry(7) == entry(7, 2)


@pytest.mark.parametrize("lost", range(1, 31))
def test_a_frame_that_lacks_sectors_is_cut(lost):
    """Any of the sectors of one write may be missing after a power cut, its head or its end among them."""
    disk = MemoryDisk()
    file, start, stop = newest_frame(disk, 1900)
    sectors = [start, *range(512, stop, 512), stop]
    assert len(sectors) == 6
    for number in range(5):
        if lost & (1 << number):
            file.now[sectors[number] : sectors[number + 1]] = bytes(sectors[number + 1] - sectors[number])
    assert opened(disk).last_index == 6


def test_garbage_where_the_next_frame_would_be_is_not_ours():
    """A crash leaves nothing but parts of a frame there."""
    disk = MemoryDisk()
    file, _, stop = newest_frame(disk, 20)
    file.now[stop : stop + 100] = random.Random(1).randbytes(100)
    with pytest.raises(Damaged, match=f"damaged at byte {stop}: the newest record is not valid, and not one that a crash has torn"):
        opened(disk)


def test_the_rest_of_a_torn_frame_is_not_met_again():
    """A long frame torn, a short one in its place, then a new segment: the rest of the long one would look like damage of an older segment."""
    disk = MemoryDisk()
    journal = filled(disk, 6)
    journal.append([entry(7, size=1500)])
    journal.sync()
    file = disk.named(f"{FOLDER}/0000000000000001.log")
    start = first_frames(file)[-1]
    file.now[start : start + 64] = bytes(64)
    journal = opened(disk)
    for _ in range(2):
        journal.append([entry(journal.last_index + 1, size=30)])
        journal.sync()
    journal.append([entry(journal.last_index + 1, size=SMALL)])
    journal.sync()
    assert opened(disk).last_index == 9


def test_segments_go_one_by_one_so_that_a_crash_leaves_no_gap():
    """A removed file may come back after a power cut; never one whose younger neighbour is gone."""
    for seed in range(30):
        disk = MemoryDisk()
        journal = filled(disk, 300, size=50)
        disk.stop_at = disk.calls + 1 + seed % 12
        journal.cut_to(299)
        try:
            journal.sync()
        except PowerCut:
            pass
        assert opened(disk.crash(random.Random(seed))).last_index == 300


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda disk: disk.files.remove(disk.named("raft/0000000000000002.log")), id="a segment is missing"),
        pytest.param(lambda disk: disk.named("raft/0000000000000002.log").now.__delitem__(slice(3000, None)), id="a file was shortened"),
        pytest.param(lambda disk: disk.named("raft/0000000000000002.log").now.__setitem__(slice(0, 8), b"GARBAGE!"), id="not a segment"),
        pytest.param(lambda disk: disk.named("raft/0000000000000003.log").now.__setitem__(slice(8, 90), bytes(82)), id="the first frame is gone"),
        pytest.param(lambda disk: erase_last_frame(disk, "raft/0000000000000002.log"), id="an older segment lost its end"),
        pytest.param(lambda disk: disk.named("raft/0000000000000002.log").names.append("raft/x.log"), id="a stranger's name"),
    ],
)
def test_other_damage_is_refused(damage):
    """Never repaired by guessing: the node does not start."""
    disk = MemoryDisk()
    filled(disk, 150, size=50)
    assert len(disk.list(FOLDER)) >= 3
    damage(disk)
    with pytest.raises(Damaged, match="must not start on it"):
        opened(disk)


@pytest.mark.parametrize("name", ["0000000000000001.log", "x.log"])
def test_a_journal_that_is_refused_leaves_no_file_open(tmp_path, name):
    (tmp_path / name).write_bytes(b"GARBAGE!" * 100)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(Damaged):
        Journal.open(RealDisk(), str(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == len(before)


def erase_last_frame(disk, path: str) -> None:
    file = disk.named(path)
    start = first_frames(file)[-1]
    file.now[start:] = bytes(len(file.now) - start)


def test_an_entry_that_holds_a_journal_does_not_pass_for_frames():
    """A command may carry any bytes, also a copy of the segment: a torn frame with such a payload is cut, not called damage."""
    disk = MemoryDisk()
    journal = filled(disk, 20)
    file = disk.named(f"{FOLDER}/0000000000000001.log")
    copy = bytes(file.now[: journal._segments[-1].end])
    journal = Journal.open(disk, FOLDER, segment_bytes=SMALL)
    journal.append([Entry(21, 1, 0, copy)])
    journal.sync()
    newest = disk.named(f"{FOLDER}/{disk.list(FOLDER)[-1]}")
    start = first_frames(newest)[-1]
    newest.now[start : start + 64] = bytes(64)
    assert opened(disk).last_index == 20


# --- histories


operation = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 5), st.integers(0, 400)),
    st.tuples(st.just("sync")),
    st.tuples(st.just("sync")),
    st.tuples(st.just("truncate"), st.integers(1, 6)),
    st.tuples(st.just("vote"), st.integers(0, 2), st.sampled_from(["a", "b", None])),
    st.tuples(st.just("cut"), st.integers(0, 30)),
    st.tuples(st.just("reset"), st.integers(1, 9)),
    st.tuples(st.just("spare")),
)


class Model:
    """The log as a plain list; `durable` is what the last sync promised, `doubtful` what a sync in progress may have written."""

    def __init__(self) -> None:
        self.now = (0, None, Base(0, 0), ())
        self.durable = self.now

    def read(self, journal: Journal) -> None:
        self.now = (journal.term, journal.vote, journal.base, tuple(contents(journal)))


def same(found: Journal, state) -> bool:
    """A reopened journal may begin earlier, as cuts are not written; from the base on all is equal."""
    term, vote, base, entries = state
    if (found.term, found.vote) != (term, vote) or found.base.index > base.index:
        return False
    if found.last_index != base.index + len(entries) or found.term_at(base.index) != base.term:
        return False
    return tuple(found.entries(base.index + 1, found.last_index + 1)) == entries


def perform(journal: Journal, step) -> None:
    match step:
        case ("append", count, size):
            term = max(journal.term, journal.last_term)
            journal.append([entry(journal.last_index + 1 + offset, term, size) for offset in range(count)])
        case ("truncate", back):
            index = journal.last_index + 1 - back
            if index > journal.base.index:
                journal.truncate_from(index)
        case ("vote", more, vote):
            journal.set_vote(journal.term + more, vote)
        case ("cut", back):
            journal.cut_to(max(journal.base.index, journal.last_index - back))
        case ("reset", ahead):
            journal.reset(journal.last_index + ahead, max(journal.term, journal.last_term))
        case ("spare",):
            journal.make_spare()


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    lives=st.lists(st.tuples(st.lists(operation, max_size=40), st.integers(1, 80)), min_size=1, max_size=4),
    seed=st.integers(0, 2**32),
)
def test_any_history_with_crashes_keeps_what_was_synced(lives, seed):
    """Random operations, the power cut at any disk call, sectors of unsynced writes lost at random; then the next life goes on from there."""
    chance = random.Random(seed)
    disk = MemoryDisk()
    model = Model()
    for steps, stop_at in lives:
        disk.stop_at = stop_at
        allowed = [model.durable]
        try:
            journal = opened(disk)
            for step in steps:
                if step == ("sync",):
                    model.read(journal)
                    allowed.append(model.now)
                    journal.sync()
                    allowed = [model.now]
                else:
                    perform(journal, step)
        except PowerCut:
            pass
        disk = disk.crash(chance)
        found = opened(disk)
        assert any(same(found, state) for state in allowed), (found.base, found.last_index, allowed)
        model.read(found)
        model.durable = model.now


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(operation.filter(lambda step: step[0] != "cut"), max_size=60), where=st.floats(0, 1), bit=st.integers(0, 7))
def test_a_flipped_bit_never_changes_what_is_read(steps, where, bit):
    """Anywhere in any file: the journal opens as it was, or not at all."""
    disk = MemoryDisk()
    journal = opened(disk)
    for step in steps:
        perform(journal, step)
        journal.sync()
    state = (journal.term, journal.vote, journal.base, tuple(contents(journal)))
    file = disk.files[int(where * (len(disk.files) - 1))]
    place = int(where * (len(file.now) - 1))
    file.now[place] ^= 1 << bit
    try:
        found = opened(disk)
    except Damaged:
        return
    assert same(found, state)
