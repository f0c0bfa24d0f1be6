"""Bulk work beside commits: its pace, and what it leaves on the disk."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from raft import pace as pace_module
from raft.pace import PORTION_BYTES, Pace, Spread, keep_reserve


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


def test_a_growing_file_is_written_out_in_portions(tmp_path, clock, monkeypatch):
    """Not each time it is asked: when there is another megabyte, at its pace."""
    written: list[int] = []
    monkeypatch.setattr(pace_module, "_write_out", lambda descriptor: written.append(end))
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
            pace_module._write_out(ends[1])
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
