"""Disks in memory for the journal: they lose or tear what was not synced, run full, fail, are slow, and may stop the node at any call.

Every call first tells `on_step`, through which the node dies there (`PowerCut`), sleeps, or meets an error of the disk. After a failed sync nothing
that was written since the last good one can be relied on: some of it is on the disk, some is not, and what a reader sees may be either, because
the kernel has marked its pages clean and may keep or drop them.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections.abc import Callable

SECTOR = 512
DISK_CALLS = frozenset({"create", "write", "sync", "rename", "remove", "sync folder"})


class PowerCut(BaseException):
    """The node stops here; nothing after it runs. Not an Exception: no code under test may catch it."""


def put(target: bytearray, offset: int, data: bytes) -> None:
    if offset > len(target):
        target.extend(bytes(offset - len(target)))
    target[offset : offset + len(data)] = data


def sectors(offset: int, data: bytes) -> list[tuple[int, bytes]]:
    """The parts of a write that arrive whole or not at all."""
    first = min(len(data), SECTOR - offset % SECTOR)
    edges = [0, *range(first, len(data), SECTOR), len(data)]
    return [(offset + start, data[start:stop]) for start, stop in itertools.pairwise(edges)]


def failure(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class SimFile:
    def __init__(self, disk: SimDisk, size: int) -> None:
        self.disk = disk
        self.now = bytearray(size)
        self.durable = bytearray()
        self.unsynced: list[tuple[int, bytes]] = [(0, bytes(size))]

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self.now[offset : offset + size])

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        written = bytes(data)
        try:
            self.disk.step("write")
        except OSError:
            parts = sectors(offset, written)
            for start, part in parts[: self.disk.chance.randrange(len(parts) + 1)]:  # as much as went
                self._put(start, part)
            raise
        self._put(offset, written)

    def _put(self, offset: int, written: bytes) -> None:
        self.now[offset : offset + len(written)] = written
        self.unsynced.append((offset, written))

    def size(self) -> int:
        return len(self.now)

    def sync(self) -> None:
        try:
            self.disk.step("sync")
        except OSError:
            self._fail_sync()
            raise
        for offset, data in self.unsynced:
            put(self.durable, offset, data)
        self.unsynced.clear()

    def _fail_sync(self) -> None:
        shown = bytearray(self.now)
        self.lose(self.disk.chance)
        if self.disk.chance.random() < 0.5:
            self.now = shown  # pages that are marked clean, and nowhere on the disk

    def close(self) -> None:
        pass

    def lose(self, chance: random.Random) -> None:
        """Of what was not synced any subset of sectors survives a power cut."""
        for offset, data in self.unsynced:
            for start, part in sectors(offset, data):
                if chance.random() < 0.5:
                    put(self.durable, start, part)
        self.unsynced.clear()
        self.now = bytearray(self.durable)


class SimDisk:
    """One folder is enough. `on_step`: told of each call before it has an effect; it may raise."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.files: dict[str, SimFile] = {}
        self.durable_files: dict[str, SimFile] = {}
        self.on_step: Callable[[str], None] | None = None

    def step(self, call: str) -> None:
        if self.on_step is not None:
            self.on_step(call)

    def is_clean(self) -> bool:
        """Everything written to a file that is in place is on the disk."""
        return not any(file.unsynced for path, file in self.files.items() if path.endswith(".log"))

    def make_folder(self, folder: str) -> None:
        self.step("make folder")

    def list(self, folder: str) -> list[str]:
        return sorted(path.removeprefix(folder + "/") for path in self.files)

    def open(self, path: str) -> SimFile:
        """What was written comes to the disk, and what is only in memory is forgotten, as the interface asks."""
        file = self.files[path]
        file.sync()
        file.now = bytearray(file.durable)
        return file

    def create(self, path: str, size: int) -> SimFile:
        if path in self.files:
            raise failure(errno.EEXIST)
        try:
            self.step("create")
        except OSError:
            self.files[path] = SimFile(self, self.chance.randrange(size))  # as much as went
            raise
        file = self.files[path] = SimFile(self, size)
        return file

    def rename(self, old: str, new: str) -> None:
        self.step("rename")
        self.files[new] = self.files.pop(old)

    def remove(self, path: str) -> None:
        self.step("remove")
        del self.files[path]

    def sync_folder(self, folder: str) -> None:
        self.step("sync folder")
        self.durable_files = dict(self.files)

    def cut_power(self, chance: random.Random) -> None:
        """What a restart finds: of changes to the folder since its last sync each one happened or not, of files what `lose` leaves."""
        found: dict[str, SimFile] = {}
        for path in sorted(self.files.keys() | self.durable_files.keys()):
            old, new = self.durable_files.get(path), self.files.get(path)
            kept = new if old is new or chance.random() < 0.5 else old
            if kept is not None and kept not in found.values():
                found[path] = kept
        for _, file in sorted(self.files.items()):
            if file not in found.values() and file in self.durable_files.values():  # a rename that is not durable leaves the old name
                found[next(name for name, held in self.durable_files.items() if held is file)] = file
        for file in found.values():
            file.lose(chance)
        self.files = found
        self.durable_files = dict(found)


class Trouble:
    """What goes wrong at a node's steps: at the n-th from now it dies, sleeps or meets an error; a slow disk takes its time at every sync; a full
    one refuses new files until it is freed."""

    def __init__(self) -> None:
        self.steps_left: int | None = None
        self.strike: Callable[[str], None] | None = None
        self.slow_s = 0.0
        self.full = False
        self.failed = False  # an error was met: the node may halt, and must not go on as if nothing were

    def arm(self, steps: int, strike: Callable[[str], None]) -> None:
        self.steps_left, self.strike = steps, strike

    def disarm(self) -> None:
        self.steps_left = self.strike = None

    def repair(self) -> None:
        self.disarm()
        self.slow_s, self.full = 0.0, False

    @property
    def quiet(self) -> bool:
        return self.steps_left is None and not self.slow_s and not self.full

    def step(self, call: str) -> None:
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left <= 0:
                strike = self.strike
                self.disarm()
                assert strike is not None
                strike(call)
        if self.full and call == "create":  # files have their room from the beginning
            self.failed = True
            raise failure(errno.ENOSPC)

    def fail(self, call: str) -> None:
        """A strike: the next call to the disk fails. Other steps pass."""
        if call not in DISK_CALLS:
            self.arm(1, self.fail)
            return
        self.failed = True
        raise failure(errno.EIO)
