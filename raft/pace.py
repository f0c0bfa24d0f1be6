"""Copying in bulk beside commits: so many bytes a second, in portions that are on the disk before the next one is written.

A gigabyte in the system's memory, written out at once, stops every `fdatasync` of the machine behind it, and with them the commits. So whoever writes
a large file calls `Spread.wrote` as it grows: that waits for the disk and for the pace. It also leaves room: a copy that fills the disk would halt
the very node that makes it. `snapshot.py` uses this at both ends, and a state machine when it writes its copy.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

PORTION_BYTES = 256 * 1024  # what a commit's sync may have to wait for: a few milliseconds of a disk's time
RESERVE_BYTES = 64 * 1024 * 1024  # of the disk are left to what cannot wait, a twentieth of a small one
RESERVE_SHARE = 20

JUDGE_S = 0.25  # how often `Regard` looks at the commits
TOO_LONG = 2.0  # the longest commit of such a span against what it usually is: then the pace is halved
SLOWEST_SHARE = 8  # of the full pace, at least an eighth goes on: whoever is behind must arrive
FASTER_SHARE = 32  # of the full pace more at each look at which commits are well
USUAL_WEIGHT = 0.05  # of the newest span in what is usual

_WRITE_AND_WAIT = 1 | 2 | 4  # Linux: SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE, _WAIT_AFTER


class Pace:
    """At most so many bytes a second, over all threads that share it. `hurry` lets them go as fast as they can."""

    def __init__(self, bytes_a_second: int, monotonic: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> None:
        self.hurry = False
        self.full = self.bytes_a_second = bytes_a_second
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = float("-inf")

    def spend(self, size: int) -> None:
        """Returns when so many more bytes may go. What was not used earlier is not saved up."""
        with self._lock:
            now = self._monotonic()
            free_at = max(now, self._free_at)
            self._free_at = now if self.hurry else free_at + size / self.bytes_a_second
        if free_at > now and not self.hurry:
            self._sleep(free_at - now)


class Regard:
    """Has a pace give way to commits: it is told how long they take, and slows down while they take longer than they do without.

    What is usual is the longest commit of a span, on average over the spans in which nobody copied.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._longest_s = 0.0  # in this span
        self._usual_s = 0.0  # 0: not known yet

    def took(self, seconds: float) -> None:
        """A commit."""
        if seconds > self._longest_s:
            self._longest_s = seconds

    def judge(self, *, copying: bool) -> None:
        """Every JUDGE_S."""
        longest, self._longest_s = self._longest_s, 0.0
        pace = self._pace
        if not copying:
            pace.bytes_a_second = pace.full
            if longest:
                self._usual_s += (longest - self._usual_s) * (USUAL_WEIGHT if self._usual_s else 1.0)
        elif self._usual_s and longest > TOO_LONG * self._usual_s:
            pace.bytes_a_second = max(pace.full // SLOWEST_SHARE, pace.bytes_a_second // 2)
        else:
            pace.bytes_a_second = min(pace.full, pace.bytes_a_second + pace.full // FASTER_SHARE)


class Spread:
    """A file that somebody writes from its beginning on. Call `wrote` with how far, often; OSError when the disk has no room to spare.

    The pages go to the disk as the file grows. That does not make it durable: the file must be synced in the end, which then has little to do.
    """

    def __init__(self, path: Path, pace: Pace) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._pace = pace
        self._written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._descriptor)

    def wrote(self, end: int) -> None:
        size = end - self._written
        if size >= PORTION_BYTES:
            keep_reserve(self._descriptor)
            write_out(self._descriptor)
            self._written = end
            self._pace.spend(size)


def keep_reserve(descriptor: int) -> None:
    """OSError (ENOSPC) where the file system of that file has no more left than what is kept for the journal."""
    system = os.fstatvfs(descriptor)
    free, whole = system.f_bavail * system.f_frsize, system.f_blocks * system.f_frsize
    if free < min(RESERVE_BYTES, whole // RESERVE_SHARE):
        raise OSError(errno.ENOSPC, f"only {free >> 20} MiB are left on the disk, which are kept for the journal")


def write_out(descriptor: int) -> None:
    """All pages of the file that are not on the disk. Linux can do that by itself; elsewhere it takes a sync, which writes metadata, too."""
    try:
        function = ctypes.CDLL(None, use_errno=True).sync_file_range
    except (AttributeError, OSError):
        os.fdatasync(descriptor)
        return
    if function(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), _WRITE_AND_WAIT):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
