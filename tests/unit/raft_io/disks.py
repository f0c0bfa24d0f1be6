"""A disk in memory that does to unsynced writes what a power cut may do, and fails on demand.

`crash(chance)` leaves a disk as it may be found afterwards: of each unsynced write any subset of its sectors, of each folder change since the
last `sync_folder` the old or the new state. `stop_at` cuts the power at the n-th call; `fail_at` raises an OSError there instead.
"""

from __future__ import annotations

import errno
import random

SECTOR = 128  # small, so that small writes are torn too; twice the block whose loss the journal notices


class PowerCut(BaseException):
    """The machine stops here; nothing after it runs."""


class MemoryFile:
    def __init__(self, disk: MemoryDisk, size: int) -> None:
        self.disk = disk
        self.now = bytearray(size)
        self.durable = bytearray()
        self.unsynced: list[tuple[int, bytes]] = [(0, bytes(size))]
        self.names: list[str | None] = [None]  # first the durable one, last the present one

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self.now[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        data = bytes(data)
        self.disk.step("write", lambda: self.unsynced.append((offset, data)))
        self.put(self.now, offset, data)
        self.unsynced.append((offset, data))

    @staticmethod
    def put(target: bytearray, offset: int, data: bytes) -> None:
        target.extend(bytes(max(0, offset + len(data) - len(target))))
        target[offset : offset + len(data)] = data

    def size(self) -> int:
        return len(self.now)

    def sync(self) -> None:
        self.disk.step("sync")
        self.disk.syncs += 1
        self.durable = bytearray(self.now)
        self.unsynced = []

    def close(self) -> None:
        pass

    def torn(self, chance: random.Random) -> bytearray:
        found = bytearray(self.durable)
        for offset, data in self.unsynced:
            for start in range(0, len(data), SECTOR):
                if chance.random() < 0.5:
                    self.put(found, offset + start, data[start : start + SECTOR])
        return found


class MemoryDisk:
    def __init__(self) -> None:
        self.files: list[MemoryFile] = []
        self.calls = 0
        self.syncs = 0
        self.stop_at: int | None = None
        self.fail_at: int | None = None
        self.fail_on: str | None = None
        self.error = errno.EIO

    def step(self, what: str, torn=lambda: None) -> None:
        self.calls += 1
        if self.stop_at is not None and self.calls >= self.stop_at:
            torn()
            raise PowerCut
        if (self.fail_at is not None and self.calls >= self.fail_at) or self.fail_on == what:
            raise OSError(self.error, "simulated")

    def make_folder(self, folder: str) -> None:
        self.step("make_folder")

    def _find(self, path: str) -> MemoryFile:
        return next(file for file in self.files if file.names[-1] == path)

    def list(self, folder: str) -> list[str]:
        prefix = folder + "/"
        return sorted(file.names[-1].removeprefix(prefix) for file in self.files if file.names[-1] is not None)

    def open(self, path: str) -> MemoryFile:
        self.step("open")
        return self._find(path)

    def create(self, path: str, size: int) -> MemoryFile:
        self.step("create")
        assert path.rsplit("/", 1)[1] not in self.list(path.rsplit("/", 1)[0])
        file = MemoryFile(self, size)
        file.names.append(path)
        self.files.append(file)
        return file

    def rename(self, old: str, new: str) -> None:
        self.step("rename")
        self._find(old).names.append(new)

    def remove(self, path: str) -> None:
        self.step("remove")
        self._find(path).names.append(None)

    def sync_folder(self, folder: str) -> None:
        self.step("sync_folder")
        for file in self.files:
            file.names = file.names[-1:]

    def crash(self, chance: random.Random) -> MemoryDisk:
        after = MemoryDisk()
        for file in self.files:
            name = chance.choice(file.names)
            if name is not None:
                found = MemoryFile(after, 0)
                found.now = file.torn(chance)
                found.durable = bytearray(found.now)
                found.unsynced = []
                found.names = [name]
                after.files.append(found)
        return after

    def named(self, path: str) -> MemoryFile:
        return self._find(path)
