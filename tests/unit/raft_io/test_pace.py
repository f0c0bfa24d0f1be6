"""Bulk work beside commits: its pace, and what it leaves on the disk."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from raft import pace as pace_module
from raft.pace import PORTION_BYTES, Pace, Regard, Spread, keep_reserve


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


def paced(clock: Clock, rate: int) -> Pace:
    return Pace(rate, lambda: clock.now, clock.sleep)


def test_so_many_bytes_a_second(clock):
    """The first portion goes at once; each waits for those before it."""
    pace = paced(clock, 100)
    for _ in range(11):
        pace.spend(10)
    assert clock.now == pytest.approx(1.0)
    assert clock.slept == pytest.approx([0.1] * 10)


def test_what_was_not_used_is_not_saved_up(clock):
    """A pause is no leave for a burst."""
    pace = paced(clock, 100)
    pace.spend(10)
    clock.now = 60.0
    pace.spend(10)
    pace.spend(10)
    assert clock.now == pytest.approx(60.1)


def test_in_a_hurry_nothing_waits(clock):
    """And the pace is kept again afterwards."""
    pace = paced(clock, 100)
    pace.hurry = True
    for _ in range(100):
        pace.spend(10)
    assert clock.slept == []
    pace.hurry = False
    pace.spend(10)
    pace.spend(10)
    assert clock.slept == pytest.approx([0.1])


def judged(regard: Regard, *spans: float, copying: bool) -> None:
    for longest in spans:
        regard.took(longest / 2)
        regard.took(longest)
        regard.judge(copying=copying)


def test_it_gives_way_to_commits(clock):
    """Twice as long as usual halves it, down to an eighth; when they are well again it comes back step by step, and afterwards at once."""
    pace = paced(clock, 3200)
    regard = Regard(pace)
    judged(regard, *[0.01] * 40, copying=False)
    judged(regard, 0.019, copying=True)
    assert pace.bytes_a_second == 3200
    judged(regard, 0.021, copying=True)
    assert pace.bytes_a_second == 1600
    judged(regard, *[0.5] * 9, copying=True)
    assert pace.bytes_a_second == 400
    judged(regard, *[0.01] * 4, copying=True)
    assert pace.bytes_a_second == 800
    judged(regard, 0.01, copying=False)
    assert pace.bytes_a_second == 3200


def test_without_commits_it_does_not_slow_down(clock):
    """Nothing is known of them, or there are none: nobody waits."""
    pace = paced(clock, 3200)
    regard = Regard(pace)
    judged(regard, 5.0, copying=True)
    assert pace.bytes_a_second == 3200
    regard.judge(copying=False)
    judged(regard, 0.01, copying=False)
    judged(regard, 0.5, copying=True)
    assert pace.bytes_a_second == 1600
    for _ in range(40):
        regard.judge(copying=True)
    assert pace.bytes_a_second == 3200


def test_what_is_usual_follows_slowly(clock):
    """One long commit is no new custom; many are."""
    pace = paced(clock, 3200)
    regard = Regard(pace)
    judged(regard, *[0.01] * 40, 0.1, copying=False)
    judged(regard, 0.05, copying=True)
    assert pace.bytes_a_second == 1600
    judged(regard, *[0.1] * 100, copying=False)
    judged(regard, 0.15, copying=True)
    assert pace.bytes_a_second == 3200


def test_a_growing_file_is_written_out_in_portions(tmp_path, clock, monkeypatch):
    """Not each time it is asked: when there is another portion, at its pace."""
    written: list[int] = []
    monkeypatch.setattr(pace_module, "write_out", lambda descriptor: written.append(end))
    path = tmp_path / "file"
    with Spread(path, paced(clock, PORTION_BYTES)) as spread:
        for end in range(0, 3 * PORTION_BYTES + 1, PORTION_BYTES // 2):
            spread.wrote(end)
    assert written == [PORTION_BYTES, 2 * PORTION_BYTES, 3 * PORTION_BYTES]
    assert clock.now == pytest.approx(2.0)


def test_it_is_really_written_out(tmp_path):
    """The system takes the call for a file, and says no to a pipe."""
    path = tmp_path / "file"
    with Spread(path, Pace(1 << 40)) as spread:
        path.write_bytes(bytes(2 * PORTION_BYTES))
        spread.wrote(2 * PORTION_BYTES)
    ends = os.pipe()
    try:
        with pytest.raises(OSError, match=os.strerror(errno.ESPIPE)):
            pace_module.write_out(ends[1])
    finally:
        for end in ends:
            os.close(end)


def test_where_linux_does_not_do_it_a_sync_does(tmp_path, monkeypatch):
    """Every page of the file reaches the disk, too."""
    synced: list[int] = []
    monkeypatch.setattr(pace_module.ctypes, "CDLL", lambda *_, **__: SimpleNamespace())
    monkeypatch.setattr(os, "fdatasync", synced.append)
    with Spread(tmp_path / "file", Pace(1 << 40)) as spread:
        spread.wrote(PORTION_BYTES)
    assert len(synced) == 1


@pytest.mark.parametrize(
    "free_mib, whole_mib, fits",
    [
        pytest.param(63, 100_000, False, id="a large disk keeps 64 MiB"),
        pytest.param(65, 100_000, True, id="and no more"),
        pytest.param(4, 100, False, id="a small one a twentieth"),
        pytest.param(6, 100, True, id="of itself"),
    ],
)
def test_a_copy_leaves_room_for_the_journal(tmp_path, monkeypatch, free_mib, whole_mib, fits):
    """A copy that fills the disk would halt the node that makes it."""
    system = SimpleNamespace(f_frsize=1024 * 1024, f_bavail=free_mib, f_blocks=whole_mib)
    monkeypatch.setattr(os, "fstatvfs", lambda descriptor: system)
    if fits:
        keep_reserve(0)
    else:
        with pytest.raises(OSError, match=f"only {free_mib} MiB are left on the disk, which are kept for the journal"):
            keep_reserve(0)
