"""The real disk: what it reads is on the disk, and a file that cannot be filled leaves nothing."""

from __future__ import annotations

import errno
import os

import pytest

from raft.disk import ZEROS, RealDisk


def test_what_it_reads_is_synced_and_read_anew(tmp_path, monkeypatch):
    """Pages whose sync failed are clean in memory and not on the disk; those of a killed process are dirty. Neither is believed."""
    order: list[str] = []
    for name in ("fdatasync", "posix_fadvise", "pread"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, original=original: (order.append(name), original(*args))[1])
    (tmp_path / "file").write_bytes(b"x" * 10)
    file = RealDisk().open(str(tmp_path / "file"))
    assert file.read(0, 20) == b"x" * 10
    file.close()
    assert order[:3] == ["fdatasync", "posix_fadvise", "pread"]


def test_a_sync_that_fails_at_the_opening_is_told(tmp_path, monkeypatch):
    """The descriptor is closed again."""

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "simulated")

    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setattr(os, "fdatasync", fail)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="simulated"):
        RealDisk().open(str(tmp_path / "file"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_cannot_be_filled_is_removed(tmp_path, monkeypatch):
    """Its part may be the room that is missing."""
    original, written = os.pwrite, []

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if written:
            raise OSError(errno.ENOSPC, "simulated")
        written.append(len(data))
        return original(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="simulated"):
        RealDisk().create(str(tmp_path / "file"), 3 * len(ZEROS))
    assert written == [len(ZEROS)] and list(tmp_path.iterdir()) == []
